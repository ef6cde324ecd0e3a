"""Runs an entry again: lets its published weights answer, or trains one seed again.

This is the only module of the leaderboard that trains and needs torch. What it writes is data for
``verify``, which does the grading and comparing itself.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cpt_bench import environment
from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest, fresh_folder, read_jsonl, write_json
from cpt_bench.leaderboard.entry import Entry, Manifest, slug
from cpt_bench.leaderboard.pack import zst
from cpt_bench.leaderboard.packable import open_run
from cpt_bench.leaderboard.recompute import expected_cells, stage_name, stages_of
from cpt_bench.leaderboard.reproductions import Reproduction, sampled
from cpt_bench.leaderboard.strict import read_json
from cpt_bench.leaderboard.verify import Verified, verify
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.plugins import builtin
from cpt_bench.results.folder import RunFolder
from cpt_bench.sources import load_split
from cpt_bench.stage.command import PREFIX
from cpt_bench.suite import Suite
from cpt_bench.suite.variants import compose, split_spec


def reproduce(
    folder: Path,
    by: str,
    *,
    seed: int | None = None,
    share: float = 0.1,
    checkpoints: Path | None = None,
    trainer: str | None = None,
    base: Path | None = None,
    work: Path | None = None,
    suite_spec: str | None = None,
) -> Reproduction:
    """Reproduce an entry and write the report into it.

    Args:
        folder: The entry; it must verify.
        by: Who does it.
        seed: Which seed; the first by default.
        share: Of test samples to ask, with ``checkpoints``.
        checkpoints: Published weights, one folder a stage (``1-science`` …; ``0-base`` optional).
        trainer: The trainer to run, where the entry's does not ship with the package.
        base: The base model's checkpoint; the suite's own by default.
        work: Where the rerun's run folder goes.
        suite_spec: A suite that does not ship with the package.

    Raises:
        CptBenchError: The entry does not verify, or its trainer or weights are not at hand.
    """
    if not 0 < len(by) <= 100:
        raise CptBenchError("a name has 1 to 100 characters", where=f"--by {by!r}")
    done = verify(folder, suite_spec)
    if done.report.verdict != "verified" or done.entry is None or done.suite is None:
        first = next(iter(done.report.errors), None)
        why = first.line() if first else "its numbers cannot be recomputed here"
        raise CptBenchError(f"does not verify ({why})", where=folder)
    number = min(done.entry.seeds) if seed is None else seed
    if number not in done.seeds:
        raise CptBenchError(
            f"has no seed {number}", where=folder, todo=f"It has {done.entry.seeds}"
        )
    manifest = done.seeds[number].manifest
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    target = folder / "reproductions" / f"{date}__{slug(by)}"
    if target.exists():
        raise CptBenchError("there is a reproduction already", where=target)
    if checkpoints is None:
        run = _rerun(done, number, manifest, trainer, base, work, suite_spec)
        _write_rerun(target, run, by, date, number, done.suite)
    else:
        _write_sample(target, checkpoints, done, number, share, by, date)
    again = verify(folder, suite_spec)
    for result in again.reproductions:
        if result.report.by == by and result.report.date == date:
            return result
    first = next(iter(again.report.errors), None)
    raise CptBenchError(f"was not accepted ({first.line() if first else '?'})", where=target)


# ------------------------------------------------------------------------------- train again


def _rerun(
    done: Verified,
    seed: int,
    manifest: Manifest,
    trainer: str | None,
    base: Path | None,
    work: Path | None,
    suite_spec: str | None,
) -> Path:
    """Run the seed with ``cptbench run``, settings and order from the entry, in ``work``."""
    assert done.entry is not None
    spec = trainer or _known_trainer(done.entry)
    recipe = read_json(done.folder / f"seed-{seed}" / "recipe.json")
    folder = work or Path("runs") / f"reproduce-{done.folder.name}-seed{seed}"
    suite = compose(split_spec(suite_spec or manifest.suite.name)[0], manifest.suite.variant, None)
    command = [sys.executable, "-m", "cpt_bench", "run", "--trainer", spec, "--seed", str(seed)]
    command += ["--suite", suite, "--order", ",".join(manifest.order)]
    command += ["--out", str(folder), "--no-share", *_chosen(recipe)]
    for key, value in recipe["config"].items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    if spec.startswith(PREFIX):  # a class declares its own
        used = {key: value for key, value in manifest.privileges.items() if value}
        command += [f"--privilege={key}={json.dumps(value)}" for key, value in used.items()]
    if base is not None:
        command += ["--base", str(base)]
    if subprocess.run(command, check=False).returncode:
        raise CptBenchError("the rerun failed", where=folder, todo="The same command goes on")
    found = open_run(folder)
    if found.facts["base"]["weights"] != manifest.base.weights:
        raise CptBenchError("started from other weights than the entry", where=folder)
    return folder


def _known_trainer(entry: Entry) -> str:
    """Only what ships with the package is run by name: an entry must not choose what to import."""
    if entry.trainer in builtin("trainers"):
        return entry.trainer
    raise CptBenchError(
        f"the trainer {entry.trainer!r} does not ship with cptbench",
        todo="Get its code, read it, and give it with --trainer",
    )


LAUNCH = re.compile(
    r"torchrun( --(standalone|nproc[_-]per[_-]node[ =]\d+))*"
    r"|accelerate launch( --(multi_gpu|num_(processes|machines)[ =]\d+|mixed_precision[ =]\w+))*"
)
"""Launchers that start this machine's processes and nothing else."""
ASK_WEIGHTS = "Ask its published weights, with --checkpoints"


def _chosen(recipe: dict[str, Any]) -> list[str]:
    """Budget, launcher and engine of a run as options: data of a stranger, so known ones alone."""
    samples = (recipe.get("budget") or {}).get("samples")
    out = ["--budget", str(samples)] if samples is not None else []
    launch, engine = recipe.get("launch"), recipe.get("engine") or {}
    if launch and not LAUNCH.fullmatch(launch):
        raise CptBenchError(
            f"was launched with {launch!r}, which is not run for an entry", todo=ASK_WEIGHTS
        )
    out += ["--launch", launch] if launch else []
    if engine and engine["name"] not in builtin("engines"):
        raise CptBenchError(
            f"the engine {engine['name']!r} does not ship with cptbench", todo=ASK_WEIGHTS
        )
    out += ["--engine", engine["name"]] if engine else []
    for key, value in engine.get("settings", {}).items():
        out += ["--engine-set", f"{key}={json.dumps(value)}"]
    return out


def _write_rerun(
    target: Path, run_folder: Path, by: str, date: str, seed: int, suite: Suite
) -> None:
    run = open_run(run_folder)
    order = run.suite.sequence
    weights = {
        stage_name(order, t): record["facts"]["weights"]
        for record in run.ledger
        if record["step"].endswith("/train")
        for t in [int(record["step"].partition("/")[0].removeprefix("stage-"))]
    }
    with fresh_folder(target) as folder:
        paths = RunFolder(run_folder, order)
        for t, name in expected_cells(suite, order, run.joint):
            rows = read_jsonl(paths.predictions(t, name))
            _table(folder, stage_name(order, t), name, rows)
        said = {
            "kind": "rerun",
            "seed": seed,
            "sample": 1.0,
            "weights": dict(sorted(weights.items())),
        }
        facts = {"versions": run.facts["versions"], "hardware": run.facts["hardware"]}
        _report(folder, by, date, said | facts)


# --------------------------------------------------------------------------------- ask again


def _write_sample(
    target: Path, checkpoints: Path, done: Verified, seed: int, share: float, by: str, date: str
) -> None:
    """Ask a sample of questions of each checkpoint there is."""
    suite, manifest = done.suite, done.seeds[seed].manifest
    assert suite is not None
    found = _stages(checkpoints, manifest)
    with fresh_folder(target) as folder:
        for t, place in found.items():
            _ask(folder, place, t, manifest, suite, share)
        said = {
            "kind": "checkpoints",
            "seed": seed,
            "sample": share,
            "weights": {
                stage_name(manifest.order, t): manifest.weights[stage_name(manifest.order, t)]
                for t in found
            },
        }
        here = {"versions": environment.versions(), "hardware": environment.hardware()}
        _report(folder, by, date, said | here)


def _stages(checkpoints: Path, manifest: Manifest) -> dict[int, Path]:
    """Stage to its weights, each checked to be those of the entry."""
    found = {}
    for t in stages_of(manifest.order, manifest.joint):
        stage = stage_name(manifest.order, t)
        for place in (checkpoints / stage, checkpoints / "stages" / stage / "checkpoint"):
            if place.is_dir() and any(place.glob("*.safetensors")):
                if weights_digest(place) != manifest.weights.get(stage):
                    raise CptBenchError(f"are not the entry's weights of {stage}", where=place)
                found[t] = place
                break
    if not any(found):
        what = f"holds no weights of a trained stage ({stage_name(manifest.order, 1)} …)"
        raise CptBenchError(what, where=checkpoints)
    return found


def _ask(folder: Path, place: Path, t: int, manifest: Manifest, suite: Suite, share: float) -> None:
    from cpt_bench.engines.hf import TransformersEngine
    from cpt_bench.evaluation.predictions import evaluate

    engine = TransformersEngine(place)
    stage = stage_name(manifest.order, t)
    for cell, name in expected_cells(suite, manifest.order, manifest.joint):
        if cell != t:
            continue
        card = suite.card(name)
        samples = {s.id: s for s in load_split(card, "test")}
        chosen = set(sampled(samples, share, manifest.weights[stage]))
        asked = [s for s in samples.values() if s.id in chosen]
        _table(folder, stage, name, evaluate(engine, card, asked, suite.protocol))


def _table(folder: Path, stage: str, name: str, rows: list[dict[str, Any]]) -> None:
    file = folder / "predictions" / stage / f"{name}.jsonl.zst"
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = ({key: row[key] for key in ("id", "reply", "tokens")} for row in rows)
    zst(file, ((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in kept))


def _report(folder: Path, by: str, date: str, said: dict[str, Any]) -> None:
    files = {
        file.relative_to(folder).as_posix(): {"sha256": digest(file), "bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    write_json(
        folder / "report.json", {"format": 1, "by": by, "date": date, **said, "files": files}
    )
