"""``cptbench export hub``: what is written is what the hub's own library reads and validates."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.hub import export_hub
from cpt_bench.leaderboard.hub_text import markdown
from cpt_bench.leaderboard.verify import Verified, verify
from tests.support.entries.make import GENERAL, TASKS, N, add_entry, make_entry

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
Cli = Callable[..., subprocess.CompletedProcess[str]]
EVIL = "| <img src=x> `x` **b** [l](javascript:1)\n---\nlicense: mit"


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    from cpt_bench.results import scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(suite, entry): with a joint entry on its board, and words that try to be markup."""
    folder = tmp_path_factory.mktemp("hub")
    suite, entry = make_entry(folder, name="SFT | <b>", notes=EVIL)
    add_entry(folder, suite, entry.parents[3], joint=True, name="Joint")
    return suite, entry


@pytest.fixture(scope="module")
def out(good: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("out") / "hub"
    export_hub(good[1], target, suite_spec=str(good[0]), url="https://example.org/entry")
    return target


@pytest.fixture(scope="module")
def done(good: tuple[Path, Path]) -> Verified:
    return verify(good[1], str(good[0]))


def mean(done: Verified, key: str) -> float:
    values = [s.scores.metrics[key]["value"] for s in done.seeds.values() if s.scores]
    return sum(values) / len(values)


def final(done: Verified, name: str, seeds: tuple[int, ...] = (0, 1, 2)) -> float:
    found = [100 * done.seeds[n].tables[3, name].outcomes[0].mean() for n in seeds]
    return float(sum(found) / len(found))


def test_the_files(out: Path) -> None:
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    gold = {f"dataset/gold/{name}.jsonl" for name in (*TASKS, *GENERAL)}
    assert (
        found
        == {"README.md", ".eval_results/small.yaml", "dataset/README.md", "dataset/eval.yaml"}
        | gold
    )


def test_the_model_card_is_one(out: Path, done: Verified) -> None:
    """Read by ModelCard, its numbers by EvalResult; written back they are the same."""
    from huggingface_hub.repocard_data import eval_results_to_model_index

    card = hub.ModelCard.load(out / "README.md")
    assert card.data.datasets == ["cptbench/small"] and card.data.library_name == "transformers"
    assert card.data.model_name == "SFT | <b>"
    results = card.data.eval_results
    assert all(isinstance(result, hub.EvalResult) for result in results)
    found = {r.dataset_config or r.metric_type: r.metric_value for r in results}
    for key, task in (("AvgAcc", "avg_acc"), ("Learn", "learn"), ("FM", "fm")):
        assert found[task] == pytest.approx(mean(done, key), abs=1e-4)
    for name in (*TASKS, *GENERAL):
        assert found[name] == pytest.approx(final(done, name), abs=1e-4)
    assert found["gap_to_joint"] < 0
    raw = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert eval_results_to_model_index("SFT | <b>", results) == raw["model-index"]
    assert not any(
        "verified" in metric for r in raw["model-index"][0]["results"] for metric in r["metrics"]
    )
    again = hub.ModelCardData(**card.data.to_dict())
    assert again.to_dict() == card.data.to_dict()


def test_the_model_card_says_how_to_check_it(
    out: Path, good: tuple[Path, Path], done: Verified
) -> None:
    from cpt_bench.files import digest
    from cpt_bench.leaderboard.site.entry_page import UNSEEN

    text = (out / "README.md").read_text()
    place = "/".join(good[1].parts[-4:])
    assert f"cptbench verify leaderboards/{place} --claims" in text
    assert digest(good[1] / "seed-1/manifest.json") in text
    assert done.seeds[2].manifest.weights["3-text"] in text
    assert UNSEEN in text and f"{mean(done, 'AvgAcc'):.2f}" in text


def test_words_of_people_stay_words(out: Path) -> None:
    text = (out / "README.md").read_text()
    head, body = text.split("---\n", 2)[1:]
    assert "license" not in yaml.safe_load(head)
    assert "<img" not in body.replace(r"\<img", "") and "\n---\n" not in body
    assert markdown("a|b\n# c") == r"a\|b \# c"
    tables = [line for line in body.splitlines() if line.startswith("|")]
    assert {line.count("|") - line.count(r"\|") for line in tables} == {4, 8}


def test_the_evaluation_results_are_read_by_the_hub_s_library(out: Path, done: Verified) -> None:
    data = yaml.safe_load((out / ".eval_results/small.yaml").read_text())
    entries = hub.parse_eval_result_entries(data)
    assert hub.eval_result_entries_to_yaml(entries) == data
    by_task = {entry.task_id: entry for entry in entries}
    assert len(by_task) == len(entries) == 5 + len(TASKS) + len(GENERAL)
    assert {e.dataset_id for e in entries} == {"cptbench/small"}
    assert by_task["avg_acc"].value == pytest.approx(mean(done, "AvgAcc"), abs=1e-4)
    assert by_task["text"].value == pytest.approx(final(done, "text"), abs=1e-4)
    assert by_task["fm"].source_url == "https://example.org/entry"
    assert by_task["fm"].date == "2026-11-22" and "mean over seeds 0, 1, 2" in by_task["fm"].notes
    text = (out / ".eval_results/small.yaml").read_text()
    assert "&" not in text and "*" not in text  # no anchors


def test_the_data_set_card_and_the_gold(out: Path, good: tuple[Path, Path]) -> None:
    from cpt_bench.sources import load_split
    from cpt_bench.suite import load_suite

    card = hub.DatasetCard.load(out / "dataset/README.md")
    assert card.data.license == "apache-2.0" and card.data.size_categories == ["n<1K"]
    again = hub.DatasetCardData(**card.data.to_dict())
    assert again.to_dict() == card.data.to_dict()
    configs = {c["config_name"]: c["data_files"][0]["path"] for c in card.data.configs}
    suite = load_suite(good[0])
    for name in (*TASKS, *GENERAL):
        file = out / "dataset" / configs[name]
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        gold = load_split(suite.card(name), "test")
        assert [(r["id"], tuple(r["answers"])) for r in rows] == [(s.id, s.answers) for s in gold]
        assert suite.card(name).splits["test"].sha256 in card.text
    assert suite.fingerprint() in card.text
    benchmark = yaml.safe_load((out / "dataset/eval.yaml").read_text())
    results = yaml.safe_load((out / ".eval_results/small.yaml").read_text())
    assert {t["id"] for t in benchmark["tasks"]} == {r["dataset"]["task_id"] for r in results}
    assert {t["config"] for t in benchmark["tasks"]} <= configs.keys()
    assert benchmark["evaluation_framework"] == "cptbench"


def test_the_gold_can_be_loaded_as_a_data_set(out: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(out / "dataset"), "text", split="test", cache_dir=tmp_path)
    assert len(found) == N and found[0]["answers"]
    whole = datasets.load_dataset(str(out / "dataset"), split="test", cache_dir=tmp_path)
    assert len(whole) == N * (len(TASKS) + len(GENERAL))


def test_one_seed_s_numbers(good: tuple[Path, Path], done: Verified, tmp_path: Path) -> None:
    """A model repository holds the weights of one seed."""
    target = tmp_path / "one"
    export_hub(good[1], target, seed=1, suite_spec=str(good[0]), dataset="me/my-gold")
    data = yaml.safe_load((target / ".eval_results/small.yaml").read_text())
    entries = {e.task_id: e for e in hub.parse_eval_result_entries(data)}
    assert done.seeds[1].scores is not None
    own = done.seeds[1].scores.metrics["AvgAcc"]["value"]
    assert entries["avg_acc"].value == pytest.approx(own, abs=1e-4)
    assert entries["text"].value == pytest.approx(final(done, "text", (1,)), abs=1e-4)
    assert "gap_to_joint" not in entries and entries["text"].dataset_id == "me/my-gold"
    assert "seed 1;" in entries["text"].notes
    assert "The weights here are those of seed 1" in (target / "README.md").read_text()
    for entry in entries.values():
        hub.utils.validate_repo_id(entry.dataset_id)


def test_the_gold_of_others_is_not_copied(tmp_path: Path) -> None:
    """Of suites that read other people's data sets there is the card alone."""
    from cpt_bench.leaderboard.hub_dataset import write_dataset
    from cpt_bench.leaderboard.hub_text import environment
    from cpt_bench.suite import open_suite

    write_dataset(tmp_path, environment(), open_suite("cpt7"))
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    card = hub.DatasetCard.load(tmp_path / "README.md")
    assert card.data.license == "other" and "configs" not in card.data.to_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 7}, r"has no seed 7\. It has 0, 1, 2"),
        ({"dataset": "nano"}, r"'nano' is not the name of a repository\. Give OWNER/NAME"),
        ({"dataset": "a/b--c"}, "is not the name of a repository"),
        ({"url": "ftp://x"}, "is not an https:// link"),
    ],
)
def test_options_that_are_wrong(
    options: dict[str, Any], words: str, good: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(CptBenchError, match=words):
        export_hub(good[1], tmp_path / "x", suite_spec=str(good[0]), **options)
    assert not (tmp_path / "x").exists()


def test_only_verified_entries_are_exported(
    good: tuple[Path, Path], tmp_path: Path, cli: Cli
) -> None:
    import shutil

    bad = Path(shutil.copytree(good[1], tmp_path / good[1].name))
    (bad / "seed-0/matrix.json").write_text("{}\n")
    done = cli("export", "hub", bad, "--out", "x", "--suite", good[0])
    assert done.returncode == 2 and "does not verify (error: " in done.stderr
    assert not (tmp_path / "x").exists()


def test_the_command(good: tuple[Path, Path], tmp_path: Path, cli: Cli) -> None:
    done = cli("export", "hub", good[1], "--out", "x", "--suite", good[0])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x/README.md").is_file() and "hf upload" in done.stdout
    again = cli("export", "hub", good[1], "--out", "x", "--suite", good[0])
    assert again.returncode == 2 and "x: is there already. Give another --out" in again.stderr
