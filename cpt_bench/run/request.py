"""From what is asked for, as plain data, to a plan.

The one place where a plan is put together: the Python functions, every command and a sweep's runs
come through here. Which GPUs train and which answer, what is checked before anything starts, what
is assumed where nothing was given, and how a run's folder is called are decided here.
"""

from __future__ import annotations

import glob
import itertools
import math
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.engines.choice import EngineChoice, asking, choose
from cpt_bench.environment import require_training
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.hub.names import parse
from cpt_bench.models.start import start_of
from cpt_bench.plugins import default
from cpt_bench.results.schema import read_run
from cpt_bench.run.lanes import find_stages
from cpt_bench.run.naming import run_name
from cpt_bench.run.plan import Plan
from cpt_bench.run.requirements import (
    require_graders,
    require_limits,
    require_method,
    require_tools,
)
from cpt_bench.sources import require_prepared
from cpt_bench.sources.apart import require_apart
from cpt_bench.stage.command import PREFIX
from cpt_bench.stage.method import Asked, Method, find_method
from cpt_bench.stage.recipes import smaller
from cpt_bench.suite import Suite, open_suite
from cpt_bench.suite.reading import absolute_spec
from cpt_bench.suite.variants import compose
from cpt_bench.trainer import Budget
from cpt_bench.worker import devices

KEEP = ("all", "last", "none")
"""Which checkpoints may stay on disk."""

RUNS = Path("runs")
"""Where run folders are made when no folder was given."""


class Elsewhere(NamedTuple):
    """A method that was trained elsewhere; exactly one of ``model``, ``stages``, ``endpoint``.

    Attributes:
        model: One checkpoint, for its zero-shot row: a folder, or ``org/name[@revision]``.
        stages: One checkpoint a stage: a glob pattern, or the folders in training order.
        endpoint: The address of an OpenAI-compatible server.
        served: The name by which the server serves the model.
        name: The method's name; by default that of the model or of the checkpoints' folder.
    """

    model: str | None = None
    stages: str | tuple[Path, ...] | None = None
    endpoint: str | None = None
    served: str | None = None
    name: str | None = None


class Request(NamedTuple):
    """What is asked for, checked by nobody yet.

    Attributes:
        trainer: The trainer's spec; empty where a method was trained elsewhere.
        suite: The suite's name or folder; empty is the one that is meant to be tried.
        tier: The suite's size; None is its default.
        protocol: The evaluation protocol, ``NAME`` or ``NAME.STYLE``; None is the suite's default.
        order: The task order; None is the suite's.
        seed: Seeds every stage.
        settings: The trainer's settings, each ``key=value``.
        recipe: A recipe in place of the suite's own, by name or as a YAML file.
        privileges: What a command uses beyond its task, each ``key=value``.
        base: The checkpoint to start from: a folder, or ``org/name[@revision]`` on the hub; None
            is the suite's base model.
        limit: Only the first so many samples of each split.
        budget: Training prompts that a stage may draw.
        stage_timeout: Seconds after which a stage's training is ended.
        memory_limit: Memory of a training process in GiB at which it is ended.
        general: Benchmarks of other harnesses to measure too.
        engine: What answers.
        engine_settings: The engine's settings, each ``key=value``.
        launch: ``torchrun …`` or ``accelerate launch …``: train on several processes.
        threads: Threads of each process.
        overlap: Evaluate a stage while the next one trains; None: where the machine allows it.
        save_every: Steps after which a stage saves a state to go on from after an interruption.
        keep: Which checkpoints stay: ``all``, ``last`` or ``none``.
        gpus: The GPUs to use, as ``CUDA_VISIBLE_DEVICES`` names them; None: all visible ones.
        out: The run folder; None: a folder in ``runs`` named after the request.
        elsewhere: In place of a trainer: where the trained checkpoints are.
    """

    trainer: str = ""
    suite: str = ""
    tier: str | None = None
    protocol: str | None = None
    order: tuple[str, ...] | None = None
    seed: int = 0
    settings: tuple[str, ...] = ()
    recipe: str | None = None
    privileges: tuple[str, ...] = ()
    base: str | None = None
    limit: int | None = None
    budget: int | None = None
    stage_timeout: float | None = None
    memory_limit: float | None = None
    general: tuple[str, ...] = ()
    engine: str = EngineChoice().name
    engine_settings: tuple[str, ...] = ()
    launch: str | None = None
    threads: int = 1
    overlap: bool | None = None
    keep: str = "all"
    save_every: int | None = None
    gpus: tuple[str, ...] | None = None
    out: Path | None = None
    elsewhere: Elsewhere | None = None


def plan_of(request: Request, method: Method | None = None) -> Plan:
    """The plan of a request, with everything checked that can be checked before it starts.

    Args:
        request: What is asked for.
        method: The trainer under its settings, for those who looked at it already. Data sets and
            packages that the run needs are then not asked for either: it may run on another
            machine.

    Raises:
        CptBenchError: Something that was asked for is not there, is not allowed, or is not
            prepared on this machine.
    """
    _check_values(request)
    elsewhere = request.elsewhere
    if elsewhere is not None:
        _check_elsewhere(request, elsewhere)
    if method is None and (elsewhere is None or elsewhere.endpoint is None):
        require_training()
    spec = compose(request.suite or default("suites", "run"), request.protocol, request.tier)
    spec = absolute_spec(spec)  # scored and compared from other folders too
    suite = open_suite(spec)
    for name in (*suite.sequence, *suite.general):
        matcher_of(suite.card(name))  # a mistyped grader is found before anything is trained
    if request.order is not None:
        suite = suite.reordered(request.order)
    given = {}
    if elsewhere is not None and elsewhere.stages is not None:
        given = find_stages(elsewhere.stages, suite)
    if method is None:
        require_prepared(suite, spec)
        require_apart(suite, lambda line: _tell(f"note: {line}"))
        require_tools(request.trainer, request.launch, request.general)
        require_graders(suite)
    overlap, seen, engine = _computers(request)
    found = method or _method(request, suite)
    model = elsewhere.model if elsewhere is not None else None
    served = elsewhere is not None and elsewhere.endpoint is not None
    if method is None and elsewhere is None:
        recipes = smaller(suite.recipe_folder, found.name)
        require_method(found, request.launch, devices.visible(), recipes)
    # Last, because a model that is not here is fetched, which may take hours.
    start = start_of(suite, request.base or model, _tell, fetch=method is None and not served)
    if method is None and elsewhere is None:
        require_limits(found, start.folder)
    plan = Plan(
        suite_spec=spec,
        suite=suite,
        method=found,
        seed=request.seed,
        limit=request.limit,
        threads=request.threads,
        overlap=overlap,
        keep=request.keep,
        base=start.folder,
        budget=Budget(samples=request.budget, seconds=request.stage_timeout),
        memory_mib=request.memory_limit * 1024 if request.memory_limit is not None else None,
        launch=request.launch,
        general=request.general,
        engine=engine,
        devices=seen,
        start=start,
        save_every=request.save_every,
    )
    if elsewhere is None:
        return plan
    plan = plan._replace(lane=_lane(elsewhere), given=given)
    if elsewhere.endpoint and elsewhere.served:
        folder = folder_of(request, plan)
        server = asking(request.engine_settings)
        asked = _server(folder, elsewhere.endpoint, elsewhere.served, server.pop("extra", None))
        plan = plan._replace(endpoint=asked, server=server)
    return plan


def folder_of(request: Request, plan: Plan) -> Path:
    """The run folder of a request: the one it names, or one in ``runs`` named after it."""
    if request.out is not None:
        return request.out
    if request.elsewhere is not None:
        return RUNS / f"{plan.suite.label}-{plan.method.name}-seed{plan.seed}"
    recipe = [f"recipe={request.recipe}"] if request.recipe else []
    return RUNS / run_name(plan, [*request.settings, *recipe])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -------------------------------------------------------------------------------------- checks


def _check_values(request: Request) -> None:
    """Refuse numbers that mean nothing, under the names that the options have."""
    for option, most in (
        ("--stage-timeout", request.stage_timeout),
        ("--memory-limit", request.memory_limit),
    ):
        if most is not None and not 0 < most < math.inf:
            what = f"{most} is not a limit"
            raise CptBenchError(what, where=option, todo="Leave it out for none")
    for option, value, least in (
        ("--seed", request.seed, 0),
        ("--threads", request.threads, 1),
        ("--limit", request.limit, 1),
        ("--budget", request.budget, 1),
        ("--save-every", request.save_every, 1),
    ):
        if value is not None and (type(value) is not int or value < least):  # True is no number
            what = f"{value!r} is not a whole number of at least {least}"
            raise CptBenchError(what, where=option)
    if request.keep not in KEEP:
        what = f"no such value: {request.keep!r}"
        raise CptBenchError(what, where="--keep", todo=f"There is: {', '.join(KEEP)}")


def _check_elsewhere(request: Request, elsewhere: Elsewhere) -> None:
    if [elsewhere.model, elsewhere.stages, elsewhere.endpoint].count(None) != 2:
        raise CptBenchError(
            "give one MODEL, or --stages, or --endpoint", todo="cptbench eval --help shows them"
        )
    if request.base is not None and elsewhere.stages is None:
        raise CptBenchError(
            "--base goes with --stages: it is the model before stage 1",
            todo="One MODEL, or a server's, is a row of its own: leave --base out",
        )
    if (elsewhere.endpoint is None) != (elsewhere.served is None):
        raise CptBenchError("--endpoint and --model go together")
    chosen = request.engine not in (EngineChoice().name, "endpoint")
    if elsewhere.endpoint is not None and chosen:
        raise CptBenchError("the server answers", where="--endpoint", todo="Leave --engine out")


# ------------------------------------------------------------------------------------- devices


def _computers(request: Request) -> tuple[bool, devices.Devices, EngineChoice]:
    """Whether to evaluate during training, which GPUs each of the two sees, and what answers."""
    served = request.elsewhere is not None and request.elsewhere.endpoint is not None
    engine = EngineChoice() if served else choose(request.engine, request.engine_settings)
    gpus = devices.visible() if request.gpus is None else request.gpus
    overlap, seen = devices.divide(
        gpus, _trained_on(request), request.overlap, os.cpu_count() or 1, engine.gpus
    )
    if request.elsewhere is not None:
        # Nothing trains: one engine may stay for all stages.
        return overlap, seen, engine._replace(kept=bool(gpus) or engine.name == "vllm")
    # An engine that waits for the next checkpoint keeps its GPU: training must not need that one.
    kept = seen.evaluation is not None or (engine.name == "vllm" and not gpus)
    return overlap, seen, engine._replace(kept=kept)


def _trained_on(request: Request) -> int | None:
    """How many processes train, each on a GPU; None: as many as there are GPUs."""
    if request.elsewhere is not None:
        return 0
    # A command may start as many processes as it likes; with --overlap its author vouches for one.
    if request.trainer.startswith(PREFIX) and not request.overlap:
        return None
    return devices.processes(request.launch)


# ------------------------------------------------------------------------------------- methods


def _method(request: Request, suite: Suite) -> Method:
    if request.elsewhere is not None:
        name = _title(request.elsewhere)
        return Method(name, {"spec": f"{_lane(request.elsewhere)}:{name}"}, {})
    return find_method(
        Asked(
            request.trainer,
            suite.recipe_folder,
            request.settings,
            request.privileges,
            request.recipe,
            suite.folder,
        )
    )


def _lane(elsewhere: Elsewhere) -> str:
    return "endpoint" if elsewhere.endpoint else "checkpoints"


def _title(elsewhere: Elsewhere) -> str:
    """What a method that was trained elsewhere is called."""
    if elsewhere.name:
        return elsewhere.name
    if served := (elsewhere.served or "").rpartition("/")[2]:
        return served
    if elsewhere.model is not None:
        hub = None if Path(elsewhere.model).is_dir() else parse(elsewhere.model)
        return Path(hub.id if hub else elsewhere.model).name
    return title_of_stages(elsewhere.stages or "")


def title_of_stages(stages: str | Sequence[Path]) -> str:
    """The name of the folder that holds the checkpoints, or of the run folder that they are in."""
    if isinstance(stages, str):
        above = Path(stages).parent.parts
        folder = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), above))
    else:
        folder = stages[0].parent
    folder = folder.resolve()
    return folder.parent.name if folder.name == "stages" else folder.name


def _server(folder: Path, url: str, model: str, extra: Any) -> dict[str, Any]:
    """The server's address and model, with the nonce of this evaluation: a new one, or the old.

    ``extra`` are fields that are added to each request.

    A server's weights cannot be known; the nonce stands for them in the ledger's keys.
    """
    asked = {"url": url, "model": model, **({"extra": extra} if extra else {})}
    if (folder / "run.json").exists():
        known = read_run(folder).get("endpoint") or {}
        if {key: value for key, value in known.items() if key != "nonce"} == asked:
            return dict(known)
    return {**asked, "nonce": uuid.uuid4().hex}
