"""Other frameworks as trainers, by the adapters in examples/: three stages of nano each.

Each runs where its environment exists; ``make peers`` makes LLaMA-Factory's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(1800)  # three stages of a framework that shares its processors

from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.suite import Suite
from tests.support.commands import here
from tests.support.places import ROOT
from tests.support.stages import make_stage

TASKS = ["science", "lowvision", "counting"]
STEPS, BATCH = 100, 16
PYTHON = {
    "trl-script": Path(sys.executable),
    "llamafactory": ROOT / ".venv-llamafactory/bin/python",
    "ms-swift": ROOT / ".venv-ms-swift/bin/python",
}


class Ran(NamedTuple):
    """What a framework made: the run, and the start checkpoint."""

    folder: Path
    base: Path

    def rows(self, stage: int) -> list[dict[str, Any]]:
        """The stage's train split, with its pictures."""
        (data,) = self.folder.parent.glob(f".shared/data/{TASKS[stage - 1]}-*/train.jsonl")
        rows = map(json.loads, data.read_text(encoding="utf-8").splitlines())
        return [
            {**row, "images": tuple((data.parent / name).read_bytes() for name in row["images"])}
            for row in rows
        ]

    def batch(self, stage: int, step: int) -> dict[str, Any]:
        """What the framework gave its model in a step, and the loss that came of it."""
        (file,) = self.folder.glob(f"stages/{stage}-*/state/step-{stage}-{step}.pt")
        found: dict[str, Any] = torch.load(file, weights_only=True)
        return found


@pytest.fixture(scope="module")
def three(nano: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano, cut to three of its tasks."""
    folder = tmp_path_factory.mktemp("suite") / "nano"
    folder.mkdir()
    for card in nano.base_path().parent.glob("*.yaml"):
        (folder / card.name).write_bytes(card.read_bytes())
    whole = yaml.safe_load((folder / "suite.yaml").read_text())
    whole |= {"sequence": TASKS, "general": []}
    (folder / "suite.yaml").write_text(yaml.safe_dump(whole))
    return folder


@pytest.fixture(scope="module", params=PYTHON)
def framework(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A framework and its Python."""
    python: Path = PYTHON[request.param]
    if not python.is_file():
        pytest.skip(f"no {request.param} here: make .venv-{request.param}/.installed")
    return request.param, python


@pytest.fixture(scope="module")
def ran(
    framework: tuple[str, Path], three: Path, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    """Three stages; the budget allows fewer steps than are asked for."""
    name, python = framework
    folder = tmp_path_factory.mktemp(name)
    script = f"{python} {ROOT}/tests/support/recorded.py {ROOT}/examples/{name}/train.py {{stage}}"
    asked = {
        "learning_rate": 3e-4, "per_device_train_batch_size": BATCH, "max_steps": STEPS + 9,
    }  # fmt: skip
    done = here(
        folder, "run", "--trainer", f"cmd:{script}", "--suite", three, "--base", base,
        "--budget", STEPS * BATCH + BATCH // 2, "--out", "run",
        *(x for key, value in asked.items() for x in ("--set", f"{key}={value}")),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Ran(folder / "run", base)


def test_it_learns(ran: Ran) -> None:
    """The mean accuracy right after a task was learned, against the base's, in percent."""
    rows = json.loads((ran.folder / "matrix.json").read_text())["accuracy"]
    learned = [rows[j + 1][j] for j in range(len(TASKS))]
    print(f"R: {rows}")
    assert sum(learned) / len(TASKS) > sum(rows[0]) / len(TASKS) + 5


def test_it_trains_all_weights_and_logs_its_steps(ran: Ran) -> None:
    from safetensors.torch import load_file

    before = load_file(ran.base / "model.safetensors")
    after = load_file(next(ran.folder.glob("stages/1-*/checkpoint")) / "model.safetensors")
    assert before.keys() == after.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    for log in sorted(ran.folder.glob("stages/[1-3]-*/train.jsonl")):
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert {row["steps"] for row in rows} == {STEPS}
        assert rows[-1]["samples"] == STEPS * BATCH
        assert all(row["loss"] > 0 and row["grad_norm"] > 0 for row in rows)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_it_trains_on_the_prompts_that_are_evaluated(ran: Ran, stage: int) -> None:
    """Token by token and picture by picture; the positions too, or the loss would be another."""
    engine = TransformersEngine(ran.base, device="cpu")
    samples = ran.rows(stage)
    for step in (1, 2):
        rows = rows_of(ran.batch(stage, step), engine.processor.image_token_id)
        assert len(rows) == BATCH
        found = [sample_of(row, samples, engine) for row in rows]
        assert None not in found, engine.processor.decode(rows[found.index(None)].prompt)
        if (stage, step) == (1, 1):  # before any update
            loss = float(ran.batch(1, 1)["loss"])
            assert loss == pytest.approx(loss_of(rows, found, engine), abs=1e-4)


def test_it_keeps_the_contract(framework: tuple[str, Path], tmp_path: Path) -> None:
    """``cptbench trainer check``: budget, seed, an interruption in the middle of a stage, and what it leaves alone."""
    name, python = framework
    done = here(
        tmp_path, "trainer", "check", f"cmd:{python} {ROOT}/examples/{name}/train.py {{stage}}",
        "--set", "per_device_train_batch_size=8", "--set", "learning_rate=3e-4", "--json",
        "--stage-timeout", 600,  # it imports for half a minute where nothing else runs
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = {check["what"]: (check["ok"], check["detail"]) for check in json.loads(done.stdout)}
    assert [what for what, (ok, _) in found.items() if not ok] == [], found
    assert found["resumes"][1] == "the same weights, after being killed in the middle of stage 2"
    assert found["honours its budget"][1] == "24 of 48 prompts drawn"


def test_another_prompt_is_none(base: Path, tmp_path: Path) -> None:
    """A turn before the question, a target that goes on, another picture: no sample has these."""
    engine = TransformersEngine(base, device="cpu")
    stage = make_stage("counting", base, tmp_path)
    samples = [
        {
            "id": s.id, "prompt": s.prompt, "target": s.target,
            "images": tuple(file.read_bytes() for file in s.image_files),
        }
        for s in stage.samples
    ]  # fmt: skip
    first, second = samples[:2]
    tokenizer = engine.processor.tokenizer
    inputs = engine.encode([Request("", first["prompt"], first["images"])])
    learned = [*tokenizer(first["target"])["input_ids"], tokenizer.eos_token_id]
    row = Row(inputs["input_ids"][0].tolist(), learned, inputs["pixel_values"])
    assert sample_of(row, samples, engine) is first
    system = tokenizer("<|im_start|>system\nhelp<|im_end|>")["input_ids"]
    other = engine.encode([Request("", second["prompt"], second["images"])])["pixel_values"]
    for wrong in (
        row._replace(prompt=system + row.prompt),
        row._replace(learned=[*learned, learned[0]]),
        row._replace(patches=other),
    ):
        assert sample_of(wrong, samples, engine) is None
    assert loss_of([row], [first], engine) > 0


class Row(NamedTuple):
    """A row of a batch: tokens that are read, tokens that are learned, and patches of pictures."""

    prompt: list[int]
    learned: list[int]
    patches: Any


def rows_of(batch: dict[str, Any], image_token: int) -> list[Row]:
    patches = batch.get("pixel_values", torch.empty(0))
    sizes = [int(grid.prod()) for grid in batch.get("image_grid_thw", ())]
    pieces = iter(patches.split(sizes)) if sizes else iter(())
    out = []
    for i, mask in enumerate(batch["attention_mask"].bool()):
        ids, labels = batch["input_ids"][i][mask], batch["labels"][i][mask]
        start = int((labels == -100).sum())
        assert labels[:start].eq(-100).all() and labels[start:].equal(ids[start:])
        shown = next(pieces) if image_token in ids else torch.empty(0)
        out.append(Row(ids[:start].tolist(), ids[start:].tolist(), shown))
    assert next(pieces, None) is None
    return out


def sample_of(row: Row, samples: list[dict[str, Any]], engine: Any) -> dict[str, Any] | None:
    """The sample whose evaluation prompt, picture and target these are."""
    tokenizer = engine.processor.tokenizer
    text = tokenizer.decode(row.prompt).replace(" ", "")  # it adds spaces between words
    for sample in samples:
        target = [*tokenizer(sample["target"])["input_ids"], tokenizer.eos_token_id]
        if row.learned != target or sample["prompt"].replace(" ", "") not in text:
            continue
        inputs = engine.encode([Request(sample["id"], sample["prompt"], sample["images"])])
        patches = inputs.get("pixel_values", torch.empty(0))
        if inputs["input_ids"][0].tolist() == row.prompt and patches.equal(row.patches):
            return sample
    return None


def loss_of(rows: list[Row], samples: list[Any], engine: Any) -> float:
    """Cross-entropy over the learned tokens of all rows, with the inputs of an evaluation."""
    total, count = 0.0, 0
    for row, sample in zip(rows, samples, strict=True):
        asked = Request(sample["id"], sample["prompt"], sample["images"], sample["target"])
        inputs = engine.encode([asked])  # of prompt and target; what ends the reply is not read
        learned = torch.tensor(row.learned)
        with torch.no_grad():
            logits = engine.model(**inputs).logits[0, -len(learned) :]
        total += float(torch.nn.functional.cross_entropy(logits, learned, reduction="sum"))
        count += len(learned)
    return total / count
