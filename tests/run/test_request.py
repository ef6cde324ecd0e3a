"""One function makes every plan: who gets which GPUs, what is refused, and that old runs are found again."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import code_digest
from cpt_bench.run.request import Elsewhere, Request, folder_of, plan_of
from cpt_bench.stage.method import Method
from cpt_bench.suite import open_suite
from cpt_bench.sweep.jobs import jobs_of
from cpt_bench.sweep.spec import read_sweep
from cpt_bench.trainer import Privileges
from cpt_bench.worker.devices import Devices
from tests.support.places import ROOT, TINY

PACKAGE = ROOT / "cpt_bench"
SFT = Method("sft", {"spec": "sft"}, {"learning_rate": 1e-3})
ALL = Devices()


def test_a_plan_is_put_together_in_one_place() -> None:
    calls = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "Plan"
            ):
                calls[file.relative_to(PACKAGE).as_posix()] = node.lineno
    assert list(calls) == ["run/request.py"]


@pytest.mark.parametrize(
    "name", ["run", "evaluate", "trainer", "compare", "options", "progress", "tables"]
)  # fmt: skip
def test_the_commands_hold_no_rule(name: str) -> None:
    """They import nothing that decides: no plan, no engine, no device, no trainer."""
    tree = ast.parse((PACKAGE / f"cli/{name}.py").read_text(encoding="utf-8"))
    imported = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    rooms = {module.split(".")[1] for module in imported if module.startswith("cpt_bench.")}
    assert rooms <= {"cli", "errors", "files", "plugins", "report", "run", "scaffold", "stage"}
    allowed = {"cpt_bench.run.lanes", "cpt_bench.stage.document"}  # export prompts, trainer schema
    assert {m for m in imported if m.startswith(("cpt_bench.run", "cpt_bench.stage"))} <= allowed


# ------------------------------------------------------------------------- what runs are known by


def identity_of(request: Request, method: Method = SFT) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(plan_of(request, method).choices()))
    return found


def test_what_a_run_is_known_by() -> None:
    """All keys and values of run.json that a plan decides, written out: another one orphans every run there is."""
    suite = open_suite("nano")
    plain = {
        "suite": {
            "spec": "nano", "name": "nano", "version": suite.version,
            "fingerprint": suite.fingerprint(),
        },
        "trainer": "sft",
        "origin": {"spec": "sft"},
        "config": {"learning_rate": 0.001},
        "privileges": {
            "replay_samples_per_task": 0, "earlier_checkpoints": False, "joint": False,
            "extra_parameters": 0, "task_identity": False, "general_data": False,
        },
        "budget": {"samples": None},
        "lane": "trainer",
        "seed": 0,
        "order": ["science", "text", "lowvision", "scene", "geometry", "pathology", "counting"],
        "limit": None,
        "threads": 1,
    }  # fmt: skip
    assert identity_of(Request(trainer="sft")) == plain
    backwards = tuple(reversed(suite.sequence))
    asked = Request(
        trainer="sft", order=backwards, seed=3, limit=9, budget=40, threads=2, general=("lm-eval:x",),
        launch="torchrun --nproc_per_node 2", engine_settings=("batch_size=4",),
        stage_timeout=9.0, memory_limit=2.0, keep="none", overlap=False, out=Path("elsewhere"),
    )  # fmt: skip
    assert identity_of(asked) == {
        **plain, "seed": 3, "limit": 9, "threads": 2, "budget": {"samples": 40},
        "order": list(backwards), "general": ["lm-eval:x"], "launch": "torchrun --nproc_per_node 2",
        "engine": {"name": "transformers", "settings": {"batch_size": 4}},
    }  # fmt: skip
    paper = identity_of(Request(trainer="sft", suite="cpt7", protocol="paper.direct", tier="mini"))
    assert paper["suite"]["spec"] == "cpt7@paper.direct+mini"


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "runs"), [("docs/study", 185), ("docs/gym-study", 2)])
def test_the_stored_runs_of_a_study_are_those_its_file_asks_for_today(
    folder: str, runs: int
) -> None:
    """Runs of versions before this one: their names, settings, seeds and suite are made again."""
    pytest.importorskip("torch")
    study = PACKAGE.parent / folder
    files = [file for name in ("sweep", "sister") if (file := study / f"{name}.yaml").is_file()]
    jobs = {
        job.name: job for file in files for job in jobs_of(read_sweep(file), Path("runs"), file)
    }
    stored = sorted((study / "results").glob("*.jsonl.zst"))
    assert len(stored) >= runs
    for file in stored:
        with file.open("rb") as raw:
            text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), "utf-8")
            record = json.loads(text.readline())
        made = json.loads(json.dumps(jobs[file.name.removesuffix(".jsonl.zst")].plan.choices()))
        for key in ("trainer", "seed", "order", "threads"):
            assert made[key] == record[key], (file.name, key)
        # Some settings came after some of the runs.
        assert record["config"].items() <= made["config"].items(), file.name
        assert made["suite"]["fingerprint"] == record["suite"]["fingerprint"]


def test_folders_are_called_as_before() -> None:
    def name(request: Request, method: Method = SFT) -> str:
        return str(folder_of(request, plan_of(request, method)))

    assert name(Request(trainer="sft")) == "runs/nano-sft-seed0"
    assert name(Request(trainer="sft", limit=40, threads=2)) == "runs/nano-sft-seed0-63ec8f"
    settings = ("algorithm=rloo", "learning_rate=1e-4")
    asked = Request(trainer="rft", seed=3, settings=settings)
    rft = Method("rft", {"spec": "rft"}, {})
    assert name(asked, rft) == "runs/nano-rft-seed3-algorithm_rloo-learning_rate_1e-4"
    recipe = Request(trainer="sft", recipe="nano/sft-low")
    assert name(recipe) == "runs/nano-sft-seed0-recipe_nano_sft-low"
    assert name(Request(trainer="sft", out=Path("x/y"))) == "x/y"


# --------------------------------------------------------------------------------- who computes where

FOUR = ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("request_", "overlap", "devices", "kept"),
    [
        (Request(trainer="sft", gpus=FOUR), True, Devices(FOUR[:3], ("3",)), True),
        (Request(trainer="sft", gpus=FOUR, overlap=False), False, ALL, False),
        (Request(trainer="sft", gpus=("0",)), False, ALL, False),
        (Request(trainer="sft", gpus=FOUR, launch="torchrun --nproc_per_node 4"), False, ALL, False),
        (Request(trainer="sft", gpus=FOUR, launch="torchrun --nproc_per_node 3"), True, Devices(FOUR[:3], ("3",)), True),
        # A command may use every GPU there is, unless its author asks for overlap.
        (Request(trainer="cmd:sh x", gpus=FOUR), False, ALL, False),
        (Request(trainer="cmd:sh x", gpus=FOUR, overlap=True), True, Devices(FOUR[:3], ("3",)), True),
        # Nothing trains: an engine on a GPU is kept for all stages.
        (Request(gpus=FOUR, elsewhere=Elsewhere(model="m")), True, Devices(FOUR[:3], ("3",)), True),
        (Request(gpus=("0",), elsewhere=Elsewhere(model="m")), True, Devices((), ("0",)), True),
        (Request(gpus=(), overlap=False, elsewhere=Elsewhere(model="m")), False, ALL, False),
        (Request(trainer="sft", gpus=(), overlap=True), True, ALL, False),
    ],
)  # fmt: skip
def test_training_and_answering_never_share_a_gpu(
    request_: Request, overlap: bool, devices: Devices, kept: bool
) -> None:
    plan = plan_of(request_, SFT)
    assert (plan.overlap, plan.devices, plan.engine.kept) == (overlap, devices, kept)


def test_one_core_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, overlap in ((1, False), (2, True)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert plan_of(Request(trainer="sft", gpus=()), SFT).overlap is overlap


# ----------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"limit": 0}, "--limit: 0 is not a whole number of at least 1"),
        ({"limit": 2.5}, "--limit: 2.5 is not a whole number of at least 1"),
        ({"budget": -1}, "--budget: -1 is not a whole number of at least 1"),
        ({"threads": 0}, "--threads: 0 is not a whole number of at least 1"),
        ({"seed": -1}, "--seed: -1 is not a whole number of at least 0"),
        ({"seed": True}, "--seed: True is not a whole number of at least 0"),
        ({"keep": "some"}, "--keep: no such value: 'some'. There is: all, last, none"),
        ({"stage_timeout": 0.0}, "--stage-timeout: 0.0 is not a limit"),
        ({"memory_limit": float("nan")}, "--memory-limit: nan is not a limit"),
        ({"suite": "nanu"}, "no suite is called 'nanu'. Did you mean 'nano'?"),
        ({"order": ("text",)}, "is not a permutation of"),
        ({"engine": "vlm"}, "no engine is called 'vlm'. Did you mean 'vllm'?"),
        ({"elsewhere": Elsewhere()}, "give one MODEL, or --stages, or --endpoint"),
        ({"elsewhere": Elsewhere(model="m", stages="s")}, "give one MODEL, or --stages"),
        ({"elsewhere": Elsewhere(endpoint="http://x")}, "--endpoint and --model go together"),
        ({"elsewhere": Elsewhere(model="m", served="x")}, "--endpoint and --model go together"),
        ({"elsewhere": Elsewhere(model="m"), "base": "b"}, "--base goes with --stages"),
        ({"elsewhere": Elsewhere(endpoint="u", served="m"), "engine": "vllm"}, "the server answers"),
        ({"elsewhere": Elsewhere(stages="none/*")}, "0 checkpoints match, nano has 7 stages"),
        ({"elsewhere": Elsewhere(stages=(Path("a"), Path("b")))}, "0 checkpoints match, nano has 7"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(CptBenchError) as caught:
        plan_of(Request(trainer="sft")._replace(**changes), SFT)
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_given_as_stages(tmp_path: Path) -> None:
    suite = open_suite(str(TINY))
    for name in ("s-2", "s-10", "s-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(
            (8).to_bytes(8, "little") + b'{      }'
        )  # fmt: skip
    asked = Request(suite=str(TINY), elsewhere=Elsewhere(stages=f"{tmp_path}/s-*"))
    plan = plan_of(asked, SFT)
    assert plan.given is not None
    assert [plan.given[t].name for t in (1, 2, 3)] == ["s-1", "s-2", "s-10"]
    assert plan.lane == "checkpoints" and plan.stages() == [0, 1, 2, 3]
    backwards = tuple(tmp_path / name for name in ("s-10", "s-2", "s-1"))
    plan = plan_of(asked._replace(elsewhere=Elsewhere(stages=backwards)), SFT)
    assert plan.given is not None
    assert [plan.given[t].name for t in (1, 2, 3)] == ["s-10", "s-2", "s-1"]
    assert suite.sequence == plan.suite.sequence


def test_an_endpoint_keeps_the_nonce_of_its_folder(tmp_path: Path) -> None:
    asked = Request(
        out=tmp_path / "e", elsewhere=Elsewhere(endpoint="http://here/v1", served="org/small")
    )
    plan = plan_of(asked)
    assert plan.method.name == "small" and plan.lane == "endpoint" and plan.given == {}
    assert plan.endpoint is not None and len(plan.endpoint["nonce"]) == 32
    (tmp_path / "e").mkdir()
    (tmp_path / "e/run.json").write_text(json.dumps({**plan.choices(), "versions": {}}))
    assert plan_of(asked).endpoint == plan.endpoint
    other = asked._replace(elsewhere=Elsewhere(endpoint="http://there/v1", served="org/small"))
    assert plan_of(other).endpoint != plan.endpoint


def test_a_command_s_privileges_reach_the_plan() -> None:
    asked = Request(
        trainer="cmd:sh x {stage}", privileges=("replay_samples_per_task=4", "joint"), gpus=()
    )
    pytest.importorskip("torch")
    assert plan_of(asked).privileges == Privileges(replay_samples_per_task=4, joint=True)


def test_the_origin_of_a_built_in_trainer_holds_its_code() -> None:
    """So that an edited trainer is another method."""
    pytest.importorskip("torch")
    from cpt_bench.stage.method import Asked, describe

    found = describe(Asked("sft", "nano"))
    assert found.origin["sha256"] == code_digest(PACKAGE.parent / "trainers")
