"""Other harnesses through the bridges: their scores equal to their own command line's."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt_bench import general
from cpt_bench.errors import CptBenchError
from cpt_bench.general import Measured, Spec

MADE = {"evaluator": "lm-eval", "version": "1", "task_version": "2"}


def rows(*scores: float) -> list[dict[str, Any]]:
    return [{"id": f"t/{i}", "reply": "r", "score": s} for i, s in enumerate(scores)]


def test_a_spec_names_evaluator_and_task() -> None:
    spec = general.parse("vlmevalkit:ImageYORNDataset/POPE")
    assert spec == Spec("vlmevalkit", "ImageYORNDataset/POPE")
    assert spec.slug == "vlmevalkit_ImageYORNDataset_POPE"
    for bad in ("mmlu_pro", "lm_eval:mmlu_pro", "lm-eval:"):
        with pytest.raises(CptBenchError, match="is not a general benchmark"):
            general.parse(bad)


def test_what_is_measured_is_kept_with_what_made_it(tmp_path: Path) -> None:
    spec, found = general.parse("lm-eval:t"), Measured(rows(1.0, 0.0, 1.0), 66.7, MADE)
    general.write(tmp_path / "0", spec, "w0", found)
    general.write(tmp_path / "1", spec, "w1", Measured(rows(1.0, 1.0, 1.0), 100.0, MADE))
    about, kept = general.read(tmp_path / "0/lm-eval_t.json")
    assert (about["weights"], about["n"], about["headline"]) == ("w0", 3, 66.7)
    assert about["mean_of_samples"] == pytest.approx(200 / 3) and kept == found.rows
    before, nothing, after = general.found_in([tmp_path / "0", tmp_path / "none", tmp_path / "1"])
    name = "lm-eval:t (lm-eval 1, task v2)"
    assert np.array_equal(before[name], [1, 0, 1]) and not nothing and after[name].all()


def test_measurements_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    spec = general.parse("lm-eval:t")
    for bad in ([], rows(2.0), [{"id": "a", "reply": "", "score": None}], [*rows(1.0), *rows(1.0)]):
        with pytest.raises(CptBenchError, match="lm-eval:t"):
            general.write(tmp_path, spec, "w", Measured(bad, 1.0, MADE))
    assert not list(tmp_path.iterdir())
    general.write(tmp_path / "0", spec, "w", Measured(rows(1.0, 0.0), 50.0, MADE))
    other = [{**row, "id": f"u/{i}"} for i, row in enumerate(rows(1.0, 0.0))]
    general.write(tmp_path / "1", spec, "w", Measured(other, 50.0, MADE))
    with pytest.raises(CptBenchError, match="used other samples here"):
        general.found_in([tmp_path / "0", tmp_path / "1"])
    (tmp_path / "0/lm-eval_t.jsonl").write_text('{"id": "t/0", "reply": "r", "score": 1.0}\n')
    with pytest.raises(CptBenchError, match="changed or removed"):
        general.found_in([tmp_path / "0"])


def test_two_versions_of_a_harness_are_never_compared(tmp_path: Path) -> None:
    spec = general.parse("lm-eval:t")
    general.write(tmp_path / "0", spec, "w", Measured(rows(1.0), 1.0, MADE))
    general.write(tmp_path / "1", spec, "w", Measured(rows(1.0), 1.0, {**MADE, "version": "3"}))
    before, after = general.found_in([tmp_path / "0", tmp_path / "1"])
    assert not before.keys() & after.keys()


def test_what_is_not_installed_is_said_with_its_cure(monkeypatch: Any, tmp_path: Path) -> None:
    from cpt_bench.general import lm_eval, vlmevalkit

    monkeypatch.setenv(vlmevalkit.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(CptBenchError, match=r"pip install torch==.* ms-vlmeval"):
        vlmevalkit.measure("POPE", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(CptBenchError, match=r"pip install 'cptbench\[eval\]'"):
        lm_eval.measure("mmlu_pro", tmp_path)


# lm-eval's command line, with the processor that needs no torchvision.
LM_EVAL = (
    "from cpt_bench.models.processor import install; install()\n"
    "from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
)


@pytest.mark.slow
def test_lm_eval_scores_as_its_own_command_line(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("lm_eval")
    from cpt_bench.general import lm_eval
    from cpt_bench.tasks.nano import FOLDER
    from tests.support.harness_data import mmlu_pro_shaped

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks = mmlu_pro_shaped(tmp_path / "tasks", 24)
    found = lm_eval.measure(
        "local_pro", FOLDER / "checkpoint", include=tasks, dtype="float32", device="cpu"
    )
    command = [
        sys.executable, "-c", LM_EVAL, "run", "--model", "hf-multimodal", "--model_args",
        f"pretrained={FOLDER / 'checkpoint'},dtype=float32", "--tasks", "local_pro",
        "--include_path", str(tasks), "--device", "cpu", "--batch_size", "8",
        "--apply_chat_template", "--output_path", str(tmp_path / "out"), "--log_samples",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text())
    told = results["groups"]["local_pro"]["exact_match,custom-extract"]
    assert found.score == pytest.approx(100 * told)
    assert 50 < found.score < 100, "a score that tells something"
    logged = {}
    for file in (tmp_path / "out").rglob("samples_local_pro_*.jsonl"):
        task = file.name.removeprefix("samples_").rpartition("_")[0]
        for line in file.read_text().splitlines():
            row = json.loads(line)
            logged[f"{task}/{row['doc_id']}"] = (row["resps"][0][0], row["exact_match"])
    assert {row["id"]: (row["reply"], row["score"]) for row in found.rows} == logged
    assert len(found.rows) == 24
    assert np.mean([row["score"] for row in found.rows]) == pytest.approx(found.score / 100)
    assert found.provenance["version"] == results["lm_eval_version"]
    with pytest.raises(CptBenchError, match=r"has no metric 'f1'"):
        lm_eval.headline({"results": {"t": {"exact_match,none": 1.0}}}, "t", "f1")
    with pytest.raises(CptBenchError, match=r"has no task 'local_pr'. Did you mean 'local_pro"):
        lm_eval.measure("local_pr", FOLDER / "checkpoint", include=tasks)


def opinion(body: dict[str, Any], number: int) -> tuple[int, Any]:
    """A server that answers yes or no by the words it is asked; it wants one picture a question."""
    from tests.support.serving import completion

    content = body["messages"][-1]["content"]
    kinds = [part["type"] for part in content]
    words = "|".join(part["text"] for part in content if part["type"] == "text")
    odd = hashlib.sha256(words.encode()).digest()[0] % 3
    return 200, completion(
        f"{('Yes', 'No.', 'It is unclear')[odd]}" if "image_url" in kinds else "?"
    )


@pytest.mark.slow
def test_vlmevalkit_scores_as_its_own_command_line(tmp_path: Path) -> None:
    """One server answers both: VLMEvalKit's own loop and our engine between its two ends."""
    pytest.importorskip("openai")
    from cpt_bench.general import vlmevalkit
    from tests.support.harness_data import pope_shaped
    from tests.support.serving import Fake

    try:
        python = vlmevalkit.interpreter()
    except CptBenchError as error:
        pytest.skip(str(error))
    data, name = pope_shaped(tmp_path / "LMUData", "POPE_local", 30), "POPE_local"
    server = Fake(opinion)
    engine = server.engine()
    found = vlmevalkit.measure(f"ImageYORNDataset/{name}", engine, max_new_tokens=20, data=data)
    ours = [part["messages"][-1]["content"][-1]["text"] for part in server.asked]
    model = {
        "class": "LMDeployAPI", "model": "m", "key": "x", "max_tokens": 20, "retry": 1,
        "api_base": f"{server.url}/v1/chat/completions",
    }  # fmt: skip
    config = {"model": {"m": model}, "data": {name: {"class": "ImageYORNDataset", "dataset": name}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [
        str(python), "-m", "vlmeval", "--config", str(tmp_path / "config.json"), "--work-dir",
        str(tmp_path / "work"), "--judge", "exact_matching",
    ]  # fmt: skip
    env = {**os.environ, "LMUData": str(data)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = [part["messages"][-1]["content"][-1]["text"] for part in server.asked[len(ours) :]]
    assert sorted(theirs) == sorted(ours) and len(ours) == 30, "the same prompts, word for word"
    import csv

    with next((tmp_path / "work").rglob(f"m_{name}_score.csv")).open() as stream:
        table = {row["split"]: row for row in csv.DictReader(stream)}
    told = {row["split"]: row for row in found.provenance["result"]}
    assert told.keys() == table.keys() == {"Overall", "adversarial", "popular", "random"}
    for split, row in told.items():
        for key in ("Overall", "acc", "precision", "recall"):
            assert row[key] == pytest.approx(float(table[split][key]))
    assert found.score == pytest.approx(float(table["Overall"]["Overall"]))
    assert 0 < found.score < 100
    accuracy = 100 * np.mean([row["score"] for row in found.rows])
    assert accuracy == pytest.approx(float(table["Overall"]["acc"]))
    assert {row["extracted"] for row in found.rows} == {"Yes", "No", "Unknown"}
