"""RFT whose rollouts a colocated vLLM writes: every form of it, and its faults are never silent."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from cpt_bench.suite import load_suite
from tests.support import places
from tests.support.families import qwen3_text
from tests.support.peers import PLACES, model_of, writing

ROOT = Path(__file__).parents[2]
CASES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "rloo": {"set": {"algorithm": "rloo"}},
    "remax": {"set": {"algorithm": "remax"}},
    "kl": {"set": {"kl": 0.05}},
    "lora": {"set": {"lora_rank": 4}},
    "rapo": {"trainer": "rapo", "stage": {"index": 2}},
    "rif": {"trainer": "rif-rft", "set": {"filter_rollouts": 2}},
    "several updates": {"set": {"updates_per_generation": 2, "max_steps": 4}},
    "a beginning": {"set": {"begin": "reasoning"}},
    "words alone": {"task": "science", "samples": 8},
    "a nucleus": {"set": {"top_p": 0.8}},
}

ONE = {"prompts_per_step": 1, "rollouts": 8, "max_steps": 1, "self_check": 0}
SEEDS = {
    f"seed {name}": {"samples": 1, "set": ONE, "stage": {"seed": seed}}
    for name, seed in (("7", 7), ("8", 8), ("7 again", 7))
}

FAULTS = {
    ("same_pictures", 4): "disagree after the first step: log-probabilities of",
    ("never_synced", 4): "disagree after the first step: log-probabilities of",
    ("own_dtype", 4): "disagree before the first step: log-probabilities of",
    ("expanded_twice", 4): "vLLM reads another prompt than the trainer",
    ("expanded_twice", 0): "vLLM reads another prompt than the trainer",
}


@pytest.fixture(scope="module")
def told(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, Any]]:
    """What came of each case; all in one process, since importing vLLM takes longer than a stage."""
    folder = tmp_path_factory.mktemp("rft")
    # It never ends a reply, and has room for 17 tokens of one.
    short = model_of(base, folder / "short", max_position_embeddings=48)
    odd = model_of(base, folder / "odd")
    config = json.loads((odd / "config.json").read_text()) | {"architectures": ["NoSuchModel"]}
    (odd / "config.json").write_text(json.dumps(config))
    cases: dict[Any, dict[str, Any]] = {**CASES, **SEEDS}
    for fault, check in FAULTS:
        settings = {"self_check": check, "learning_rate": 3e-3}
        cases[fault, check] = {"fault": fault, "set": settings}
    cases |= {"short": {"policy": str(short)}, "odd": {"policy": str(odd)}}
    cases["warm"] = {"set": {"top_p": 0.8, "temperature": 1.3}}
    image = str(writing(base, folder / "image"))
    for name in ("grpo", "rloo", "remax", "kl"):
        cases["image", name] = {**CASES[name], "policy": image}
    cases["image", "warm"] = {**cases["warm"], "policy": image}
    many = {**ONE, "rollouts": 512}
    cases["draws"] = {"policy": image, "samples": 1, "set": many}
    qwen3_text(folder / "text")
    words = {"suite": str(places.WORDS), "task": load_suite(places.WORDS).sequence[-1]}
    cases["text"] = {"policy": str(folder / "text"), **words}
    file = folder / "cases.json"
    file.write_text(json.dumps([*cases.values()]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.drive_rft", str(file)], cwd=ROOT, text=True,
        capture_output=True, timeout=500, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(cases, json.loads(file.read_text()), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_it_trains_on_what_vllm_wrote(case: str, told: dict[Any, dict[str, Any]]) -> None:
    found = told[case]
    assert "error" not in found
    rows = [row for row in found["rows"] if row["step"]]
    assert [row["step"] for row in rows] == list(range(1, rows[0]["steps"] + 1))
    assert found["dtypes"] == ["torch.float32"]
    first = rows[0]
    # vLLM and the trainer compute in float32: what they differ by is the order of sums.
    assert first["self_check"] < 1e-5 and first["self_check_most"] < 1e-4
    assert first["self_check_after_sync"] < 1e-5 and first["self_check_after_sync_most"] < 1e-4
    for row in rows:
        ratio = row.get("sampling/importance_sampling_ratio/mean", 1.0)  # RLOO has none
        assert ratio == pytest.approx(1, abs=0.02 if case == "several updates" else 1e-4)


def test_replies_are_weighed_by_the_policy_s_probabilities_or_not_at_all(
    told: dict[Any, dict[str, Any]],
) -> None:
    """At another temperature vLLM only gives probabilities within the nucleus, from 0.6 of ours."""
    ratio = "sampling/importance_sampling_ratio/mean"
    weighed = {
        name: any(ratio in row for row in told[name]["rows"]) for name in ("a nucleus", "warm")
    }
    assert weighed == {"a nucleus": True, "warm": False}


def test_remax_s_baseline_is_greedy(told: dict[Any, dict[str, Any]]) -> None:
    """The four rows of a prompt are drawn apart, and then answered alike."""
    checked, drawn, greedy = told["remax"]["written"][:3]
    assert len(checked) == 4 and len(drawn) == len(greedy) == 16

    def alike(replies: list[Any]) -> list[bool]:
        groups = [replies[i : i + 4] for i in range(0, 16, 4)]
        return [all(reply == group[0] for reply in group) for group in groups]

    assert all(alike(greedy)) and not all(alike(drawn))


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "remax", "kl", "warm"])
def test_a_rollout_has_no_image_token(
    algorithm: str, told: dict[Any, dict[str, Any]], base: Path
) -> None:
    """The policy likes to write one, and what stands around pictures, which has no effect."""
    from cpt_bench.models.checkpoint import load_processor

    found = told["image", algorithm]
    assert "error" not in found
    image, *others = load_processor(base).tokenizer.convert_tokens_to_ids([*PLACES])
    written = {token for replies in found["written"] for reply in replies for token in reply}
    assert image not in written and written >= {*others}
    first = next(row for row in found["rows"] if row["step"])
    assert first["self_check"] < 1e-5 and first["self_check_after_sync"] < 1e-5
    ratio = first.get("sampling/importance_sampling_ratio/mean", 1.0)
    assert ratio == pytest.approx(1, abs=1e-4)


def test_rollouts_are_drawn_from_the_policy_s_probabilities(
    told: dict[Any, dict[str, Any]],
) -> None:
    """The first token of 512 rollouts of one prompt, of which one in five would be the image token."""
    (written,), (logprobs,) = told["draws"]["written"], told["draws"]["logprobs"]
    chance = {r[0]: math.exp(p[0]) for r, p in zip(written, logprobs, strict=True)}
    times = Counter(reply[0] for reply in written)
    total = sum(chance.values())
    assert len(times) > 3 and total == pytest.approx(0.8, abs=0.05)
    for token, p in ((token, p / total) for token, p in chance.items()):
        expected, sigma = len(written) * p, math.sqrt(len(written) * p * (1 - p))
        assert abs(times[token] - expected) < 4.5 * sigma + 1, (token, times[token], expected)


@pytest.mark.parametrize("case", ["warm", "text"])
def test_other_draws_other_models(case: str, told: dict[Any, dict[str, Any]]) -> None:
    """The self-check compares what the engine computes, within the nucleus or not."""
    found = told[case]
    assert "error" not in found
    first = next(row for row in found["rows"] if row["step"])
    assert first["self_check"] < 1e-5 and first["self_check_after_sync"] < 1e-5


def test_rollouts_follow_the_seed(told: dict[Any, dict[str, Any]]) -> None:
    """Of one prompt, so that nothing but the draws can differ."""
    first, other, again = (told[case]["written"] for case in SEEDS)
    assert first == again != other


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_stops_the_stage(fault: Any, told: dict[Any, dict[str, Any]]) -> None:
    said = told[fault]["error"]
    assert FAULTS[fault] in said and len(said.splitlines()) == 1


def test_what_cannot_be_is_one_line(told: dict[Any, dict[str, Any]]) -> None:
    """A rollout that vLLM's own limit ends; a policy that it cannot open."""
    cut, refused = told["short"]["error"], told["odd"]["error"]
    assert re.search(r"vLLM ended a rollout after 1\d of 20 tokens.* Lower max_new_tokens", cut)
    assert "vLLM could not open the policy" in refused
    assert len(cut.splitlines()) == len(refused.splitlines()) == 1


def test_where_vllm_and_the_trainer_compute(tmp_path: Path) -> None:
    from cpt_bench.errors import CptBenchError
    from cpt_bench.trainers.generation import vllm_generation
    from cpt_bench.trainers.rft import RFT
    from tests.support.stages import make_stage

    stage = make_stage("counting", tmp_path, tmp_path / "stage")
    for settings, complaint in (
        ({"device": "cuda"}, "computes on a CPU"),
        ({"device": "cpu", "vllm_mode": "server"}, "from a GPU alone"),
    ):
        config = RFT.Config(learning_rate=1e-3, use_vllm=True, **settings)
        with pytest.raises(CptBenchError, match=complaint), vllm_generation(config, stage):
            pass
