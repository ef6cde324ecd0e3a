"""Run the parts in order of worth, in the minutes that there are.

python -m benchmarks.gpu --minutes 8 --out FOLDER
python -m benchmarks.gpu --dry-run
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import (
    MINUTES,
    PARTS,
    Part,
    limit_of,
    minutes_for,
    no_longer_read,
    refusal,
)
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 12
"""Lines of a part's errors that are shown and kept."""
PATIENCE = 5
"""Times the limits, which are those of a GPU machine, on a CPU: the same code at a tiny size."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and say what became of each part; 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--out", type=Path, help="a folder for the JSON of each part")
    parser.add_argument("--scratch", type=Path, help="a folder with 50 GB free, for checkpoints")
    parser.add_argument("--only", default="", metavar="PART,…", help="these parts, in their order")
    parser.add_argument("--cpu", action="store_true", help="the same code at a tiny size")
    parser.add_argument("--dry-run", action="store_true", help="print parts, limits and order")
    args = parser.parse_args(arguments)
    try:
        chosen = select(args.only)
        if args.dry_run:
            print(listed(chosen, args))
            return 0
        if args.out is None:
            parser.error("--out is needed")
        return measured(chosen, args)
    except CptBenchError as error:
        print(error, file=sys.stderr)
        return 2


def select(names: str) -> list[Part]:
    """The parts with these names, and those that they need.

    Raises:
        CptBenchError: There is no such part.
    """
    wanted = {name for name in names.split(",") if name}
    known = {part.name for part in PARTS}
    if unknown := sorted(wanted - known):
        todo = f"There is: {', '.join(part.name for part in PARTS)}"
        raise CptBenchError(f"no part is called {unknown[0]!r}", where="--only", todo=todo)
    for part in reversed(PARTS):  # what a part needs comes before it
        if part.name in wanted:
            wanted |= set(part.needs)
    return [part for part in PARTS if not wanted or part.name in wanted]


def listed(chosen: Sequence[Part], args: Any) -> str:
    """A line for each part: what it may take and when it ends at the latest; then a second call."""
    lines = [f"{args.minutes:g} minutes; a part begins when its 'least' is left, in this order"]
    lines.append(f"{'part':<11} {'least':>6} {'limit':>6} {'ends by':>8}  what it measures")
    ends, perhaps = 0.0, []
    for part in chosen:
        ends += part.limit
        if ends > 60 * args.minutes:
            perhaps.append(part)
        needs = f" (needs {', '.join(part.needs)})" if part.needs else ""
        lines.append(
            f"{part.name:<11} {part.least:>4.0f} s {part.limit:>4.0f} s {ends:>6.0f} s  "
            f"{part.title}{needs}"
        )
    if perhaps:
        lines.append(again(perhaps, args))
    return "\n".join(lines)


def again(skipped: Sequence[Part], args: Any) -> str:
    """The command that runs parts which were left out, or may be."""
    names = ",".join(part.name for part in skipped)
    parts = select(names)
    given = os.environ.get("PYTHONPATH")
    words = ["python3", "-m", "benchmarks.gpu", "--only", names]
    words += ["--minutes", f"{minutes_for(parts, args.minutes)}", "--out", str(args.out or "found")]
    words += ["--scratch", str(args.scratch)] if args.scratch else []
    words += ["--cpu"] if args.cpu else []
    command = (f"PYTHONPATH={shlex.quote(given)} " if given else "") + shlex.join(words)
    made = [part for part in parts if part.name == "model"]
    how = f" (the 7B is made again: {made[0].least:.0f} s are assumed)" if made else ""
    return f"what does not fit runs by{how}:\n  {command}"


def measured(chosen: Sequence[Part], args: Any) -> int:
    """Run what fits; each part's JSON is there once it is done, ``summary.json`` after each."""
    deadline = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    summary = args.out / "summary.json"
    # Parts of an earlier call stay in the summary.
    before = read_json(summary)["parts"] if summary.is_file() else {}
    became: dict[str, Any] = {}
    skipped: list[Part] = []
    with folder(args.scratch) as scratch:
        tree = package(scratch)
        for i, part in enumerate(chosen):
            left = deadline - time.monotonic()
            done = [name for name, row in became.items() if row["state"] == "done"]
            why = refusal(part, left, done)
            if why is not None:
                became[part.name] = {"state": "skipped", "why": why}
                skipped.append(part)
            else:
                became[part.name] = work(
                    part, limit_of(part, left, PATIENCE if args.cpu else 1), scratch, tree, args
                )
            row = became[part.name]
            print(f"{part.name}: {row['state']}; {row.get('why', '')}", flush=True)
            write_json(summary, {"minutes": args.minutes, "parts": {**before, **became}})
            for name in no_longer_read([*became], chosen[i + 1 :]):
                shutil.rmtree(scratch / name, ignore_errors=True)
    if skipped:
        print(again(skipped, args), flush=True)
    return int(any(row["state"] == "failed" for row in became.values()))


@contextlib.contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """A new folder for what nobody needs afterwards, in ``given``."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given, ignore_cleanup_errors=True) as made:
        yield Path(made)


def package(scratch: Path) -> Path:
    """A folder to import from, with links: cptbench need not be installed on that machine."""
    tree = scratch / "tree"
    (tree / "cpt_bench").mkdir(parents=True)
    for entry in (ROOT / "cpt_bench").iterdir():
        (tree / "cpt_bench" / entry.name).symlink_to(entry)
    for name in ("tasks", "trainers"):
        (tree / "cpt_bench" / name).symlink_to(ROOT / name)
    (tree / "benchmarks").symlink_to(ROOT / "benchmarks")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # An installed package's version is asked for.
    facts = tree / f"{project['name']}-{project['version']}.dist-info"
    facts.mkdir()
    lines = [f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    write_text(facts / "METADATA", "\n".join(["Metadata-Version: 2.1", *lines, ""]))
    return tree


def work(part: Part, limit: float, scratch: Path, tree: Path, args: Any) -> dict[str, Any]:
    """Run a part and say what became of it."""
    command = [sys.executable, "-m", "benchmarks.gpu.work", part.name, str(scratch)]
    command += [str(args.out.resolve()), *(["--cpu"] if args.cpu else [])]
    # The part works in another folder: what is given relative to this one has to be found.
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = os.pathsep.join([str(tree), *(str(Path(place).resolve()) for place in given)])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    start = time.monotonic()
    errors = args.out / f"{part.name}.log"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            # The part's own processes too: a run of nano has several.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    taken = round(time.monotonic() - start, 1)
    if code == 0:
        return {"state": "done", "why": f"{taken} s", "seconds": taken}
    last = errors.read_text(errors="replace").splitlines()[-SHOWN:]
    why = f"ended after its {limit:.0f} s" if code is None else f"exit status {code}"
    row = {"state": "failed", "why": why, "seconds": taken, "output": last}
    write_json(args.out / f"{part.name}.failed.json", {"part": part.name, **row})
    return row


if __name__ == "__main__":
    sys.exit(main())
