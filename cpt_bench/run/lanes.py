"""Methods trained elsewhere: folders of checkpoints, one model, a server, or only predictions.

Each lane produces a run folder of the same shape as ``cptbench run`` does, marked with the part
that cptbench did itself: ``checkpoints`` (evaluation), ``endpoint`` (prompts and grading),
``predictions`` (grading).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt_bench import environment
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import graded, read_predictions
from cpt_bench.files import write_json, write_jsonl
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.results.folder import RunFolder
from cpt_bench.results.scoring import Scores, write_scores
from cpt_bench.sources import load_split, questions_of
from cpt_bench.stage.split import write_images
from cpt_bench.suite import Suite


def find_stages(given: str | Sequence[Path], suite: Suite) -> dict[int, Path]:
    """The checkpoints of stages 1 to T.

    Args:
        given: A glob of folders, sorted naturally by name: of ``ckpt/stage-*``, ``stage-10`` comes
            after ``stage-9``. Or the folders, in training order.
        suite: The suite, which needs one checkpoint per task.

    Raises:
        CptBenchError: There are more or fewer than the suite has tasks, or one has no weights.
    """
    found = _matching(given) if isinstance(given, str) else list(given)
    folders = [f / "checkpoint" if (f / "checkpoint").is_dir() else f for f in found if f.is_dir()]
    # A run folder's first stage is the base model, which has no checkpoint folder there.
    folders = [f for f in folders if f.name == "checkpoint" or not f.name.startswith("0-")]
    wanted = len(suite.sequence)
    if len(folders) != wanted:
        raise CptBenchError(
            f"{len(folders)} checkpoints match, {suite.name} has {wanted} stages "
            f"({', '.join(suite.sequence)})",
            where=f"--stages {given!r}" if isinstance(given, str) else "stages",
            todo="Give one folder per stage, named so that they sort in training order",
        )
    for folder in folders:
        weights_digest(folder)
    return dict(enumerate(folders, 1))


def _matching(pattern: str) -> list[Path]:
    anchor = Path(Path(pattern).anchor)
    inside = str(Path(pattern).relative_to(anchor))
    return sorted(anchor.glob(inside), key=_natural) if inside != "." else []


def _natural(path: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


# -------------------------------------------------------------------------------- predictions


def _require_new(folder: Path, todo: str) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CptBenchError("is not an empty folder", where=folder, todo=todo)


def export_prompts(suite: Suite, folder: Path, limit: int | None = None) -> int:
    """Write the questions for a model: one ``<name>.jsonl`` per task and general benchmark.

    Each line has ``id``, ``prompt`` and ``images`` (files in the same folder). Gold answers are
    not exported.

    Returns:
        The number of questions.
    """
    _require_new(folder, "Give a new one")
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    for name in (*suite.sequence, *suite.general):
        card = suite.card(name)
        rows = []
        for sample in questions_of(card)[:limit]:
            images = write_images(sample, folder)
            prompt = suite.protocol.prompt(sample.question)
            rows.append({"id": sample.id, "prompt": prompt, "images": images})
        write_jsonl(folder / f"{name}.jsonl", rows)
        total += len(rows)
    write_json(
        folder / "about.json",
        {
            "suite": suite.name,
            "version": suite.version,
            "fingerprint": suite.fingerprint(),
            "max_new_tokens": suite.protocol.decoding.max_new_tokens,
            "decoding": suite.protocol.decoding.model_dump(exclude={"max_new_tokens"}) or "greedy",
            "answer": '<stage>/<name>.jsonl, lines {"id": …, "reply": …}; stages: 0-base, 1-…',
        },
    )
    return total


def import_predictions(
    source: Path, folder: Path, suite: Suite, spec: str, name: str, limit: int | None
) -> Scores:
    """Grade a folder of predictions into a run folder of the lane ``predictions``.

    Args:
        source: ``<stage>/<name>.jsonl``, where a stage's folder begins with its number (0 is the
            base model); or ``<name>.jsonl``, for one model that was not trained in stages.
        folder: The run folder to create.
        suite: The suite, with its tasks in training order.
        spec: The suite's name or file.
        name: The method's name.
        limit: Only the first ``limit`` samples of each split were answered.

    Raises:
        CptBenchError: A file's name is not a task, or its ids are not those of the test split.
    """
    stages = _stages_of(source, suite)
    _require_new(folder, "Give another --out")
    paths = RunFolder(folder, suite.sequence)
    partial = RunFolder(folder.with_name(f"{folder.name}.partial"), suite.sequence)
    shutil.rmtree(partial.root, ignore_errors=True)
    splits = {
        task: load_split(suite.card(task), "test")[:limit]
        for task in (*suite.sequence, *suite.general)
    }
    for t, place in stages.items():
        for file in sorted(place.glob("*.jsonl")):
            if file.stem not in splits:
                raise CptBenchError(
                    f"{suite.name} has no task {file.stem!r}",
                    where=file,
                    todo=f"There is: {', '.join(splits)}",
                )
            card, samples = suite.card(file.stem), splits[file.stem]
            rows = read_predictions(file, [sample.id for sample in samples])
            rows = graded(rows, card, samples, suite.protocol)
            write_jsonl(partial.predictions(t, file.stem), rows)
    write_json(
        partial.run_json,
        {
            "format": 1,
            "lane": "predictions",
            "suite": {
                "spec": spec,
                "name": suite.name,
                "version": suite.version,
                "fingerprint": suite.fingerprint(),
            },
            "trainer": name,
            "origin": {"spec": f"predictions:{name}"},
            "config": {},
            "privileges": {},
            "seed": 0,
            "order": list(suite.sequence),
            "limit": limit,
            "versions": environment.versions(),
            "sessions": [],
        },
    )
    if folder.exists():
        folder.rmdir()
    partial.root.replace(paths.root)
    return write_scores(folder)


def _stages_of(source: Path, suite: Suite) -> dict[int, Path]:
    if not source.is_dir():
        raise CptBenchError("no such folder", where=source)
    if any(source.glob("*.jsonl")):
        return {0: source}
    stages = {}
    for place in sorted(p for p in source.iterdir() if p.is_dir()):
        number = re.match(r"(?:stage[-_]?)?(\d+)", place.name)
        if number is None or int(number[1]) > len(suite.sequence):
            raise CptBenchError(
                f"{place.name!r} names no stage from 0 (the base model) to {len(suite.sequence)}",
                where=source,
                todo="Name the folders 0-base, 1-…, 2-…",
            )
        if int(number[1]) in stages:
            raise CptBenchError(f"two folders for stage {number[1]}", where=source)
        inner = place / "predictions"
        stages[int(number[1])] = inner if inner.is_dir() else place
    if not stages:
        raise CptBenchError("holds no run.json, no *.jsonl, no folders of stages", where=source)
    return stages
