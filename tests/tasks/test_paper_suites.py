"""The cards of mrcl and trace, read on fixtures of the published layout; their graders' values by hand.

Those of mrcl were compared with what the published code returns; of trace, SARI and edit similarity
with the packages it uses.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import load
from cpt_bench.sources import load_split
from cpt_bench.suite import Sample, load_suite
from tests.support.commands import here
from tests.support.picture_families import maker
from tests.support.places import ROOT

SUITES = ROOT / "examples/suites"


def grader(suite: str, name: str) -> Any:
    return load(f"./grading.py:{name}", SUITES / suite)


def sample(*golds: str, category: str = "") -> Sample:
    return Sample(id="1", question="?", answers=golds, kind="open", category=category)


PARTS = [
    ("A", "A", 1), ("A", "so \\boxed{A}", 1), ("B", "B: a dog", 1), ("A", "b", 0), ("A", "The answer is A", 0),
    ("A", "\\boxed{A", 0), ("A", "\\boxed{}", 0), ("Yes", "yes", 1), ("dog", "Dog ", 1),
    ("3;4", "3;4", 1), ("3;4", "3;5", 0.5), ("3;4", "4;3", 0), ("3;4", "3", 0.5), ("5;", ";5", 1),
    ("R,R,D", "R, R, D", 1), ("R,R,D", "RRD", 1),  # commas and spaces are dropped
    ("12,5", "125", 1), ("1000", "1,000", 1),
    ("II", "Second", 1), ("$y=2x$", "2x", 1), ("f(x)=2x", "2x", 1),
    ("$\\frac{1}{2}$", "0.5", 1), ("x^2", "x^{2}", 1), ("10", "10.0", 1), ("10 cm", "10cm", 1), ("50%", "0.5", 1),
]  # fmt: skip
FINMME = [
    ("A,C", "C,A", "", 1), ("A,C", "\\boxed{A, C}", "", 1), ("A,C", "A", "", 0.5), ("A,C", "A,B", "", 0),
    ("A,C", "A,C,D", "", 0), ("A,C", "", "", 0), ("A", "A", "", 1), ("A", "A,B", "", 0),
    ("10", "10.4", "0.5", 1), ("10", "10.5", "0.5", 1), ("10", "10.6", "0.5", 0), ("10", "ten", "0.5", 0),
    ("1000", "1,001", "1.0", 1),
    ("1,000", "1000", "1.0", 0),  # a comma makes it a set of options, as published
]  # fmt: skip


@pytest.mark.parametrize(("gold", "reply", "score"), PARTS)
def test_mrcl_s_parts(gold: str, reply: str, score: float) -> None:
    pytest.importorskip("math_verify")
    assert grader("mrcl", "parts")(reply, sample(gold)) == score


@pytest.mark.parametrize(("gold", "reply", "tolerance", "score"), FINMME)
def test_mrcl_s_finmme(gold: str, reply: str, tolerance: str, score: float) -> None:
    pytest.importorskip("math_verify")
    assert grader("mrcl", "finmme")(reply, sample(gold, category=tolerance)) == score


# By hand. SARI of "the dog runs" for "the big dog runs fast", gold the same: what is kept and what is deleted is
# right, and nothing new is wanted: 1.
TRACE: list[tuple[str, str, tuple[str, ...], str, float]] = [
    ("equal", "A", ("A",), "", 1), ("equal", " A\n", ("A",), "", 1), ("equal", "a", ("A",), "", 0), ("equal", "", ("A",), "", 0),
    ("first_letter", "B\nBecause.", ("B\nSince.",), "", 1), ("first_letter", "A", ("B",), "", 0), ("first_letter", "", ("B",), "", 0),
    ("edit_similarity", "import os", ("import sys",), "", 0.84),  # 2 * 8 / 19
    ("edit_similarity", "x = 0", ("x = <NUM_LIT>",), "", 1), ("edit_similarity", "f('a')", ("f(<STR_LIT:'a'>)",), "", 1),
    ("edit_similarity", "", ("x",), "", 0),
    ("sari", "About 95 you now get in.",
     ("About 95 species are currently known.", "About 95 species are now accepted.", "95 species are now accepted."),
     "About 95 species are currently accepted.", 0.26953601953601954),  # the example of the metric's own page
    ("sari", "the dog runs", ("the dog runs",), "the big dog runs fast", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reply", "golds", "source", "score"), TRACE)
def test_trace_s_scores(
    name: str, reply: str, golds: tuple[str, ...], source: str, score: float
) -> None:
    found = grader("trace", name)(reply, sample(*golds, category=source))
    assert found == pytest.approx(score, abs=1e-12)


def test_trace_s_rouge_is_the_package_s(monkeypatch: Any) -> None:
    """Words in common in order: 5 of 6 and 5 of 6, but 'the' counts once in both: 4 of 5, 4 of 5."""
    pytest.importorskip("rouge")
    score = grader("trace", "rouge_l")
    assert score("the cat sat on the mat", sample("the cat is on the mat")) == pytest.approx(0.8)
    assert score("same words", sample("same words")) == 1
    assert (
        score("one", sample("two")) == 0
        and score("", sample("two")) == 0
        and score(".", sample("two")) == 0
    )


def test_trace_without_rouge_names_the_package(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "rouge", None)
    with pytest.raises(CptBenchError, match=r"pip install rouge==1\.0\.1"):
        grader("trace", "rouge_l")("a", sample("b"))


# ----------------------------------------------------------------------------------- two stages


def fixture(folder: Path, suite: str, tasks: list[str]) -> Path:
    """A copy of the cards, cut to two tasks and to short replies for a two-layer model."""
    home = Path(shutil.copytree(SUITES / suite, folder / suite))
    text = (home / "suite.yaml").read_text()
    sequence = next(line for line in text.splitlines() if line.startswith("sequence:"))
    text = text.replace(sequence, f"sequence: [{', '.join(tasks)}]")
    for longest in ("max_new_tokens: 2048", "max_new_tokens: 512"):
        text = text.replace(longest, "max_new_tokens: 4")
    (home / "suite.yaml").write_text(text)
    return home


def mrcl(folder: Path) -> Path:
    home = fixture(folder, "mrcl", ["navigation", "finmme"])
    for task in ("Navigation", "FinMME"):
        (home / f"data/{task}/images").mkdir(parents=True)
        for split, n in (("train", 4), ("test", 3)):
            rows = []
            for i in range(n):
                name = f"{split}{i}.png"
                Image.new("RGB", (28, 28), (40 * i, 90 if split == "test" else 0, 0)).save(
                    home / f"data/{task}/images/{name}"
                )
                gold = "R,D" if task == "Navigation" else ("A,C" if i else "12.5")
                turns = [
                    {"from": "human", "value": f"go {split} {i}"},
                    {"from": "gpt", "value": gold},
                ]
                extra = {"tolerance": 0.5} if gold == "12.5" else {}
                rows.append({"id": i, "conversations": turns, "image": name, **extra})
            place = home / f"data/{task}/jsons/{split}"
            place.mkdir(parents=True)
            (place / "data.json").write_text(json.dumps(rows))
    return home


def trace(folder: Path) -> Path:
    home = fixture(folder, "trace", ["fomc", "minuten20"])
    for task, gold in (("FOMC", "A"), ("20Minuten", "der hund")):
        for split, n in (("train", 4), ("test", 3)):
            rows = [{"prompt": f"{split} {i} der grosse hund", "answer": gold} for i in range(n)]
            place = home / f"data/{task}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{split}.json").write_text(json.dumps(rows))
    return home


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    pytest.importorskip("torch")
    return maker(tmp_path_factory.mktemp("families"))


def trained(home: Path, base: Path, tag: str, trainer: str, **settings: object) -> list[bool]:
    """Run a suite of two stages with a trainer; whether each stage changed the weights."""
    from safetensors.numpy import load_file

    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    out = home.parent / f"run-{home.name}-{trainer}"
    done = here(home.parent, "run", "--suite", f"{home.name}{tag}", "--base", base,
                "--trainer", trainer, *given, "--set", "device=cpu", "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "matrix.json").read_text())["accuracy"]
    assert [len(row) for row in rows] == [2, 2, 2] and all(None not in row for row in rows)
    stages = [base, *sorted((out / "stages").glob("[12]-*/checkpoint"))]
    assert len(stages) == 3
    weights = [load_file(stage / "model.safetensors") for stage in stages]
    return [any((x[n] != y[n]).any() for n in x) for x, y in itertools.pairwise(weights)]


@pytest.mark.slow
@pytest.mark.long
def test_mrcl_s_two_stages_are_trained_under_both_prompts(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    """As published: SFT under the direct prompt, reinforcement under the other one."""
    pytest.importorskip("math_verify")
    home = mrcl(tmp_path)
    pinned = here(tmp_path, "suite", "check", home.name, "--pin")
    assert pinned.returncode == 0, pinned.stdout + pinned.stderr
    base = models("Qwen3-VL")
    assert trained(home, base, "", "sft", learning_rate=1e-2, max_steps=1) == [True, True]
    changed = trained(
        home, base, "@reasoning", "rft", learning_rate=1e-2, max_steps=1, prompts_per_step=2, rollouts=2
    )  # fmt: skip
    logs = sorted((tmp_path / "run-mrcl-rft/stages").glob("[12]-*/train.jsonl"))
    rows = [json.loads(log.read_text().splitlines()[-1]) for log in logs]
    assert [row["samples"] for row in rows] == [2, 2] and all(0 <= r["reward"] <= 1 for r in rows)
    # Where all replies to a prompt earn the same, as those of random weights do, nothing is learned.
    assert changed == [row["frac_reward_zero_std"] < 1 for row in rows]


@pytest.mark.slow
def test_trace_s_two_stages_are_trained(models: Callable[[str], Path], tmp_path: Path) -> None:
    home = trace(tmp_path)
    pinned = here(tmp_path, "suite", "check", home.name, "--pin")
    assert pinned.returncode == 0, pinned.stdout + pinned.stderr
    assert trained(home, models("Llama"), "", "sft", learning_rate=1e-2, max_steps=1) == [True, True]  # fmt: skip


def test_mrcl_s_two_prompts_are_in_the_repository_s_words(tmp_path: Path) -> None:
    home = mrcl(tmp_path)
    asked = {}
    for protocol in ("direct", "reasoning"):
        opened = load_suite(home.with_name(f"mrcl@{protocol}"))
        assert opened.protocol.form.kind == "whole"
        first = load_split(opened.card("navigation").model_copy(update={"splits": {
            "test": opened.card("navigation").splits["test"].model_copy(update={"n": 3})}}), "test", check=False)[0]  # fmt: skip
        asked[protocol] = opened.protocol.prompt(first.question)
    before = "You are an AI assistant helping to solve the following problem based on the image(s). Instructions: Please "
    after = " - Only provide your solution as a sequence of capital letter which should be comma-separated. go test 0"
    assert asked["direct"] == (
        before
        + "output the answer directly and NO extra thinking. Note: There is one and only one shortest path. "
        "Rules for the final answer:" + after
    )
    assert asked["reasoning"] == (
        before
        + "think step-by-step and put the final answer in \\boxed{}. Hints: You need to first determine the size "
        "of the grid, then determine the coordinates of the hole, player, and gift, and finally perform path planning. "
        "Note: There is one and only one shortest path. Rules for the final answer in \\boxed{}:"
        + after
    )


def test_each_of_mrcl_s_prompts_has_hashes_of_its_own(tmp_path: Path) -> None:
    """Its protocols put other words before the questions, so their samples differ."""
    home = mrcl(tmp_path)
    done = here(tmp_path, "suite", "check", "mrcl", "--pin")
    assert done.returncode == 0, done.stdout
    found = {}
    for protocol in ("direct", "reasoning"):
        opened = load_suite(home.with_name(f"mrcl@{protocol}"))
        for task, split in itertools.product(("navigation", "finmme"), ("train", "test")):
            samples = load_split(opened.card(task), split)
            assert (
                len(samples) == opened.card(task).splits[split].n == {"train": 4, "test": 3}[split]
            )
            found[protocol, task, split] = opened.card(task).splits[split].sha256
    assert len(set(found.values())) == 8
    again = here(tmp_path, "suite", "check", "mrcl")
    assert again.returncode == 0, again.stdout


def test_finmme_s_tolerance_reaches_its_grader(tmp_path: Path) -> None:
    home = mrcl(tmp_path)
    assert here(tmp_path, "suite", "check", "mrcl", "--pin").returncode == 0
    card = load_suite(home).card("finmme")
    assert [s.category for s in load_split(card, "test")] == ["0.5", "", ""]
    assert card.splits["test"].n == 3
