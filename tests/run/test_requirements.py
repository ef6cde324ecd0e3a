"""What a run needs is asked for before it starts, not hours later when it is first used."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from cpt_bench.errors import CptBenchError
from cpt_bench.run import requirements
from cpt_bench.run.requirements import require_graders, require_limits, require_method
from cpt_bench.stage.method import Asked, Method, describe
from cpt_bench.stage.recipes import recipes, smaller
from cpt_bench.suite import open_suite
from cpt_bench.trainer import Needs
from tests.support.commands import Cli
from tests.support.picture_families import maker

EIGHT = 'torchrun --nproc_per_node 8'  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "recipe", "settings", "needs"),
    [
        ("sft", None, (), Needs(("deepspeed",), gpu=True, launch=True, pixels=(None, 4194304))),
        ("rft", None, (), Needs(("deepspeed", "vllm"), gpu=True, launch=True, pixels=(200704, 1003520))),
        ("sft", "cpt7/sft-lora", (), Needs(("peft",), gpu=True, pixels=(None, 1003520))),
        ("sft", None, ("sharding=fsdp", "attention=flash_attention_2", "max_pixels=null"), Needs(("flash_attn",), gpu=True, launch=True)),
        ("sft", None, ("sharding=none", "device=cpu", "max_pixels=null"), Needs()),
    ],
)  # fmt: skip
def test_a_method_states_its_needs(
    trainer: str, recipe: str | None, settings: tuple[str, ...], needs: Needs
) -> None:
    assert describe(Asked(trainer, "cpt7", settings, (), recipe)).needs == needs


def test_no_recipe_needs_what_no_extra_brings() -> None:
    for spec in recipes():
        suite, _, name = spec.partition("/")
        trainer = (
            name.removesuffix("-lora")
            .removesuffix("-1gpu")
            .removesuffix("-low")
            .removesuffix("-direct")
        )
        for package in describe(Asked(trainer, suite, (), (), spec)).needs.packages:
            assert package in requirements.EXTRAS, spec


def method(**needs: Any) -> Method:
    return Method("sft", {"spec": "sft"}, {}, needs=Needs(**needs))


@pytest.mark.parametrize(
    ("needs", "launch", "gpus", "line"),
    [
        ({"packages": ("deepspeed",)}, EIGHT, "01234567",
         r"trainer sft: needs deepspeed, which is not installed. Install it with: pip install 'cptbench\[deepspeed\]'"),
        ({"gpu": True}, None, "", r"train on a GPU, and none is visible here. Run it where one is, or set device=cpu"),
        ({"gpu": True}, EIGHT, "0123", r"8 processes train, each on a GPU of its own, and 4 are visible"),
        ({"gpu": True, "launch": True}, None, "01", r"split the model over several processes, and one trains. Give --launch"),
    ],
)  # fmt: skip
def test_what_is_missing_is_one_line(
    needs: dict[str, Any], launch: str | None, gpus: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    with pytest.raises(CptBenchError, match=line):
        require_method(method(**needs), launch, tuple(gpus))


def test_recipes_for_one_process_are_named() -> None:
    """Those that there are for the suite; which one fits is a matter of the base's size."""
    fewer = smaller("cpt7", "rft")
    assert fewer == ["cpt7/rft-1gpu", "cpt7/rft-lora"] and smaller("nano", "rft") == []
    line = r'nproc_per_node N", or --recipe cpt7/rft-1gpu or cpt7/rft-lora \(cptbench plan'
    with pytest.raises(CptBenchError, match=line):
        require_method(method(launch=True), None, (), fewer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "pixels", "line"),
    [
        ("Gemma 3", (None, 4096), "max_pixels=4096 cannot be applied: Gemma3ImageProcessor"),
        ("Idefics3", (4096, 9999), "min_pixels=4096 cannot be applied"),
        ("Qwen3", (None, 4096), "max_pixels=4096 cannot be applied: the model reads no pictures"),
    ],
)
def test_limits_on_pictures_are_tried_on_the_base_before_it_is_asked_anything(
    base: str, pixels: Any, line: str, tmp_path: Path
) -> None:
    """They were found out when the first stage was trained, after hours of evaluation."""
    place = maker(tmp_path)(base)
    with pytest.raises(CptBenchError, match=line):
        require_limits(method(pixels=pixels), place)
    require_limits(method(), place)


def test_nothing_is_missing() -> None:
    require_method(method(packages=("trl",), gpu=True, launch=True), EIGHT, tuple("01234567"))
    require_method(method(), None, ())


@pytest.mark.parametrize(
    ("suite", "line"),
    [("cpt7", "grading geometry3k: needs math_verify"), ("cpt7@paper", "grading scienceqa: needs mathruler")],
)  # fmt: skip
def test_a_grader_s_package_is_asked_for(
    suite: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_graders(open_suite("nano"))
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    with pytest.raises(CptBenchError, match=rf"{line}, which is not installed.*cptbench\[grade\]"):
        require_graders(open_suite(suite))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="it is installed")
def test_a_run_without_deepspeed_ends_before_the_base_is_fetched_or_asked(
    cli: Cli, cpt7: Any, cpt7_folder: Path, cpt7_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(cpt7_data))
    done = cli(
        "run",
        "--suite",
        cpt7_folder,
        "--trainer",
        "sft",
        "--base",
        "Org/not-fetched",
        "--launch",
        EIGHT,
    )
    assert done.returncode == 2 and "trainer sft: needs deepspeed" in done.stderr
