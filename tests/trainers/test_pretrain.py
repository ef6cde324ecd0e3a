"""Continual pre-training: a loss on the inputs alone, and what fine-tuning afterwards starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.models.checkpoint import load_model, weights_digest
from cpt_bench.trainer import Stage
from cpt_bench.trainers import pretrain
from cpt_bench.trainers.joint import Joint
from cpt_bench.trainers.pretrain import Pretrain
from cpt_bench.trainers.sft import SFT
from tests.support.stages import SUP, TINY, make_stage


def seen(
    stage: Stage, monkeypatch: Any, trainer: Any
) -> tuple[list[dict[str, Any]], list[Any], Any]:
    """The batches that the model was trained on, the rows of the log, and the processor."""
    batches: list[dict[str, Any]] = []
    inner = pretrain._Words.__call__
    processors = []
    adjust = Pretrain.adjust

    def spy(self: Any, examples: Any) -> Any:
        batch = inner(self, examples)
        batches.append({k: v.clone() for k, v in batch.items()})
        return batch

    def keep(self: Any, made: Any, *rest: Any) -> None:
        processors.append(made.processing_class)
        adjust(self, made, *rest)

    rows: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(pretrain._Words, "__call__", spy)
        patch.setattr(Pretrain, "adjust", keep)
        torch.set_num_threads(1)
        trainer.train(replace(stage, log=rows.append))
    return batches, rows, processors[0]


@pytest.mark.parametrize("objective", ["inputs", "everything"])
def test_the_loss_is_on_every_word_that_the_objective_names(
    objective: str, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    stage = make_stage("counting", tiny_model, tmp_path)
    stage = replace(stage, samples=stage.samples[:4])
    trainer = Pretrain(Pretrain.Config(**{**SUP, "max_steps": 1}, objective=objective))
    (batch, *_), rows, processor = seen(stage, monkeypatch, trainer)
    pictures = batch["input_ids"] == processor.image_token_id
    real = batch["attention_mask"] == 1
    trained = batch["labels"] != -100
    assert pictures.any() and bool((trained == (real & ~pictures)).all())
    texts = [processor.tokenizer.decode(row[mask]).replace(" ", "")
             for row, mask in zip(batch["input_ids"], trained, strict=True)]  # fmt: skip
    by_prompt = {s.prompt.replace(" ", ""): s for s in stage.samples}
    for text in texts:
        (sample,) = {s.id: s for p, s in by_prompt.items() if p in text}.values()
        answered = text.endswith(sample.target.replace(" ", "") + "<|im_end|>\n")
        answered |= text.endswith(sample.target.replace(" ", "") + "<|im_end|>")
        assert answered == (objective == "everything")
    # The loss that is logged is the mean over these tokens of the start policy's own.
    model = load_model(tiny_model, device="cpu", attention="eager").eval()
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch, use_cache=False).logits
    by_hand = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    assert rows[0]["loss"] == pytest.approx(float(by_hand), rel=1e-4)


def test_answers_change_nothing_of_what_inputs_teach(tiny_model: Path, tmp_path: Path) -> None:
    def outcome(name: str, objective: str, answer: str | None) -> str:
        stage = make_stage("science", tiny_model, tmp_path / name)
        samples = [s if answer is None else replace(s, target=answer) for s in stage.samples[:8]]
        torch.set_num_threads(1)
        config = Pretrain.Config(**{**SUP, "max_steps": 1}, objective=objective)
        Pretrain(config).train(replace(stage, samples=samples))
        return weights_digest(stage.output)

    alike = outcome("a", "inputs", None), outcome("b", "inputs", "something else entirely")
    assert alike[0] == alike[1] != weights_digest(tiny_model)
    assert outcome("c", "everything", None) != outcome("d", "everything", "something else")


def test_fine_tuning_follows_on_every_task_in_turn(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """With then=sft: tasks one after the other on inputs, then all at once on answers."""
    trained: list[tuple[str, set[str], int, str]] = []
    build = SFT.build

    def spy(self: Any, stage: Stage, *rest: Any) -> Any:
        made = build(self, stage, *rest)
        kind = type(self).__name__
        tasks = {s.task for s in stage.samples}
        trained.append((kind, tasks, made.args.max_steps, weights_digest(stage.policy)))
        return made

    monkeypatch.setattr(SFT, "build", spy)
    tasks = TINY.sequence[:2]
    samples = [
        s for t in tasks for s in make_stage(t, tiny_model, tmp_path / t).samples[:8]
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    stage = replace(make_stage(tasks[0], tiny_model, tmp_path / "joint"), samples=samples,
                    task="joint", log=rows.append)  # fmt: skip
    torch.set_num_threads(1)
    Pretrain(Pretrain.Config(**SUP, then="sft")).train(stage)
    assert [(k, t, n) for k, t, n, _ in trained] == [
        ("Pretrain", {tasks[0]}, 2), ("Pretrain", {tasks[1]}, 2), ("SFT", {*tasks}, 4),
    ]  # fmt: skip
    starts = [start for *_, start in trained]
    assert starts[0] == weights_digest(tiny_model) and len({*starts}) == 3
    assert weights_digest(stage.output) not in starts
    # One log: steps and drawn samples go on counting, as the budget of a stage needs it.
    assert [row["step"] for row in rows] == [*range(1, 9)]
    assert [row["samples"] for row in rows] == [4 * n for n in range(1, 9)]
    assert rows[-1]["steps"] == 8
    # It is fine-tuned as ``joint`` is, which was not pre-trained.
    assert Joint.declare(Joint.Config(**SUP)) == Pretrain.declare(
        Pretrain.Config(**SUP, then="sft")
    )


def test_a_budget_is_shared_by_pre_training_and_fine_tuning(
    tiny_model: Path, tmp_path: Path
) -> None:
    stage = make_stage("science", tiny_model, tmp_path)
    stage = replace(stage, budget=stage.budget.model_copy(update={"samples": 100}))
    parts = [pretrain.share(stage, t, 1 / 4, 0) for t in ("science", "other")]
    assert [p.budget.samples for p in parts] == [25, 25]
    assert pretrain.share(stage, None, 1 / 2, 0).budget.samples == 50
    assert len(parts[1].samples) == 0 and parts[1].task == "other"


def test_fine_tuning_in_several_processes_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from cpt_bench.errors import CptBenchError

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CptBenchError, match="in one process"):
        trainer = Pretrain(Pretrain.Config(**SUP, then="sft"))
        trainer.train(make_stage("science", tiny_model, tmp_path))
