"""The functions of ``import cpt_bench``: run a method, evaluate one, read and compare runs.

The command line calls these functions: ``cptbench run`` does what :func:`run` does.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.report.progress import Event, Lines
from cpt_bench.report.result import Comparison, Result
from cpt_bench.results import compare as comparing
from cpt_bench.results import load as reading
from cpt_bench.results.load import Run
from cpt_bench.results.schema import read_run
from cpt_bench.run import check as checking
from cpt_bench.run import sequencer
from cpt_bench.run.check import Check
from cpt_bench.run.plan import Plan
from cpt_bench.run.request import RUNS, Elsewhere, Request, folder_of, plan_of
from cpt_bench.run.trackers import Reporter, known
from cpt_bench.settings import assignments
from cpt_bench.stage.defined import spec_of
from cpt_bench.suite import open_suite
from cpt_bench.trainer import Trainer
from cpt_bench.worker.process import warm_up

__all__ = ["check_trainer", "compare", "evaluate", "load", "open_suite", "run"]

Settings = Mapping[str, Any] | Iterable[str]
"""Settings by name, or each as ``key=value``."""

Progress = bool | Callable[[Event], None]
"""True prints a line for every finished stage; a function receives the events themselves."""

WRITTEN = ".trainers"
"""The folder next to the run folders where the classes of notebooks are written."""


def run(
    suite: str | Path,
    trainer: str | type[Trainer],
    *,
    seed: int = 0,
    settings: Settings = (),
    recipe: str | Path | None = None,
    privileges: Settings = (),
    tier: str | None = None,
    protocol: str | None = None,
    order: Sequence[str] | None = None,
    base: str | Path | None = None,
    limit: int | None = None,
    budget: int | None = None,
    stage_timeout: float | None = None,
    memory_limit: float | None = None,
    general: Sequence[str] = (),
    engine: str = Request().engine,
    engine_settings: Settings = (),
    launch: str | None = None,
    threads: int = 1,
    overlap: bool | None = None,
    keep: str = "all",
    save_every: int | None = None,
    out: str | Path | None = None,
    share: bool = True,
    report_to: Sequence[str] = (),
    progress: Progress = True,
) -> Result:
    """Take a model through a suite's tasks, one after the other; measure what it forgot.

    The same call resumes after any interruption; a finished run is only read.

    Args:
        suite: The benchmark: ``nano``, ``cpt7``, or a folder that holds a ``suite.yaml``.
        trainer: The method: a name (``sft``), ``pkg/name``, ``module:Class``, ``./file.py:Class``,
            ``cmd:… {stage}``, or a subclass of :class:`cpt_bench.trainer.Trainer`, even one that
            was defined in a notebook cell.
        seed: Seeds every stage.
        settings: The trainer's settings that differ from the suite's recipe for it.
        recipe: Settings in place of the suite's recipe: ``SUITE/NAME`` or a YAML file.
        privileges: What a ``cmd:`` trainer uses beyond its task; a class declares its own.
        tier: The suite's size, where it has several.
        protocol: The evaluation protocol, where the suite has several.
        order: Another order of the suite's tasks.
        base: The checkpoint to start from: a folder, or ``org/name[@revision]`` on the hub; by
            default the suite's base model.
        limit: Use only this many samples of each split, the first ones; the run is marked as
            limited.
        budget: The most training prompts that a stage may draw.
        stage_timeout: End a stage's training after this many seconds.
        memory_limit: End a training process when it uses this many GiB of memory.
        general: Benchmarks of other harnesses to measure too: ``lm-eval:TASK``.
        engine: The engine that runs the model: ``transformers``, ``vllm``, ``pkg/name`` or
            ``./file.py:Class``.
        engine_settings: The engine's settings.
        launch: Train on several processes: ``torchrun --nproc_per_node 8``.
        threads: Threads of each process; the arithmetic depends on it.
        overlap: Evaluate a stage while the next one trains; by default if the machine can.
        keep: Which checkpoints stay on disk: ``all``, ``last`` or ``none``.
        save_every: Steps after which a stage saves a state, from which it goes on after an
            interruption; by default the stage starts again. It changes no number.
        out: The run folder; by default one in ``runs``, named after the method.
        share: Take finished stages from runs in the same folder.
        report_to: Experiment trackers to feed: ``trackio``, ``wandb``, ``tensorboard``.
        progress: Whether to print a line for every finished stage; or a function that receives
            each event, a dictionary with a ``kind``.

    Returns:
        The run's matrix and metrics, its folder, and the model's answers.

    Raises:
        CptBenchError: Something in the request does not exist, or a stage failed; the stages
            that were finished before stay.

    Example:
        >>> import cpt_bench
        >>> result = cpt_bench.run(
        ...     "nano", "sft", settings={"max_steps": 2}, limit=4, progress=False
        ... )
        >>> result.matrix.tasks[:3]
        ('science', 'text', 'lowvision')
        >>> result.matrix.accuracy.shape  # the base model, and after each of seven tasks
        (8, 7)
        >>> len(result.predictions(stage=7, task="science"))  # limit=4
        4
    """
    trackers = known(report_to)
    parent = Path(out).parent if out is not None else RUNS
    request = Request(
        trainer=spec_of(trainer, parent / WRITTEN),
        suite=str(suite),
        tier=tier,
        protocol=protocol,
        order=None if order is None else tuple(order),
        seed=_number(seed),
        settings=_pairs(settings),
        recipe=None if recipe is None else str(recipe),
        privileges=_pairs(privileges),
        base=None if base is None else str(base),
        limit=_number(limit),
        budget=_number(budget),
        stage_timeout=stage_timeout,
        memory_limit=memory_limit,
        general=tuple(general),
        engine=engine,
        engine_settings=_pairs(engine_settings),
        launch=launch,
        threads=threads,
        overlap=overlap,
        keep=keep,
        save_every=_number(save_every),
        out=None if out is None else Path(out),
    )
    plan = plan_of(request)
    return _carry_out(plan, folder_of(request, plan), share, progress, trackers)


def evaluate(
    model: str | Path | None = None,
    suite: str | Path = "",
    *,
    stages: str | Sequence[str | Path] | None = None,
    endpoint: str | None = None,
    served: str | None = None,
    name: str | None = None,
    order: Sequence[str] | None = None,
    base: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    engine: str = Request().engine,
    engine_settings: Settings = (),
    threads: int = 1,
    out: str | Path | None = None,
    share: bool = True,
    progress: Progress = True,
) -> Result:
    """Evaluate what was trained elsewhere: one model, a checkpoint a stage, or a served model.

    Give one of ``model``, ``stages`` and ``endpoint``. With ``stages`` the result has a whole
    matrix, otherwise its row alone.

    Args:
        model: One checkpoint: a whole model or a PEFT adapter, in a folder or on the hub
            (``org/name[@revision]``).
        suite: The benchmark: ``nano``, ``cpt7``, or a folder that holds a ``suite.yaml``.
        stages: One checkpoint a stage: a glob pattern, or the folders in training order.
        endpoint: The address of an OpenAI-compatible server.
        served: The name by which the server serves the model.
        name: The method's name.
        order: The task order that was trained, where it is not the suite's.
        base: With ``stages``: the model before stage 1, as for :func:`run`; by default the
            suite's base model.
        seed: The seed it was trained with.
        limit: Use only this many samples of each split, the first ones; the run is marked as
            limited.
        engine: The engine that runs the model: ``transformers``, ``vllm``, ``pkg/name`` or
            ``./file.py:Class``.
        engine_settings: The engine's settings.
        threads: Threads of each process.
        out: The run folder; by default one in ``runs``, named after the method.
        share: Take finished evaluations from runs in the same folder.
        progress: As for :func:`run`.

    Returns:
        The result, in a run folder like that of :func:`run`.

    Raises:
        CptBenchError: A checkpoint does not exist, or an evaluation failed.

    Example:
        >>> import cpt_bench
        >>> suite = cpt_bench.open_suite("nano")
        >>> result = cpt_bench.evaluate(suite.base_path(), "nano", limit=4, progress=False)
        >>> row = result.matrix.accuracy[0]  # of the base model on each task, in percent
        >>> bool((row >= 0).all() and (row <= 100).all())
        True
    """
    several = stages if stages is None or isinstance(stages, str) else tuple(map(Path, stages))
    request = Request(
        suite=str(suite),
        order=None if order is None else tuple(order),
        seed=_number(seed),
        base=None if base is None else str(base),
        limit=_number(limit),
        engine=engine,
        engine_settings=_pairs(engine_settings),
        threads=threads,
        out=None if out is None else Path(out),
        elsewhere=Elsewhere(
            model=None if model is None else str(model),
            stages=several,
            endpoint=endpoint,
            served=served,
            name=name,
        ),
    )
    plan = plan_of(request)
    if plan.endpoint is None:
        warm_up()
    return _carry_out(plan, folder_of(request, plan), share, progress)


def load(folder: str | Path) -> Result:
    """Read a run, finished or not; every number is computed from its predictions.

    Raises:
        CptBenchError: The folder is not a run folder; or its suite has changed since.

    Example:
        >>> import cpt_bench
        >>> result = cpt_bench.load("runs/nano-checkpoint-seed0")
        >>> result.seed
        0
        >>> result.predictions(stage=0, task="text")[0]["score"] in (0.0, 1.0)
        True
    """
    found = reading.folders_of([Path(folder)])
    if len(found) > 1:
        raise CptBenchError(
            f"holds {len(found)} runs",
            where=folder,
            todo=f"Give one of them, {found[0].name} for example; compare takes them all",
        )
    return Result(reading.load(found)[0])


def compare(
    runs: str | Path | Result | Iterable[str | Path | Result], against: str | None = None
) -> Comparison:
    """Compare methods on the same samples: numbers, intervals, differences, ties.

    Args:
        runs: Results, run folders, or folders that hold run folders. Runs that differ in their
            seed alone are one method.
        against: The method to compare the others with; by default that of the highest AvgAcc.

    Raises:
        CptBenchError: The runs are not of the same suite and size; or no method is called
            ``against``.

    Example:
        >>> import cpt_bench
        >>> found = cpt_bench.compare("runs")
        >>> len(found.methods) >= 1
        True
        >>> print(found.markdown().splitlines()[2][:20])
        | method | seeds | L
    """
    given = [runs] if isinstance(runs, str | Path | Result) else list(runs)
    places = [one.folder if isinstance(one, Result) else Path(one) for one in given]
    if not places:
        raise CptBenchError("no run to compare", todo="Give results or run folders")
    folders = reading.folders_of(places)
    found = reading.load(folders)
    return Comparison(comparing.compare(found), folders, against)


def check_trainer(
    trainer: str | type[Trainer],
    *,
    settings: Settings = (),
    privileges: Settings = (),
    stage_timeout: float | None = None,
    suite: str | Path | None = None,
    base: str | Path | None = None,
    progress: Callable[[Event], None] = lambda event: None,
) -> list[Check]:
    """Try a trainer on two short stages: does it keep the contract? Takes a minute on nano.

    Args:
        trainer: As for :func:`run`.
        settings: Its settings.
        privileges: What a ``cmd:`` trainer uses beyond its task.
        stage_timeout: End a stage's training after this many seconds; None: 120.
        suite: The suite whose first two tasks are used; None is nano.
        base: The model to start from: a folder or ``org/name[@revision]``; None is the suite's.
        progress: Receives each event.

    Returns:
        The checks in order, each with ``what``, ``ok`` (None if it cannot be checked), ``detail``.

    Example:
        >>> import cpt_bench
        >>> findings = cpt_bench.check_trainer("sft", settings={"max_steps": 2})
        >>> [finding.what for finding in findings if finding.ok is False]
        []
    """
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            trainer=spec_of(trainer, Path(folder) / WRITTEN),
            settings=_pairs(settings),
            privileges=_pairs(privileges),
            stage_timeout=stage_timeout,
            suite="" if suite is None else str(suite),
            base=None if base is None else str(base),
            overlap=False,
        )
        return checking.check(plan_of(request), Path(folder), progress)


def _number(value: Any) -> Any:
    """A NumPy number as a Python one: ``for seed in np.arange(3)`` gives NumPy numbers."""
    return value.item() if hasattr(value, "item") else value


def _pairs(settings: Settings) -> tuple[str, ...]:
    return tuple(assignments(settings) if isinstance(settings, Mapping) else settings)


def _carry_out(
    plan: Plan, folder: Path, share: bool, progress: Progress, trackers: Sequence[str] = ()
) -> Result:
    """Run ``plan`` in ``folder``, passing its events on."""
    shown = Lines(partial(print, flush=True)) if progress is True else progress or None
    shared = folder.parent / ".shared" if share else None
    config = plan.identity() if trackers else {}  # it reads all of the base's weights
    with contextlib.closing(Reporter(trackers, folder, config)) as reporter:

        def heard(event: Event) -> None:
            if shown is not None:
                shown(event)
            reporter(event)

        heard({
            "kind": "begin",
            "title": f"{plan.suite.name}: {plan.method.name}, seed {plan.seed}",
            "folder": str(folder),
            "tasks": list(plan.suite.sequence),
            "general": list(plan.suite.general),
        })  # fmt: skip
        scores, costs = sequencer.run(plan, folder, shared, heard)
        reporter.finish(scores.metrics)
    record = read_run(folder)
    return Result(Run(folder, plan.suite, record, scores, {}), costs)
