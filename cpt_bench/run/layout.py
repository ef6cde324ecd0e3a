"""One stage on disk: its document, what its trainer may see, where what it writes ends up.

A trainer works in ``stages/<t>-<task>/work``: there is its ``stage.json``, and everything that it
writes. When it is done and checked, the parts move to their places in one step each.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from importlib.util import cache_from_source
from itertools import chain
from pathlib import Path

from cpt_bench.errors import TrainerFault
from cpt_bench.files import settle, write_text
from cpt_bench.hub.snapshots import cached_data_sets
from cpt_bench.models.checkpoint import count_parameters
from cpt_bench.plugins import code_files, suite_folders
from cpt_bench.results.folder import RunFolder
from cpt_bench.run.plan import Plan
from cpt_bench.stage.document import Grading, MemoryPlace, ResumePlace, StageDocument
from cpt_bench.stage.isolation import View
from cpt_bench.stage.training import TRAIN_LOG, TrainJob
from cpt_bench.suite import TaskCard
from cpt_bench.suite.prepared import root

SWEEP_PAGES = ("compare.json", "compare.html", "report.html")
"""What a finished sweep leaves in the folder of its runs."""

PARTS = ("checkpoint", "state", "memory", TRAIN_LOG)
"""What a stage leaves, by its name in the stage's folder and in ``work``."""


def lay_out(
    plan: Plan,
    paths: RunFolder,
    t: int,
    seed: int,
    data: Sequence[Path],
    checkpoints: Sequence[Path],
    read: Sequence[Path] = (),
    key: str = "",
) -> TrainJob:
    """Write stage ``t`` to its work folder, for a trainer to start.

    Args:
        plan: The run's plan.
        paths: Its folder.
        t: The stage.
        seed: Seeds it.
        data: The prepared train splits it learns from.
        checkpoints: Checkpoints of the stages before, base model first.
        read: Files that the suite's generators read.
        key: The step's key: what an earlier try saved under it may be gone on from.
    """
    work = paths.work(t)
    resume = _clear(work, key if plan.save_every else None)
    (work / "checkpoint").mkdir(parents=True)
    for part, before in (("state", paths.state(t - 1)), ("memory", paths.memory(t - 1))):
        if before.is_dir():
            shutil.copytree(before, work / part, symlinks=True)
        else:
            (work / part).mkdir()
    suite, joint = plan.suite, plan.privileges.joint
    earlier = tuple(checkpoints) if plan.privileges.earlier_checkpoints else ()
    document = StageDocument(
        index=t,
        task="joint" if joint else suite.sequence[t - 1],
        policy=checkpoints[-1].resolve(),
        data=tuple((folder / "train.jsonl").resolve() for folder in data),
        output=(work / "checkpoint").resolve(),
        state=(work / "state").resolve(),
        memory=MemoryPlace(
            folder=(work / "memory").resolve(),
            samples_per_task=plan.privileges.replay_samples_per_task,
        ),
        earlier=tuple(folder.resolve() for folder in earlier),
        log=(work / "log.jsonl").resolve(),
        seed=seed,
        threads=plan.threads,
        max_new_tokens=suite.protocol.decoding.max_new_tokens,
        budget=plan.budget,
        config=plan.method.config,
        privileges=plan.privileges,
        resume=ResumePlace(folder=resume.resolve(), every=plan.save_every)
        if resume and plan.save_every
        else None,
        grading=Grading(
            cards={
                task: suite.card(task).located()
                for task in suite.sequence
                if joint or task in seen(plan, t)
            },
            form=suite.protocol.form,
            weights=suite.protocol.reward,
        ),
        system=suite.protocol.system,
    )
    file = (work / "stage.json").resolve()
    document.write(file)
    inputs = [document.policy, *(folder.resolve() for folder in data), *document.earlier]
    folders = [p.resolve() for p in (paths.root, *hidden(plan, data))]
    named = [p.resolve() for card in suite.cards.values() for p in card.places()]
    # What a stage is given may be read, though a generator reads it too: a tokenizer, say.
    others = [p for p in (*named, *read) if not any(map(p.is_relative_to, (*folders, *inputs)))]
    covered = tuple(dict.fromkeys((*folders, *others)))
    # A grader, or the trainer itself, may be in the package that holds the suite.
    code = {file.resolve() for file in code_needed(plan, document.grading.cards.values())}
    code |= {Path(cache_from_source(str(file))) for file in code}  # Python looks there first
    shown = sorted(file for file in code if any(file.is_relative_to(c) for c in covered))
    view = View(
        hidden=covered,
        visible=(work.resolve(), *inputs, *shown),
        read_only=(*inputs, *shown),
        absent=tuple(p for p in neighbours(paths.root.resolve()) if p not in covered),
    )
    parameters = count_parameters(plan.base)
    return TrainJob(file, plan.method.origin["spec"], view, parameters, plan.launch)


def _clear(work: Path, key: str | None) -> Path | None:
    """Empty a stage's work folder, but for what a try with the same key saved to go on from.

    Returns:
        The folder of that; None where nothing is to be saved.
    """
    resume, mark = work / "resume", work / "resume/key"
    if key is None or not mark.is_file() or mark.read_text() != key:
        shutil.rmtree(work, ignore_errors=True)
    for place in work.iterdir() if work.is_dir() else ():
        if place == resume:
            continue
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    if key is None:
        return None
    write_text(mark, key)
    return resume


def seen(plan: Plan, t: int) -> tuple[str, ...]:
    """The tasks of stages 1 to ``t``: those whose samples a replay memory may hold."""
    return plan.suite.sequence[:t]


def code_needed(plan: Plan, cards: Iterable[TaskCard]) -> set[Path]:
    """The files of graders and of a trainer that are plug-ins: a stage runs them."""
    graders = {card.grader for card in cards if ":" in card.grader or "/" in card.grader}
    files = {file for grader in graders for file in code_files("graders", grader)}
    if plan.method.origin.get("module"):  # neither a command nor trained elsewhere
        files |= code_files("trainers", plan.method.origin["spec"])
    return files


def hidden(plan: Plan, data: Sequence[Path]) -> list[Path]:
    """Folders of test questions and of other tasks' data: the suites', fetched and prepared."""
    fetched = [*([root()] if root().is_dir() else []), *cached_data_sets()]
    return [*suite_folders(), plan.suite.folder, *fetched, *{folder.parent for folder in data}]


def neighbours(run: Path) -> list[Path]:
    """Graded answers of the runs in the same folder, and the test splits that they share."""
    pages = (".shared/data", *SWEEP_PAGES)
    runs = (file.parent for file in run.parent.glob("*/run.json"))
    return [place.resolve() for place in (*(run.parent / page for page in pages), *runs)]


def collect(paths: RunFolder, t: int) -> None:
    """Move what a stage wrote from its work folder to its places.

    Raises:
        TrainerFault: Something that it left is neither a file nor a directory.
    """
    work = paths.work(t)
    # A link means something else outside the trainer's view: what was hidden would be copied.
    for place in chain.from_iterable([work / part, *(work / part).rglob("*")] for part in PARTS):
        if place.is_symlink() or not (place.is_file() or place.is_dir()):
            raise TrainerFault(
                "link",
                f"stage {t} left something that is neither a file nor a directory",
                where=place,
                todo="Write files, not links to them",
            )
    for part in PARTS:
        settle(work / part, paths.stage(t) / part)
    shutil.rmtree(work, ignore_errors=True)
