"""The plan's arithmetic against sums done by hand, and the two plans a user asks for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cpt_bench.advice import estimate as p
from tests.test_cli import LIGHT

Cli = Callable[..., subprocess.CompletedProcess[str]]
RFT = {**p.DEFAULTS, "prompts_per_step": 1, "gradient_accumulation": 16, "rollouts": 8,
       "updates_per_generation": 4, "kl": 0.01, "gradient_checkpointing": True, "dtype": "bfloat16",
       "sharding": "zero3", "use_vllm": True, "min_pixels": 200704, "max_pixels": 1003520,
       "epochs_by_task": {"geometry3k": 10, "superclevr": 3}}  # fmt: skip
A100 = p.GPUS["a100-80"]


def test_the_base_model_has_the_weights_it_is_published_with() -> None:
    """7,615,616,512 is Qwen2.5-7B's published count; the whole is the checkpoint's index total."""
    assert p.QWEN_7B.language == 7_615_616_512
    assert p.QWEN_7B.parameters == 8_292_166_656


def test_nano_s_weights_are_counted_as_its_file_has_them() -> None:
    from cpt_bench.files import read_json
    from cpt_bench.tasks.nano import FOLDER

    folder = FOLDER / "checkpoint"
    counted = p.Architecture.of(read_json(folder / "config.json")).parameters
    head = (folder / "model.safetensors").read_bytes()
    header = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])
    shapes = [t["shape"] for name, t in header.items() if name != "__metadata__"]
    real = sum(int(__import__("math").prod(shape)) for shape in shapes)
    assert counted == real


@pytest.mark.parametrize(
    ("task", "samples", "updates", "generations"),
    # The steps of the authors' last checkpoints are generations of 512 prompts: 67, 156, 38, 45.
    [("textvqa", 34_602, 271, 67), ("gqa", 80_000, 625, 156), ("pathvqa", 19_654, 154, 38),
     ("superclevr", 8_000, 188, 46)],
)  # fmt: skip
def test_steps(task: str, samples: int, updates: int, generations: int) -> None:
    cost = p.stage(task, samples, True, RFT, p.QWEN_7B, A100, 8, p.ASSUMED)
    assert cost.steps == updates
    assert cost.steps // 4 in (generations, generations + 1)
    assert cost.rollouts == updates * 128 * 8
    assert p.steps(100, 3, 32, None) == 10 and p.steps(100, 3, 32, 7) == 7


def test_a_stage_by_hand() -> None:
    """Geometry3K: 2,101 samples x 10 = 21,010 prompts -> 165 updates of 128 = 21,120 prompts."""
    cost = p.stage("geometry3k", 2_101, True, RFT, p.QWEN_7B, A100, 8, p.ASSUMED)
    assert (cost.steps, cost.prompts, cost.rollouts) == (165, 21_120, 168_960)
    # 75,000 pixels are raised to 200,704 = 256 squares of 28 x 28; 100 words and 200 written.
    assert cost.written == 168_960 * 200 == 33_792_000
    assert cost.trained == 168_960 * 556 == 93_941_760
    # A pass: 2 x (7,615,616,512 x 556 + 676,550,144 x 1,024) = 9.8541e12 operations. Six of them:
    # forward, two backward, recomputation, old policy, reference.
    once = 2 * (7_615_616_512 * 556 + 676_550_144 * 1024)
    seconds = 168_960 * once * 6 / (8 * 312e12 * 0.35)
    assert once == pytest.approx(9.8541e12, rel=1e-4)
    assert cost.train_hours == pytest.approx(seconds / 3600) == pytest.approx(3.1763, rel=1e-3)
    # 33,792,000 tokens at 2,000 a second and GPU, and 21,120 prompts of 356 tokens read at 45 %.
    reading = 21_120 * 2 * (7_615_616_512 * 356 + 676_550_144 * 1024)
    hours = (33_792_000 / 2000 + reading / (312e12 * 0.45)) / 8 / 3600
    assert cost.rollout_hours == pytest.approx(hours) == pytest.approx(0.6226, rel=1e-3)


def test_supervised_and_adapters_by_hand() -> None:
    sft = {**p.DEFAULTS, "batch_size": 1, "gradient_accumulation": 3}
    cost = p.stage("gqa", 80_000, False, sft, p.QWEN_7B, A100, 8, p.ASSUMED)
    assert (cost.steps, cost.rollouts, cost.rollout_hours) == (3_334, 0, 0)  # ceil(80,000 / 24)
    # 190,000 pixels are 242 squares; 100 words and 8 of the answer.
    assert cost.trained == 3_334 * 24 * 350
    assert p.passes(False, sft) == 3
    assert p.passes(False, {**sft, "gradient_checkpointing": True}) == 4
    assert p.passes(False, {**sft, "lora_rank": 8}) == 2
    assert p.passes(True, RFT) == 6
    # q, k, v, o: 2(3584+3584) + 2(3584+512); gate, up, down: 3(3584+18944); 28 layers.
    # Tower: qkv 1280+3840, proj 1280+1280, mlp 3(1280+3420); 32 layers. Rank 64.
    assert p.lora(p.QWEN_7B, 64) == 64 * (
        28 * (14_336 + 8_192 + 67_584) + 32 * (5_120 + 2_560 + 14_100)
    )


def test_memory_by_hand() -> None:
    found = p.memory(True, RFT, p.QWEN_7B, A100, 8, longest=2000)
    n, gib = 8_292_166_656, 2**30
    assert found.weights == pytest.approx(2 * n / 8 / gib)
    assert found.optimiser == pytest.approx(14 * n / 8 / gib)  # gradients 2, copy 4, moments 8
    assert found.reference == pytest.approx(2 * n / 8 / gib)
    assert found.vllm == pytest.approx(24)
    whole = p.memory(False, {**RFT, "sharding": "none"}, p.QWEN_7B, A100, 8, longest=2000)
    assert whole.weights == pytest.approx(2 * n / gib) and whole.reference == whole.vllm == 0
    tuned = p.memory(True, {**RFT, "sharding": "none", "lora_rank": 64}, p.QWEN_7B, A100, 1, 2000)
    assert tuned.reference == 0  # adapters switched off
    assert tuned.optimiser == pytest.approx(12 * p.lora(p.QWEN_7B, 64) / gib)
    assert p.disk(p.QWEN_7B, 7, "all", 2) == pytest.approx(8 * 2 * n / gib)
    assert p.disk(p.QWEN_7B, 7, "last", 2) == pytest.approx(3 * 2 * n / gib)


def test_evaluation_by_hand() -> None:
    tested = p.evaluation(
        {"a": 10, "b": 20}, {"g": 5}, False, False, p.QWEN_7B, A100, 8, p.ASSUMED, True
    )
    assert tested.questions == 3 * 30 + 2 * 5 and tested.written == 100 * 8
    every = p.evaluation(
        {"a": 10, "b": 20}, {"g": 5}, True, True, p.QWEN_7B, A100, 8, p.ASSUMED, True
    )
    assert every.questions == 3 * 35 and every.written == 105 * 200
    stages = [p.stage("gqa", 80_000, True, RFT, p.QWEN_7B, A100, 8, p.ASSUMED)]
    alone = stages[0].train_hours + stages[0].rollout_hours
    assert p.hours_of(stages, tested, overlap=False) == pytest.approx(alone + tested.hours)
    assert p.hours_of(stages, tested, overlap=True) == pytest.approx(alone)


def light(*args: str) -> str:
    done = subprocess.run([sys.executable, "-c", LIGHT, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plans_a_user_asks_for_need_no_torch() -> None:
    many = json.loads(light("plan", "--suite", "cpt7", "--trainer", "rft", "--gpus", "8", "--json"))
    assert many["recipe"] == "cpt7/rft" and many["fits"] and len(many["stages"]) == 7
    assert [s["steps"] for s in many["stages"]] == [49, 271, 161, 625, 165, 154, 188]
    assert many["disk_gib"]["checkpoints"] == pytest.approx(8 * 2 * 8_292_166_656 / 2**30)
    one = json.loads(light("plan", "--suite", "cpt7", "--trainer", "rft", "--gpus", "1", "--json"))
    assert one["recipe"] == "cpt7/rft-lora" and one["fits"]
    rollouts = [[s["rollouts"] for s in plan["stages"]] for plan in (many, one)]
    assert rollouts[0] == rollouts[1], "the same prompts an update on one GPU"
    assert one["hours"]["one after the other"] > 4 * many["hours"]["one after the other"]
    page = light(
        "plan", "--suite", "cpt7", "--trainer", "rft", "--gpus", "1", "--recipe", "cpt7/rft"
    )
    assert "DOES NOT FIT" in page and "assumed:" in page and "8,292,166,656" in page
    small = json.loads(
        light("plan", "--suite", "cpt7", "--tier", "mini", "--trainer", "sft", "--json")
    )
    assert max(s["samples"] for s in small["stages"]) == 2000
    assert "1,805" in light("plan", "--suite", "nano", "--trainer", "sft", "--gpus", "1")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--trainer", "ewc"], "no figures for trainer 'ewc'"),
        (["--gpu", "a100"], "Did you mean 'a100-80'?"),
        (["--set", "rollout=4"], "Did you mean 'rollouts'?"),
        (["--recipe", "cpt7/rft-lor"], "Did you mean 'cpt7/rft-lora'?"),
        (
            ["--trainer", "sft", "--recipe", "cpt7/rft"],
            "which sft does not have. Plan it with --trainer rft",
        ),
        (["--recipe", "cpt7/joint"], "which rft does not have. Plan it with --trainer sft"),
        (["--keep", "some"], "There is: all, last, none"),
    ],
)
def test_mistakes(args: list[str], line: str, cli: Cli) -> None:
    done = cli("plan", *args)
    assert done.returncode == 2 and line in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_plan_s_defaults_are_the_trainers() -> None:
    """And every shipped recipe is one its trainer accepts."""
    pytest.importorskip("torch")
    import importlib.resources

    from cpt_bench.plugins import BUILTIN, resolve
    from cpt_bench.stage.recipes import named
    from cpt_bench.trainers import rft
    from cpt_bench.trainers.sft import SFT

    for key, value in p.DEFAULTS.items():
        fields = {**SFT.Config.model_fields, **rft.RFT.Config.model_fields}
        assert fields[key].get_default(call_default_factory=True) == value, key
    folder = importlib.resources.files("cpt_bench.trainers") / "recipes/cpt7"
    names = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir())
    # rft-lora is no trainer of its own: rft, on one GPU.
    assert names == sorted([*BUILTIN["trainers"], "rft-lora"])
    for name in names:
        trainer = resolve("trainers", name.replace("rft-lora", "rft")).value
        made: Any = trainer.Config.model_validate(named(f"cpt7/{name}"))
        # A model of 7B is split over GPUs, or trained by adapters on one.
        assert (made.adapters() is None) == (set(made.sharded()) == {"deepspeed"})
