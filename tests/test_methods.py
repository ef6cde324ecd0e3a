"""Each method does what its paper's equation says, on models of a few thousand weights."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from pydantic import ValidationError

from cpt_bench.errors import CptBenchError, PrivilegeError
from cpt_bench.models.checkpoint import load_model, load_processor, weights_digest
from cpt_bench.plugins import builtin, resolve
from cpt_bench.stage.document import Grading, MemoryPlace
from cpt_bench.stage.memory import ReplayStore
from cpt_bench.trainer import Privileges, RewardParts, Stage, TrainSample
from cpt_bench.trainers import flow, rapo, rif
from cpt_bench.trainers.joint import Joint
from cpt_bench.trainers.methods import EWC, LoRA, LwF, OLoRA, Replay
from cpt_bench.trainers.parts import ewc, lwf, olora, replay
from cpt_bench.trainers.parts.part import Part, _batches_a_step
from cpt_bench.trainers.rapo import RaPO
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.rif import RIF
from cpt_bench.trainers.selfsft import IterativeSFT, Pool, SelfSFT
from cpt_bench.trainers.sft import SFT
from tests.test_alignment import TINY, make_stage

SUP: dict[str, Any] = {"learning_rate": 1e-3, "max_steps": 2, "batch_size": 4, "device": "cpu"}
RL: dict[str, Any] = {
    "learning_rate": 1e-3, "max_steps": 1, "prompts_per_step": 2, "rollouts": 4, "device": "cpu",
    "self_check": 0,
}  # fmt: skip
EVERY = Grading(
    cards={name: TINY.card(name) for name in TINY.sequence},
    form=TINY.protocol.form,
    weights=TINY.protocol.reward,
)
RECIPES = Path(__file__).parent.parent / "trainers/recipes"


def chained(
    trainers: Sequence[Any], policy: Path, folder: Path, tasks: Sequence[str] = TINY.sequence
) -> tuple[list[Stage], list[list[dict[str, Any]]]]:
    """One trainer after the other, with state and memory handed on as a run does."""
    torch.set_num_threads(1)
    stages, logs = [], []
    for k, (trainer, task) in enumerate(zip(trainers, tasks, strict=False), start=1):
        rows: list[dict[str, Any]] = []
        kept = trainer.declare(trainer.config).replay_samples_per_task
        stage = make_stage(
            task, policy, folder / str(k), rows, index=k, seed=70 + k, state=folder / "state",
            memory=MemoryPlace(folder=folder / "memory", samples_per_task=kept),
            earlier=(stages[0].policy if stages else policy,), grading=EVERY,
        )  # fmt: skip
        for place in (stage.state, stage.memory.folder):
            place.mkdir(exist_ok=True)
        trainer.train(stage)
        policy = stage.output
        stages.append(stage)
        logs.append(rows)
    return stages, logs


# --------------------------------------------------------------------------------- all


def test_each_has_recipes_that_it_accepts_and_one_line() -> None:
    for name, offer in builtin("trainers").items():
        assert 10 < len(offer.summary) < 100 and "\n" not in offer.summary
        trainer = resolve("trainers", name).value
        for suite in ("nano", "cpt7"):
            text = (RECIPES / suite / f"{name}.yaml").read_text()
            config = trainer.Config.model_validate(yaml.safe_load(text))
            assert isinstance(trainer.declare(config), Privileges)
            assert config.device == ("cpu" if suite == "nano" else "cuda")


def test_no_name_is_a_method_that_can_be_off() -> None:
    """``--trainer ewc`` without its recipe is EWC all the same."""
    switched = {
        "sft-lora": "lora_rank", "olora": "olora", "replay": "replay", "rft-replay": "replay",
        "ewc": "ewc", "rft-ewc": "ewc", "lwf": "lwf", "rft-lwf": "lwf", "rft-kl": "kl",
        "rft-direct": "begin", "iterative-sft": "rounds",
    }  # fmt: skip
    own = {"sft", "rft", "sft-low", "joint", "rft-joint", "flow", "self-sft", "rationale-sft",
           "rif-rft", "rapo"}  # fmt: skip
    assert {*switched, *own} == {*builtin("trainers")}
    off = {"olora": "off", "begin": "free", "rounds": 1}
    for name, key in switched.items():
        config = resolve("trainers", name).value.Config(learning_rate=1e-3)
        assert getattr(config, key) != off.get(key, 0), name


@pytest.mark.parametrize(
    ("trainer", "bad"),
    [
        (SFT, {"ewc": 1.0, "sharding": "zero3"}),
        (SFT, {"lwf": 1.0, "reference": "base", "lora_rank": 4}),
        (SFT, {"olora": "project"}),
        (OLoRA, {"olora": "off"}),
        (Replay, {"replay": 0}),
        (RFT, {"kl": 0.1, "reference": "base", "lora_rank": 4}),
        (RaPO, {"algorithm": "rloo"}),
        (IterativeSFT, {"rounds": 1}),
    ],
)
def test_settings_that_do_not_fit_are_refused(trainer: Any, bad: dict[str, Any]) -> None:
    trainer.Config(learning_rate=1e-3)
    with pytest.raises(ValidationError):
        trainer.Config(learning_rate=1e-3, **bad)


def test_privileges_follow_the_settings() -> None:
    def of(trainer: Any, **changes: Any) -> Privileges:
        return trainer.declare(trainer.Config(learning_rate=1e-3, **changes))

    assert of(SFT) == of(EWC) == of(LwF) == of(OLoRA) == Privileges()
    assert of(RFT, replay=7) == Privileges(replay_samples_per_task=7)
    assert of(Joint, replay=3) == Privileges(joint=True, replay_samples_per_task=3)
    assert of(RFT, kl=0.1) == of(RFT, reference="base") == Privileges()
    assert of(RFT, kl=0.1, reference="base") == Privileges(earlier_checkpoints=True)
    assert of(LwF, reference="base") == Privileges(earlier_checkpoints=True)


# ------------------------------------------------------------------------------ replay


def sample(task: str, number: int) -> TrainSample:
    return TrainSample(f"{task}-{number}", task, "?", (), "!")


@settings(max_examples=40, deadline=None)
@given(
    budget=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    share=st.floats(0.05, 0.95),
)
def test_replay_never_exceeds_its_budget(
    budget: int, sizes: list[int], share: float, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("memory")
    trainer = SimpleNamespace(args=SimpleNamespace(should_save=True))
    config = SFT.Config(learning_rate=1, replay=budget, replay_share=share)
    for t, size in enumerate(sizes):
        new = [sample(f"t{t}", i) for i in range(size)]
        rows = {(s.task, s.id): {"id": s.id, "task": s.task, "prompt": "?", "images": [],
                                 "target": "!", "rationale": None} for s in new}  # fmt: skip
        memory = ReplayStore(folder, budget, rows)
        part = replay.Replay(config, SimpleNamespace(samples=new, memory=memory, seed=t))  # type: ignore[arg-type]
        mixed = part.mix(new)
        old = [s for s in mixed if s.task != f"t{t}"]
        assert mixed[:size] == new and len(old) == (round(size * share / (1 - share)) if t else 0)
        counts = [sum(s == o for o in old) for s in memory.samples()]
        assert not counts or max(counts) - min(counts) <= 1
        part.finish(trainer)
        assert memory.tasks() == [f"t{i}" for i in range(t + 1)]
        for i, earlier in enumerate(sizes[: t + 1]):
            kept = memory.samples(f"t{i}")
            assert len({s.id for s in kept}) == len(kept) == min(budget, earlier) <= budget
        with pytest.raises(PrivilegeError):  # and one more is refused, whoever asks
            memory.add((new * (budget + 1))[: budget + 1])


def test_later_rounds_write_replies_to_old_prompts_too(tiny_model: Path, tmp_path: Path) -> None:
    asked: list[set[str]] = []

    class Watched(IterativeSFT):
        def own(self, stage: Stage, samples: Any, model: Any, log: Any) -> Any:
            asked.append({s.task for s in samples})
            return list(samples)

    later = Watched(Watched.Config(**SUP, rounds=2, replay=5))
    chained([SFT(SFT.Config(**SUP, replay=5)), later], tiny_model, tmp_path)
    assert asked == [set(TINY.sequence[:2])] * 2


def test_replayed_prompts_are_learned_under_sft_and_rewarded_under_rft(
    tiny_model: Path, tmp_path: Path
) -> None:
    for trainer in (SFT(SFT.Config(**SUP, replay=5)), RFT(RFT.Config(**RL, replay=5))):
        folder = tmp_path / type(trainer).__name__
        stages, logs = chained([trainer, trainer], tiny_model, folder)
        assert {len(stages[1].memory.samples(t)) for t in TINY.sequence[:2]} == {5}
        first, rows = stages[1].memory.samples("science")[0], logs[1]
        assert stages[1].reward(first, first.target).total == 1.0
        assert rows[-1]["samples"] == (8 if isinstance(trainer, SFT) else 2)


# --------------------------------------------------------------------------------- ewc


def test_ewc_s_gradient_is_that_of_finite_differences() -> None:
    """Of all weights, and of adapters through their product."""
    from peft import LoraConfig, get_peft_model

    for adapters in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)).double()
        names = [n for n, _ in model.named_parameters() if not adapters or "weight" in n]
        part = ewc.EWC.__new__(ewc.EWC)
        part.config = SimpleNamespace(ewc=7.0)
        part.fisher = {n: torch.rand_like(p) for n, p in model.named_parameters() if n in names}
        if adapters:
            peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["0", "1"]))
            model = peft.get_base_model().double()
        part.model, part.anchor = model, {} if adapters else ewc.start(model, part.fisher)
        trained = [p for p in model.parameters() if p.requires_grad]
        with torch.no_grad():
            for p in trained:
                p += 0.1 * torch.randn_like(p)
        loss = part.penalty({})
        assert loss is not None
        grads = torch.autograd.grad(loss, trained)
        for p, grad in zip(trained, grads, strict=True):
            for i in range(p.numel()):
                sides = []
                for h in (1e-6, -1e-6):
                    with torch.no_grad():
                        p.view(-1)[i] += h
                        sides.append(float(part.penalty({})))
                        p.view(-1)[i] -= h
                slope = (sides[0] - sides[1]) / 2e-6
                assert slope == pytest.approx(float(grad.view(-1)[i]), rel=1e-4, abs=1e-7)
        if not adapters:  # lambda/2 sum F (theta - theta*)^2, by hand
            moved = dict(model.named_parameters())
            hand = sum((part.fisher[n] * (moved[n] - part.anchor[n]) ** 2).sum() for n in names)
            assert float(loss) == pytest.approx(3.5 * float(hand))


def test_fisher_is_the_mean_square_of_the_score_and_adds_up(
    tiny_model: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    stage = make_stage("science", tiny_model, tmp_path)
    model = load_model(tiny_model, device="cpu", attention="eager")
    samples = list(stage.samples[:3])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    config = SFT.Config(**SUP)
    whole = ewc.fisher(model, stage, config, samples)
    singles = []
    from cpt_bench.trainers.rollouts import Rollouts, encoded

    replies = Rollouts(model, stage, config).draw(samples, 1, seed=stage.seed)
    collate = encoded(load_processor(tiny_model))
    name = "model.language_model.layers.0.mlp.down_proj.weight"
    weight = dict(model.named_parameters())[name]
    for asked, (reply,) in zip(samples, replies, strict=True):
        batch = collate([(asked, reply)])
        tokens = int((batch["labels"][:, 1:] != -100).sum())
        loss = model(**batch).loss * tokens
        singles.append(torch.autograd.grad(loss, weight)[0] ** 2)
    assert torch.allclose(whole[name], sum(singles) / 3, rtol=1e-3, atol=1e-9)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    total = ewc.consolidated({"w": torch.tensor([2.0])}, {"w": torch.tensor([3.0])}, 0.5)
    assert total["w"].tolist() == [4.0]


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


def test_pictures_are_as_large_as_in_training_wherever_a_policy_is_asked(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from cpt_bench.trainers import rollouts

    seen: list[Any] = []
    inner = rollouts.encoded

    def spy(processor: Any) -> Any:
        seen.append(processor)
        return inner(processor)

    monkeypatch.setattr(rollouts, "encoded", spy)
    monkeypatch.setattr(flow, "encoded", spy)
    stage = make_stage("science", tiny_model, tmp_path)
    model = load_model(tiny_model, device="cpu", attention="eager")
    config, few = SFT.Config(**SUP, max_pixels=1024), list(stage.samples[:2])
    seen.append(rollouts.Rollouts(model, stage, config).processor)
    ewc.fisher(model, stage, config, few)
    flow.sample_losses(model, stage, config, few)
    assert [p.image_processor.size["longest_edge"] for p in seen] == [1024] * 3


def test_each_process_has_a_gpu_of_its_own(monkeypatch: Any) -> None:
    """What is asked before TRL's trainer is built is asked there, not of all on the first."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert SFT.Config(learning_rate=1, device="cuda").place() == "cuda:3"
    assert SFT.Config(learning_rate=1, device="cpu").place() == "cpu"


@pytest.mark.parametrize("adapters", [0, 4])
def test_ewc_holds_the_second_stage_back(adapters: int, tiny_model: Path, tmp_path: Path) -> None:
    """Nothing in the first stage; in the second, weights that matter move less than with SFT."""
    from safetensors.torch import load_file

    def moved(weight: float) -> tuple[float, list[dict[str, Any]]]:
        config = {**SUP, "max_steps": 6, "lora_rank": adapters, "ewc_samples": 4}
        folder = tmp_path / str(weight)
        first = SFT(SFT.Config(**config, ewc=1e-9))
        stages, logs = chained([first, SFT(SFT.Config(**config, ewc=weight))], tiny_model, folder)
        information = load_file(stages[0].state / ewc.STORE)
        before, after = (
            load_model(p, device="cpu", attention="eager").state_dict()
            for p in (stages[1].policy, stages[1].output)
        )
        cost = sum(float((f * (after[n] - before[n]) ** 2).sum()) for n, f in information.items())
        return cost, logs[0]

    free, log = moved(1e-9)
    held, _ = moved(1e4)
    assert "ewc_penalty" not in log[-1]
    assert held < free / 2


# --------------------------------------------------------------------------------- lwf


def test_lwf_at_weight_0_is_sft_bit_for_bit(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def outcome(name: str, trainer: Any) -> str:
        (stage,), _ = chained([trainer], tiny_model, tmp_path / name)
        return weights_digest(stage.output)

    plain = outcome("sft", SFT(SFT.Config(**SUP)))
    assert outcome("off", LwF(LwF.Config(**SUP, lwf=0.0))) == plain
    assert outcome("on", LwF(LwF.Config(**SUP, lwf=1.0))) != plain
    # With the whole machinery running, teacher and all, a weight of 0 changes no bit either. It
    # looks into TRL's own loss, so that it is compared with that.
    from cpt_bench.trainers import common
    from cpt_bench.trainers.answers import AnswersAlone

    monkeypatch.setattr(AnswersAlone, "apart", True)
    stock = outcome("stock", SFT(SFT.Config(**SUP)))
    made: list[Part] = []

    def forced(config: Any, stage: Stage) -> list[Part]:
        made.append(lwf.LwF(config, stage))
        return made

    monkeypatch.setattr(common, "parts_of", forced)
    assert outcome("zero", SFT(SFT.Config(**SUP))) == stock and len(made) == 1


def test_distillation_is_the_softened_divergence() -> None:
    target, ours = torch.randn(6, 9), torch.randn(6, 9)
    for t in (1.0, 2.0):
        p, q = (target / t).softmax(-1), (ours / t).softmax(-1)
        hand = t * t * (p * (p / q).log()).sum(-1).mean()
        assert lwf.distillation(ours, target, t) == pytest.approx(float(hand), rel=1e-5)
    assert lwf.distillation(target, target, 2.0) == pytest.approx(0, abs=1e-6)
    none = torch.zeros(0, 9, requires_grad=True)
    lwf.distillation(none, none.detach(), 2.0).backward()  # a batch with nothing to train on


@pytest.mark.parametrize("name", ["sft", "grpo", "rloo", "sft+lora"])
def test_lwf_measures_against_the_start_policy_where_tokens_are_trained(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The penalty of a first batch is 0: nothing has moved. Of a later one it is not."""
    inner = lwf.LwF.penalty
    seen: list[float] = []

    def spy(self: Any, inputs: Any) -> Any:
        term = inner(self, inputs)
        seen.append(float(term.detach()))
        assert term.requires_grad
        return term

    monkeypatch.setattr(lwf.LwF, "penalty", spy)
    if name.startswith("sft"):
        rank = 4 if "lora" in name else 0
        trainer: Any = SFT(SFT.Config(**SUP, lwf=1.0, lora_rank=rank))
    else:
        trainer = RFT(RFT.Config(**{**RL, "max_steps": 2}, lwf=1.0, algorithm=name))
    stage = make_stage("science", tiny_model, tmp_path)
    torch.set_num_threads(1)
    trainer.train(replace(stage, reward=lambda s, r: RewardParts(len(r) % 5 / 5, 0.0, True)))
    assert seen[0] == pytest.approx(0, abs=1e-5) and seen[1] > 1e-6


def test_a_penalty_counts_once_a_step_however_a_batch_is_cut(
    tiny_model: Path, tmp_path: Path
) -> None:
    def first(batch: int, accumulation: int) -> dict[str, Any]:
        cut = {"batch_size": batch, "gradient_accumulation": accumulation, "max_steps": 2}
        trainer = SFT(SFT.Config(**{**SUP, **cut}, lwf=50.0))
        _, logs = chained([trainer], tiny_model, tmp_path / str(batch))
        return logs[0][1]  # the first step has nothing to penalise

    whole, parts = first(4, 1), first(1, 4)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=2e-2)
    assert parts["lwf_penalty"] == pytest.approx(whole["lwf_penalty"], rel=2e-2)


def test_ewc_s_penalty_is_computed_once_a_step(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """It looks at weights alone; however a batch is cut, the step is the same."""
    config = {**SUP, "max_steps": 3, "ewc": 1e3, "ewc_samples": 4}
    (first,), _ = chained([SFT(SFT.Config(**config))], tiny_model, tmp_path)
    calls: list[float] = []
    inner = ewc.EWC.penalty
    monkeypatch.setattr(ewc.EWC, "penalty", lambda *a: calls.append(1) or inner(*a))

    def second(batch: int, accumulation: int) -> dict[str, Any]:
        state = shutil.copytree(first.state, tmp_path / f"state-{batch}")
        stage = make_stage("counting", first.output, tmp_path / f"{batch}", rows := [], index=2, state=state)  # fmt: skip
        cut = {"batch_size": batch, "gradient_accumulation": accumulation}
        SFT(SFT.Config(**{**config, **cut})).train(stage)
        return rows[-1]

    whole, parts = second(4, 1), second(1, 4)
    assert len(calls) == 2 * 3 and whole["ewc_penalty"] > 0
    assert parts["ewc_penalty"] == pytest.approx(whole["ewc_penalty"], rel=2e-2)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=2e-2)


def test_penalties_are_scaled_as_each_trl_trainer_scales_its_loss() -> None:
    from trl import GRPOTrainer, RLOOTrainer

    def batches(kind: Any, accepts: bool, items: Any) -> int:
        return _batches_a_step(
            SimpleNamespace(loss_is_scaled_for_ga=kind.loss_is_scaled_for_ga,
                            compute_loss_func=None, model_accepts_loss_kwargs=accepts,
                            current_gradient_accumulation_steps=4), items)  # fmt: skip

    from trl import SFTTrainer

    assert batches(SFTTrainer, True, 10) == 4  # the loss is divided by the step's tokens
    assert batches(SFTTrainer, False, None) == 1  # transformers divides by the batches
    assert batches(GRPOTrainer, True, None) == 4  # GRPO has divided already
    assert batches(RLOOTrainer, False, None) == 1


# ------------------------------------------------------------------------------- olora


def test_olora_s_subspaces_are_orthogonal(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    def overlap(trainer: Any, folder: Path) -> float:
        stages, _ = chained([trainer] * 3, tiny_model, folder)
        rows = load_file(stages[-1].state / olora.STORE)
        worst = 0.0
        for a in rows.values():
            assert a.shape[0] == 3 * 4
            for i in range(3):
                for j in range(i):
                    u, v = (torch.linalg.qr(a[4 * k : 4 * k + 4].T)[0] for k in (i, j))
                    # The cosine of the smallest angle between the two subspaces.
                    worst = max(worst, float(torch.linalg.matrix_norm(u.T @ v, ord=2)))
        return worst

    config = {**SUP, "lora_rank": 4}
    assert overlap(OLoRA(OLoRA.Config(**config)), tmp_path / "project") < 1e-5
    soft = overlap(OLoRA(OLoRA.Config(**config, olora="penalty", olora_weight=1e-12)), tmp_path / "no")  # fmt: skip
    assert soft > 0.1  # without the constraint they are not


def test_olora_s_penalty_is_the_paper_s_sum() -> None:
    part = olora.OLoRA.__new__(olora.OLoRA)
    part.config = SimpleNamespace(olora="penalty", olora_weight=0.5)
    earlier, now = torch.randn(4, 6), torch.randn(2, 6, requires_grad=True)
    part.earlier, part.layers = {"l": earlier}, {"l": now}
    hand = 0.5 * sum(abs(float(e @ n)) for e in earlier for n in now)
    found = part.penalty({})
    assert found is not None and float(found) == pytest.approx(hand, rel=1e-5)
    part.earlier = {}
    assert part.penalty({}) is None


def test_olora_says_when_there_is_no_room_left(tiny_model: Path, tmp_path: Path) -> None:
    trainer = OLoRA(OLoRA.Config(**SUP, lora_rank=24))
    with pytest.raises(CptBenchError, match="no room for rank 24"):
        chained([trainer] * 3, tiny_model, tmp_path)


def test_adapters_are_merged_and_seeded(tiny_model: Path, tmp_path: Path) -> None:
    (first,), _ = chained([LoRA(LoRA.Config(**SUP))], tiny_model, tmp_path / "a")
    (second,), _ = chained([LoRA(LoRA.Config(**SUP))], tiny_model, tmp_path / "b")
    assert weights_digest(first.output) == weights_digest(second.output)
    assert not (first.output / "adapter_config.json").exists()


# -------------------------------------------------------------------------------- flow


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


# ------------------------------------------------------------------------------- joint


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


# --------------------------------------------------------------------------------- rif


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
        assert "passed on" in said[0] and rows[-1]["kept"] == 0 and rows[-1]["samples"] == 32


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


# ------------------------------------------------------------------- own replies, modes


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
    from cpt_bench.trainers.sft import LeanSFT

    drawn: list[int] = []

    class Numbered(IterativeSFT):
        def own(self, stage: Stage, samples: Any, model: Any, log: Any) -> Any:
            drawn.append(len(drawn))
            return [replace(s, target=f"<answer>{drawn[-1]}</answer>") for s in samples]

    tokenizer = load_processor(tiny_model).tokenizer
    learned: list[list[str]] = [[] for _ in range(5)]
    inner = LeanSFT.compute_loss

    def spy(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        for labels in inputs["labels"]:
            text = tokenizer.decode(labels[labels != -100])
            learned[self.state.global_step] += [c for c in text if c.isdigit()]
        return inner(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(LeanSFT, "compute_loss", spy)
    config = {**SUP, "max_steps": 5, "batch_size": 2, "gradient_accumulation": 2, "rounds": 3}
    Numbered(Numbered.Config(**config)).train(make_stage("science", tiny_model, tmp_path))
    assert learned == [[r] * 4 for r in "00112"]


def test_the_pool_gives_each_once_before_any_twice() -> None:
    pool = Pool([sample("a", i) for i in range(5)], seed=1)
    taken = [s.id for _ in range(4) for s in pool.take(3)]
    assert sorted(taken[:5]) == sorted(taken[5:10]) == [f"a-{i}" for i in range(5)]


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


# -------------------------------------------------------------------------------- rapo


def test_rapo_s_equations() -> None:
    ours = torch.tensor([[-1.0, -2.0, 9.9], [-1.0, -1.0, -1.0]])
    anchor = torch.tensor([[-1.5, -2.3, 0.0], [-0.5, -0.5, -3.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    found = rapo.drift(ours, anchor, mask)
    assert found.tolist() == pytest.approx([(0.5 + 0.3) / 2, (-0.5 - 0.5 + 2.0) / 3])
    assert rapo.drift(anchor, ours, mask).tolist() == [0.0, 0.0]  # cut off after the mean
    assert rapo.retention_reward(found, 20.0).tolist() == pytest.approx(
        [math.exp(-8.0), math.exp(-20 / 3)]
    )


def test_rapo_s_scale_lasts_across_batches_and_tasks(tmp_path: Path) -> None:
    file = tmp_path / "rapo.json"
    flat, first = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    second = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    scale = rapo.Scale(file, 0.9)
    assert scale.advantages(flat).abs().max() == 0 and scale.sigma is None
    sigma = float(first.std())
    by_hand = torch.tensor([[0.5, -0.5], [0.45, -0.45]]) / (sigma + 1e-6)
    assert torch.allclose(scale.advantages(first), by_hand)
    scale.save()
    later = rapo.Scale(file, 0.9)  # the next task goes on from it
    sigma = 0.9 * sigma + 0.1 * float(second.std())
    by_hand = torch.tensor([[0.0, 0.0], [0.5, -0.5]]) / (sigma + 1e-6)
    assert torch.allclose(later.advantages(second), by_hand)
    assert later.sigma == pytest.approx(sigma)


def test_rapo_s_advantages_reach_the_loss(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Stage 1 by hand from the rewards; in stage 2 the retention reward is there."""
    from trl import GRPOTrainer

    batches: list[Any] = []
    inner = GRPOTrainer._compute_loss

    def spy(self: Any, model: Any, inputs: Any) -> Any:
        batches.append(inputs["advantages"].detach().clone())
        return inner(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", spy)
    values = [1.0, 0.1, 0.0, 0.4, 0.1, 0.1, 1.0, 0.0]
    given: list[float] = []

    def reward(s: Any, reply: str) -> RewardParts:
        given.append(values[len(given) % 8])
        return RewardParts(given[-1], 0.0, True)

    torch.set_num_threads(1)
    stage = replace(make_stage("science", tiny_model, tmp_path / "1"), reward=reward)
    RaPO(RaPO.Config(**RL)).train(stage)
    groups = torch.tensor(values).view(2, 4)
    expected = (groups - groups.mean(1, keepdim=True)) / (groups.std() + 1e-6)
    got = torch.cat(batches).flatten().sort().values
    assert torch.allclose(got, expected.flatten().sort().values, atol=1e-4)
    rows: list[dict[str, Any]] = []
    second = make_stage("counting", stage.output, tmp_path / "2", rows, index=2, state=stage.state)
    RaPO(RaPO.Config(**{**RL, "max_steps": 2})).train(replace(second, reward=reward))
    assert rows[0]["drift"] == pytest.approx(0, abs=1e-5)  # the first rollouts are the anchor's
    assert rows[0]["retention_reward"] == pytest.approx(1, abs=1e-3)
    assert rows[1]["drift"] > 0 and rows[1]["reward_scale"] == pytest.approx(
        float(groups.std()), rel=0.01
    )
