"""Which samples a method learns from: FLOW's weights, joint's tasks, RIF's rules, and the budget."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import load_model, load_processor, weights_digest
from cpt_bench.trainer import RewardParts, Stage
from cpt_bench.trainers import flow, rif
from cpt_bench.trainers.joint import Joint
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.rif import RIF
from cpt_bench.trainers.selfsft import IterativeSFT, SelfSFT
from tests.support.places import RECIPES
from tests.support.stages import RL, SUP, TINY, make_stage


def test_flow_s_weights_follow_the_formula() -> None:
    losses = [0.5, 2.0, 1.0, 4.0]
    assert flow.weights(losses) == pytest.approx([math.exp(-x / 1.5) for x in losses])
    assert flow.weights([3.0])[0] == pytest.approx(1 / math.e)  # the median sample; no normalising
    assert flow.weights([0.0, 0.0]) == [1.0, 1.0]


def test_flow_s_loss_is_the_weighted_sum_over_tokens(tiny_model: Path, tmp_path: Path) -> None:
    """By hand from token log-probabilities, one sample at a time; answers of unlike length."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    stage = make_stage("science", tiny_model, tmp_path, rows)
    few = [replace(s, target=s.target * (1 + i % 3)) for i, s in enumerate(stage.samples[:4])]
    stage = replace(stage, samples=few)
    trainer = flow.FLOW(flow.FLOW.Config(**{**SUP, "max_steps": 1}))
    trainer.train(stage)
    model = load_model(tiny_model, device="cpu", attention="eager")
    from cpt_bench.trainers.rollouts import encoded

    collate, total, losses = encoded(load_processor(tiny_model)), [], []
    for s in few:
        batch = collate([(s, s.target)])
        labels = batch["labels"][0, 1:]
        logp = model(**batch).logits[0, :-1].log_softmax(-1)
        kept = labels != -100
        token = -logp[kept].gather(1, labels[kept, None])
        total.append((float(token.sum()), int(kept.sum())))
        losses.append(float(token.mean()))
    weights = [math.exp(-f / float(torch.tensor(losses).double().quantile(0.5))) for f in losses]
    hand = sum(w * nll for w, (nll, _) in zip(weights, total, strict=True))
    assert rows[-1]["loss"] == pytest.approx(hand / sum(n for _, n in total), rel=1e-3)


def test_joint_sees_all_tasks_once(tiny_model: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    samples = [s for t in TINY.sequence for s in make_stage(t, tiny_model, tmp_path / t).samples]
    stage = make_stage("science", tiny_model, tmp_path / "joint", rows := [])
    drawn: list[str] = []

    class Watched(Joint):
        def adjust(self, trainer: Any, stage: Stage, log: Any) -> None:
            inner = trainer.data_collator

            def collate(examples: Any) -> Any:
                drawn.extend(e["completion"][0]["content"] for e in examples)
                return inner(examples)

            trainer.data_collator = collate

    marked = [replace(s, target=f"{s.target} {i}") for i, s in enumerate(samples)]
    config = {**SUP, "max_steps": None, "epochs": 1, "batch_size": 16}
    Watched(Watched.Config(**config)).train(replace(stage, task="joint", samples=marked))
    assert sorted(drawn) == sorted(s.target for s in marked)
    assert rows[-1]["samples"] == len(samples) == 3 * 32

    def recipe(name: str) -> dict[str, Any]:
        return dict(yaml.safe_load((RECIPES / "nano" / f"{name}.yaml").read_text()))

    for one, whole in (("sft", "joint"), ("rft", "rft-joint")):  # as many prompts as in sequence
        assert recipe(whole) == {**recipe(one), "max_steps": 7 * recipe(one)["max_steps"]}


def parts(*totals: float) -> list[RewardParts]:
    """Rewards of nano's kind: 0.9 for the answer and 0.1 for the form."""
    return [RewardParts(t, float(t > 0.5), t > 0) for t in totals]


@pytest.mark.parametrize(
    ("rewards", "solvable", "informative"),
    [
        (parts(0, 0, 0, 0), False, False),
        (parts(0.1, 0.1, 0.1, 0.1), False, False),  # well formed, all wrong
        (parts(0.1, 0.0, 0.1, 0.1), False, True),  # only the form varies: a gradient, no answer
        (parts(1.0, 0.1, 0.1, 0.1), True, True),
        (parts(1.0, 1.0, 1.0, 1.0), True, False),  # the code keeps it, the paper does not
    ],
)
def test_rif_s_two_rules(
    rewards: list[RewardParts], solvable: bool, informative: bool, tiny_model: Path,
    tmp_path: Path, monkeypatch: Any,
) -> None:  # fmt: skip
    assert rif.passes("solvable", rewards) == solvable
    assert rif.passes("informative", rewards) == informative


def test_a_reply_that_one_annotator_in_ten_gave_is_not_right() -> None:
    assert not rif.passes("solvable", [RewardParts(0.3, 0.3, True)] * 4)
    assert rif.passes("solvable", [RewardParts(0.6, 0.6, True)])


@pytest.mark.parametrize("rule", ["solvable", "informative"])
def test_rif_keeps_exactly_the_prompts_its_rule_says(
    rule: str, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    stage = make_stage("science", tiny_model, tmp_path)
    number = {s.id: i for i, s in enumerate(stage.samples)}
    # Prompt i has i % 5 of its four replies right.
    monkeypatch.setattr(
        rif.Rollouts, "draw",
        lambda self, samples, n, seed: [
            ["right"] * (number[s.id] % 5) + ["wrong"] * (n - number[s.id] % 5) for s in samples
        ],
    )  # fmt: skip
    stage = replace(
        stage, reward=lambda s, r: RewardParts(*((1.0, 1.0) if r == "right" else (0.1, 0.0)), True)
    )
    model = load_model(tiny_model, device="cpu", attention="eager")
    config = RIF.Config(**{**RL, "max_steps": None}, keep=rule, filter_rollouts=4)
    log = SimpleNamespace(asked=0, generation_seconds=0.0)
    kept = RIF(config).select(stage, model, log)
    passing = range(1, 5) if rule == "solvable" else range(1, 4)
    assert {s.id for s in kept} == {k for k, i in number.items() if i % 5 in passing}
    assert log.asked == len(stage.samples)
    few = RIF(config.model_copy(update={"max_steps": 3})).select(stage, model, log)
    assert len(few) == 6 and {s.id for s in few} <= {s.id for s in kept}


def test_a_filter_that_nothing_passes_leaves_the_policy_as_it_is(
    tiny_model: Path, tmp_path: Path
) -> None:
    for trainer in (RIF(RIF.Config(**RL)), SelfSFT(SelfSFT.Config(**SUP))):
        said: list[str] = []
        rows: list[dict[str, Any]] = []
        stage = make_stage("science", tiny_model, tmp_path / type(trainer).__name__, rows)
        wrong = replace(stage, reward=lambda s, r: RewardParts(0.0, 0.0, False), tell=said.append)
        trainer.train(wrong)
        assert weights_digest(stage.output) == weights_digest(tiny_model)
        assert (
            "the policy stays as it is" in said[0]
            and rows[-1]["kept"] == 0
            and rows[-1]["samples"] == 32
        )


def test_fewer_prompts_than_a_batch_are_repeated(tiny_model: Path, tmp_path: Path) -> None:
    """TRL leaves out a batch that is not full, and would make no step."""
    stage = make_stage("science", tiny_model, tmp_path, rows := [])
    few = replace(stage, samples=stage.samples[:1], reward=lambda s, r: RewardParts(len(r) % 5 / 5, 1.0, True))  # fmt: skip
    RFT(RFT.Config(**RL, updates_per_generation=2)).train(few)
    assert rows[-1]["step"] == 1
    assert weights_digest(stage.output) != weights_digest(tiny_model)


def test_the_budget_counts_whole_generations(tiny_model: Path, tmp_path: Path) -> None:
    """The prompts of two updates are drawn at once: at the first of them."""
    from cpt_bench.trainer import Budget

    stage = make_stage("science", tiny_model, tmp_path, rows := [])
    config = RFT.Config(**{**RL, "max_steps": 50}, updates_per_generation=2)
    RFT(config).train(replace(stage, budget=Budget(samples=11)))
    assert [row["samples"] for row in rows] == [4, 4, 8, 8]
    with pytest.raises(CptBenchError, match="one step draws 4 prompts"):
        config.arguments(replace(stage, budget=Budget(samples=3)), tmp_path, 2)


def test_prompts_asked_count_in_the_budget(tiny_model: Path, tmp_path: Path) -> None:
    from cpt_bench.trainer import Budget

    for trainer in (
        RIF(RIF.Config(**{**RL, "max_steps": 50})),
        IterativeSFT(IterativeSFT.Config(**{**SUP, "max_steps": 50}, rounds=2)),
    ):
        rows: list[dict[str, Any]] = []
        stage = make_stage("science", tiny_model, tmp_path / type(trainer).__name__, rows)
        lucky = replace(
            stage, reward=lambda s, r: RewardParts(len(r) % 5 / 5, 1.0, True),
            budget=Budget(samples=20),
        )  # fmt: skip
        trainer.train(lucky)
        assert rows[0]["asked"] > 0 and 10 < rows[-1]["samples"] <= 20
