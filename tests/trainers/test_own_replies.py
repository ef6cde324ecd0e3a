"""Replies of the policy itself: learned from, drawn anew, and begun as a method asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import load_model, load_processor
from cpt_bench.trainer import RewardParts, Stage
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.selfsft import IterativeSFT, SelfSFT
from cpt_bench.trainers.sft import SFT
from tests.support.stages import RL, SUP, chained, make_stage


def test_replies_alone_pass_through_the_head(tiny_model: Path, tmp_path: Path) -> None:
    """A prompt's logits would fill a GPU; the losses are those of the whole."""
    from cpt_bench.trainers.rollouts import encoded, losses

    stage = make_stage("science", tiny_model, tmp_path)
    model = load_model(tiny_model, device="cpu", attention="eager").eval()
    unlike = [(s, s.target * (1 + i)) for i, s in enumerate(stage.samples[:3])]
    batch = encoded(load_processor(tiny_model))(unlike)
    columns: list[int] = []
    with torch.no_grad():
        whole = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1]
        model.lm_head.register_forward_hook(lambda m, x, out: columns.append(out.shape[1]))
        found, told = losses(model, batch)
    labels = batch["labels"][:, 1:]
    logp = whole.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    assert told.sum(1).tolist() == (labels != -100).sum(1).tolist()
    assert torch.allclose(found.sum(1), -(logp * (labels != -100)).sum(1), rtol=1e-4)
    assert columns[0] < batch["labels"].shape[1] / 2


def test_own_replies_that_are_right_become_the_targets(tiny_model: Path, tmp_path: Path) -> None:
    stage = make_stage("science", tiny_model, tmp_path)
    stage = replace(stage, reward=lambda s, r: RewardParts(0.0, float(len(r) % 2), True))
    model = load_model(tiny_model, device="cpu", attention="eager")
    log = SimpleNamespace(asked=0, generation_seconds=0.0)
    trainer = SelfSFT(SelfSFT.Config(**SUP, begin="direct"))
    found = trainer.select(stage, model, log)
    assert len(found) == 8  # what two steps of four draw
    assert all(len(s.target) % 2 and s.target.startswith("<answer>") for s in found)
    assert [s.target for s in found] == [
        s.target for s in trainer.select(stage, model, SimpleNamespace(asked=0, generation_seconds=0.0))
    ]  # fmt: skip


def test_iterative_sft_draws_anew_from_the_policy_of_the_moment(
    tiny_model: Path, tmp_path: Path
) -> None:
    drawn: list[tuple[int, float]] = []

    class Watched(IterativeSFT):
        def own(self, stage: Stage, samples: Any, model: Any, log: Any) -> Any:
            found = super().own(stage, samples, model, log)
            drawn.append((len(found), float(model.lm_head.weight.detach().double().sum())))
            return found

    torch.set_num_threads(1)
    stage = make_stage("science", tiny_model, tmp_path, rows := [])
    right = replace(stage, reward=lambda s, r: RewardParts(1.0, 1.0, True))
    Watched(Watched.Config(**{**SUP, "max_steps": 6}, rounds=3)).train(right)
    assert [n for n, _ in drawn] == [8, 8, 8] and len({w for _, w in drawn}) == 3
    assert rows[-1]["samples"] == 24 + 32 * 3  # what was learned, and what was asked


def test_each_round_s_steps_learn_that_round_s_replies(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The loader is ahead of the steps, by two batches and one more; the replies are not."""
    from cpt_bench.trainers.answers import AnswersSFT

    drawn: list[int] = []

    class Numbered(IterativeSFT):
        def own(self, stage: Stage, samples: Any, model: Any, log: Any) -> Any:
            drawn.append(len(drawn))
            return [replace(s, target=f"<answer>{drawn[-1]}</answer>") for s in samples]

    tokenizer = load_processor(tiny_model).tokenizer
    learned: list[list[str]] = [[] for _ in range(5)]
    inner = AnswersSFT.compute_loss

    def spy(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        for labels in inputs["labels"]:
            text = tokenizer.decode(labels[labels != -100])
            learned[self.state.global_step] += [c for c in text if c.isdigit()]
        return inner(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(AnswersSFT, "compute_loss", spy)
    config = {**SUP, "max_steps": 5, "batch_size": 2, "gradient_accumulation": 2, "rounds": 3}
    Numbered(Numbered.Config(**config)).train(make_stage("science", tiny_model, tmp_path))
    assert learned == [[r] * 4 for r in "00112"]


def test_rationales_are_thoughts_before_the_answer(tiny_model: Path, tmp_path: Path) -> None:
    from cpt_bench.trainers.rationale import RationaleSFT

    stage = make_stage("science", tiny_model, tmp_path)
    found = RationaleSFT(RationaleSFT.Config(**SUP)).select(stage, None, None)  # type: ignore[arg-type]
    for before, after in zip(stage.samples, found, strict=True):
        assert after.target == f"<think>{before.rationale}</think>{before.target}"
        assert stage.reward(after, after.target).total == 1.0
    bare = replace(stage, samples=[replace(s, rationale=None) for s in stage.samples])
    with pytest.raises(CptBenchError, match="science has no rationales"):
        RationaleSFT(RationaleSFT.Config(**SUP)).select(bare, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("begin", "tag"), [("direct", "<answer>"), ("reasoning", "<think>")])
@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "remax"])
def test_rollouts_begin_as_told(
    begin: str, tag: str, algorithm: str, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """What they begin with is graded, and stands in the prompt: it is not learned."""
    from trl import GRPOTrainer, RLOOTrainer

    owner = RLOOTrainer if algorithm == "rloo" else GRPOTrainer
    ends: list[int] = []
    inner = owner._compute_loss

    def spy(self: Any, model: Any, inputs: Any) -> Any:
        ends.extend(inputs["prompt_ids"][:, -1].tolist())
        return inner(self, model, inputs)

    monkeypatch.setattr(owner, "_compute_loss", spy)
    graded: list[str] = []

    def reward(s: Any, reply: str) -> RewardParts:
        graded.append(reply)
        return RewardParts(len(reply) % 7 / 7, 0.0, True)

    stage = replace(make_stage("science", tiny_model, tmp_path), reward=reward)
    config = {**RL, "self_check": 2, "algorithm": algorithm, "begin": begin}
    RFT(RFT.Config(**config)).train(stage)
    assert graded and all(text.startswith(tag) for text in graded)
    processor = load_processor(stage.output)
    assert {processor.tokenizer.decode([end]) for end in ends} == {tag}
    assert processor.chat_template == load_processor(tiny_model).chat_template


def test_kl_is_towards_the_policy_that_is_named(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from trl import GRPOTrainer

    seen: list[Any] = []
    inner = GRPOTrainer.train

    def spy(self: Any) -> Any:
        seen.append(self.ref_model.lm_head.weight.detach().clone())
        return inner(self)

    monkeypatch.setattr(GRPOTrainer, "train", spy)
    for reference in ("start", "base"):
        trainer = RFT(RFT.Config(**RL, kl=0.1, reference=reference))
        stages, logs = chained([SFT(SFT.Config(**SUP)), trainer], tiny_model, tmp_path / reference)
        place = stages[1].policy if reference == "start" else tiny_model
        expected = load_model(place, device="cpu", attention="eager").lm_head.weight
        assert torch.equal(seen[-1], expected) and "kl" in logs[1][-1]
