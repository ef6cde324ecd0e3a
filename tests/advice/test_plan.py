"""The plan's arithmetic against sums done by hand, and the two plans a user asks for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from cpt_bench.advice import estimate as p
from cpt_bench.advice.plan import architecture, pixels
from cpt_bench.models.families.weights import Architecture
from cpt_bench.stage.recipes import named
from cpt_bench.suite import open_suite
from tests.support.commands import LIGHT, Cli

RFT = p.Settings(
    prompts_per_step=1, gradient_accumulation=16, rollouts=8, updates_per_generation=4, kl=0.01,
    gradient_checkpointing=True, dtype="bfloat16", sharding="zero3", use_vllm=True,
    min_pixels=200704, max_pixels=1003520, epochs_by_task={"geometry3k": 10, "superclevr": 3},
)  # fmt: skip
A100 = p.GPUS["a100-80"]
CPT7 = open_suite("cpt7")
QWEN_7B = architecture(CPT7)
PIXELS = pixels(CPT7)


def changed(settings: p.Settings, **changes: Any) -> p.Settings:
    return settings.model_copy(update=changes)


def test_the_base_model_has_the_weights_it_is_published_with() -> None:
    """7,615,616,512 is Qwen2.5-7B's published count; the whole is the checkpoint's index total."""
    assert QWEN_7B.language == 7_615_616_512
    assert QWEN_7B.parameters == 8_292_166_656


def test_nano_s_weights_are_counted_as_its_file_has_them() -> None:
    from cpt_bench.files import read_json
    from cpt_bench.tasks.nano import FOLDER

    folder = FOLDER / "checkpoint"
    counted = Architecture.of(read_json(folder / "config.json")).parameters
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
    cost = p.stage(task, samples, PIXELS[task], True, RFT, QWEN_7B, A100, 8, p.ASSUMED)
    assert cost.steps == updates
    assert cost.steps // 4 in (generations, generations + 1)
    assert cost.rollouts == updates * 128 * 8
    assert p.steps(100, 3, 32, None) == 10 and p.steps(100, 3, 32, 7) == 7


def test_a_stage_by_hand() -> None:
    """Geometry3K: 2,101 samples x 10 = 21,010 prompts -> 165 updates of 128 = 21,120 prompts."""
    cost = p.stage("geometry3k", 2_101, 75e3, True, RFT, QWEN_7B, A100, 8, p.ASSUMED)
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
    sft = p.Settings(batch_size=1, gradient_accumulation=3)
    cost = p.stage("gqa", 80_000, 190e3, False, sft, QWEN_7B, A100, 8, p.ASSUMED)
    assert (cost.steps, cost.rollouts, cost.rollout_hours) == (3_334, 0, 0)  # ceil(80,000 / 24)
    # 190,000 pixels are 242 squares; 100 words and 8 of the answer.
    assert cost.trained == 3_334 * 24 * 350
    assert p.passes(False, sft) == 3
    assert p.passes(False, changed(sft, gradient_checkpointing=True)) == 4
    assert p.passes(False, changed(sft, lora_rank=8)) == 2
    assert p.passes(True, RFT) == 6
    # q, k, v, o: 2(3584+3584) + 2(3584+512); gate, up, down: 3(3584+18944); 28 layers.
    # Tower: qkv 1280+3840, proj 1280+1280, mlp 3(1280+3420); 32 layers. Rank 64.
    assert p.lora(QWEN_7B, 64) == 64 * (
        28 * (14_336 + 8_192 + 67_584) + 32 * (5_120 + 2_560 + 14_100)
    )


def test_memory_by_hand() -> None:
    found = p.memory(True, RFT, QWEN_7B, A100, 8, longest=2000)
    n, gib = 8_292_166_656, 2**30
    assert found.weights == pytest.approx(2 * n / 8 / gib)
    assert found.optimiser == pytest.approx(14 * n / 8 / gib)  # gradients 2, copy 4, moments 8
    assert found.reference == pytest.approx(2 * n / 8 / gib)
    assert found.vllm == pytest.approx(24)
    whole = p.memory(False, changed(RFT, sharding="none"), QWEN_7B, A100, 8, longest=2000)
    assert whole.weights == pytest.approx(2 * n / gib) and whole.reference == whole.vllm == 0
    tuned = p.memory(True, changed(RFT, sharding="none", lora_rank=64), QWEN_7B, A100, 1, 2000)
    assert tuned.reference == 0  # adapters switched off
    assert tuned.optimiser == pytest.approx(12 * p.lora(QWEN_7B, 64) / gib)
    assert p.disk(QWEN_7B, 7, "all", 2) == pytest.approx(8 * 2 * n / gib)
    assert p.disk(QWEN_7B, 7, "last", 2) == pytest.approx(3 * 2 * n / gib)


def test_evaluation_by_hand() -> None:
    none = {"a": 0.0, "b": 0.0}
    asked = {"a": 30, "b": 70}
    tested = p.evaluation(asked, none, 3, False, QWEN_7B, A100, p.ASSUMED, True)
    assert tested.questions == 100 and tested.written == 100 * 8
    # 800 tokens at 2,000 a second, 100 prompts of 100 words read at 45 %, three starts of 80 s.
    reading = 100 * 2 * 7_615_616_512 * 100 / (312e12 * 0.45)
    assert tested.hours == pytest.approx((800 / 2000 + reading + 240) / 3600)
    slow = p.evaluation(asked, none, 3, False, QWEN_7B, A100, p.ASSUMED, False)
    assert slow.hours - tested.hours == pytest.approx(3 * 800 / 2000 / 3600)
    every = p.evaluation(asked, none, 3, True, QWEN_7B, A100, p.ASSUMED, True)
    assert every.written == 100 * 200
    stages = [p.stage("gqa", 80_000, 190e3, True, RFT, QWEN_7B, A100, 8, p.ASSUMED)]
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


def plan(*args: str) -> dict[str, Any]:
    return dict(json.loads(light("plan", *args, "--json")))


def test_a_recipe_shows_what_kind_of_trainer_it_is() -> None:
    """Whatever its name: prompts a step and rewards, or batches of targets."""
    for trainer, rewarded in (("ewc", False), ("rft-ewc", True), ("self-sft", False)):
        found = plan("--suite", "nano", "--trainer", trainer, "--gpus", "1")
        assert (found["stages"][0]["rollouts"] > 0) == rewarded, trainer
    assert found["uncounted"] == ["rollouts", "rounds"], "what self-sft draws is no training"
    assert plan("--suite", "nano", "--trainer", "sft", "--gpus", "1")["uncounted"] == []


def test_benchmarks_are_asked_when_the_protocol_says() -> None:
    assert CPT7.benchmarks_after(3) == CPT7.sequence
    assert CPT7.benchmarks_after(0) == CPT7.benchmarks_after(7) == (*CPT7.sequence, *CPT7.general)
    nano = open_suite("nano")
    assert {nano.benchmarks_after(t) for t in range(8)} == {(*nano.sequence, *nano.general)}
    tests = {name: card.splits["test"].n for name, card in CPT7.cards.items()}
    tasks = sum(tests[name] for name in CPT7.sequence)
    general = sum(tests[name] for name in CPT7.general)
    found = plan("--suite", "cpt7", "--trainer", "rft")
    assert found["evaluation"]["questions"] == 8 * tasks + 2 * general


def test_a_joint_trainer_has_one_stage() -> None:
    """Its steps are shared out among the tasks; two models are evaluated and kept, not eight."""
    joint = plan("--suite", "nano", "--trainer", "joint", "--gpus", "1")
    apart = plan("--suite", "nano", "--trainer", "sft", "--gpus", "1")
    assert (
        sum(s["steps"] for s in joint["stages"]) == 700 == sum(s["steps"] for s in apart["stages"])
    )
    assert joint["evaluation"]["questions"] * 4 == apart["evaluation"]["questions"]
    assert joint["disk_gib"]["checkpoints"] * 4 == apart["disk_gib"]["checkpoints"]


def test_typical_pixels_are_no_part_of_a_fingerprint() -> None:
    card = CPT7.card("gqa")
    assert card.typical_pixels == 190e3 and PIXELS["mmlu_pro"] == 0
    assert "typical_pixels" not in card.model_dump() and "folder" not in card.model_dump()
    other = card.model_copy(update={"typical_pixels": None, "folder": None})
    cards = {**CPT7.cards, "gqa": other}
    assert CPT7.model_copy(update={"cards": cards}).fingerprint() == CPT7.fingerprint()
    assert pixels(CPT7.model_copy(update={"cards": cards}))["gqa"] == p.ASSUMED.pixels


def test_the_published_fingerprints_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Of nano, and of cpt7 where none of its data are prepared."""
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    published = {
        "nano": "55706c6c082964371c29140ece71874b0d5239655a0b9b964cc7ad90f4229e94",
        "cpt7": "c4f0fe7518b74070050d186495d926ec755e3fd7e3c40f78e9d0a38bf0427af6",
        "cpt7@mini": "8896e8d3c2c8b072638e6627e6ee4abfd47570201874167c0e75ba670ec559ab",
        "cpt7@paper": "f8dfc1fc41e403de3c757a057e0094090599544d71687de3e8c86448037c8feb",
    }
    assert {spec: open_suite(spec).fingerprint() for spec in published} == published


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--trainer", "ewx"], "Did you mean 'ewc'?"),
        (["--trainer", "cmd:sh x"], "nothing is known of a command's work"),
        (["--set", "kl=fast"], "kl: Input should be a valid number"),
        (["--set", "batch_size=0"], "batch_size: Input should be greater than or equal to 1"),
        (["--set", "kl"], "is not key=value"),
        (["--gpu", "a100"], "Did you mean 'a100-80'?"),
        (["--set", "rollout=4"], "Did you mean 'rollouts'?"),
        (["--recipe", "cpt7/rft-lor"], "Did you mean 'cpt7/rft-lora'?"),
        (
            ["--trainer", "sft", "--recipe", "cpt7/rft"],
            "which sft does not have. Plan it with the trainer that it is for: --trainer rft",
        ),
        (
            ["--recipe", "cpt7/joint"],
            "which rft does not have. Plan it with the trainer that it is for",
        ),
        (["--base", "nowhere"], "nothing is known of base model 'nowhere'"),
        (["--keep", "some"], "There is: all, last, none"),
    ],
)
def test_mistakes(args: list[str], line: str, cli: Cli) -> None:
    done = cli("plan", *args)
    assert done.returncode == 2 and line in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("trainer", ["sft", "rft"])
def test_a_recipe_for_fewer_gpus_draws_as_many_samples_a_step(trainer: str) -> None:
    many, few = (named(f"cpt7/{trainer}{end}") for end in ("", "-1gpu"))
    drawn = [r["gradient_accumulation"] * r.get("batch_size", 1) for r in (many, few)]
    assert 8 * drawn[0] == drawn[1]
    changed = {key for key in many.keys() | few.keys() if many.get(key) != few.get(key)}
    assert changed <= {"gradient_accumulation", "vllm_memory"}


@pytest.mark.slow
def test_the_plan_s_defaults_are_the_trainers() -> None:
    """And every shipped recipe is one its trainer accepts."""
    pytest.importorskip("torch")
    import importlib.resources

    from cpt_bench.plugins import builtin, resolve
    from cpt_bench.trainers import rft
    from cpt_bench.trainers.sft import SFT

    for key, value in p.Settings().model_dump().items():
        fields = {**SFT.Config.model_fields, **rft.RFT.Config.model_fields}
        assert fields[key].get_default(call_default_factory=True) == value, key
    folder = importlib.resources.files("cpt_bench.trainers") / "recipes/cpt7"
    names = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir())
    # These are no trainers of their own: rft and sft, on one GPU.
    variants = {"rft-lora": "rft", "rft-1gpu": "rft", "sft-1gpu": "sft"}
    assert names == sorted([*builtin("trainers"), *variants])
    for name in names:
        trainer = resolve("trainers", variants.get(name, name)).value
        made: Any = trainer.Config.model_validate(named(f"cpt7/{name}"))
        # A model of 7B is split over GPUs, or trained by adapters on one; what acts on whole
        # weights needs a GPU that holds them with their optimiser.
        whole = name in ("rft-cpo", "rft-redo", "rft-fire", "rft-muon")
        assert (made.adapters() is None) == (set(made.sharded()) == {"deepspeed"} or whole)
        assert not whole or "141 GB" in (folder / f"{name}.yaml").read_text()
