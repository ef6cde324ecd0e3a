"""The methods that ship: recipes, settings, privileges, and what each asks of a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from pydantic import ValidationError

from cpt_bench.models.checkpoint import load_model
from cpt_bench.plugins import builtin, resolve
from cpt_bench.trainer import Privileges
from cpt_bench.trainers import flow
from cpt_bench.trainers.joint import Joint
from cpt_bench.trainers.methods import CPO, EWC, LwF, OLoRA, Replay
from cpt_bench.trainers.parts import ewc
from cpt_bench.trainers.pretrain import Pretrain
from cpt_bench.trainers.rapo import RaPO
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.selfsft import IterativeSFT
from cpt_bench.trainers.sft import SFT
from tests.support.places import RECIPES
from tests.support.stages import SUP, make_stage


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
        "rft-direct": "begin", "iterative-sft": "rounds", "rft-cpr": "replay_choice",
        "rft-gspo": "ratio", "rft-cpo": "cpo", "rft-redo": "reset", "rft-fire": "reset",
        "rft-muon": "optimizer",
    }  # fmt: skip
    own = {"sft", "rft", "sft-low", "joint", "rft-joint", "flow", "self-sft", "rationale-sft",
           "rif-rft", "rapo", "pretrain"}  # fmt: skip
    assert {*switched, *own} == {*builtin("trainers")}
    off = {"olora": "off", "begin": "free", "rounds": 1, "replay_choice": "uniform",
           "ratio": "token", "reset": "off", "optimizer": "adamw"}  # fmt: skip
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
        (RFT, {"ratio": "sequence", "average": "token"}),
        (RFT, {"ratio": "sequence", "algorithm": "rloo"}),
        (RFT, {"replay_choice": "pass_rate", "replay_share": 0.6}),
        (SFT, {"replay_choice": "pass_rate"}),
        (SFT, {"cpo": 1.0, "lora_rank": 4}),
        (RFT, {"reset": "redo", "sharding": "fsdp"}),
        (SFT, {"optimizer": "muon", "deepspeed": "zero.json"}),
        (CPO, {"cpo": 0}),
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
    assert of(Pretrain) == Privileges() and of(Pretrain, then="sft") == Privileges(joint=True)
    assert of(Joint, replay=3) == Privileges(joint=True, replay_samples_per_task=3)
    assert of(RFT, kl=0.1) == of(RFT, reference="base") == Privileges()
    assert of(RFT, kl=0.1, reference="base") == Privileges(earlier_checkpoints=True)
    assert of(LwF, reference="base") == Privileges(earlier_checkpoints=True)


def test_pictures_are_as_large_as_in_training_wherever_a_policy_is_asked(
    tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from cpt_bench.trainers import rollouts

    seen: list[Any] = []
    inner = rollouts.encoded

    def spy(processor: Any) -> Any:
        seen.append(processor)
        return inner(processor)

    for module in (ewc, flow):
        monkeypatch.setattr(module, "encoded", spy)
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
