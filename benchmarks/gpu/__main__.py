"""Run the parts in order of worth, in the minutes that there are.

python -m benchmarks.gpu --minutes 8 --out FOLDER
python -m benchmarks.gpu --dry-run
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import PARTS, Part, limit_of, refusal
from cpt_bench.errors import CptBenchError
from cpt_bench.files import write_json

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 12
"""Lines of a part's errors that are shown and kept."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and say what became of each part; 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, help="a folder for the JSON of each part")
    parser.add_argument("--scratch", type=Path, help="a folder with 60 GB free, for checkpoints")
    parser.add_argument("--only", default="", metavar="PART,…", help="these parts, in their order")
    parser.add_argument("--cpu", action="store_true", help="the same code at a tiny size")
    parser.add_argument("--dry-run", action="store_true", help="print parts, limits and order")
    args = parser.parse_args(arguments)
    try:
        chosen = select(args.only)
        if args.dry_run:
            print(listed(chosen, args.minutes))
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
    wanted |= {need for part in PARTS if part.name in wanted for need in part.needs}
    return [part for part in PARTS if not wanted or part.name in wanted]


def listed(chosen: Sequence[Part], minutes: float) -> str:
    """A line for each part: what it may take, and when it ends at the latest."""
    lines = [f"{minutes:g} minutes; a part begins when its 'least' is left, in this order"]
    lines.append(f"{'part':<11} {'least':>6} {'limit':>6} {'ends by':>8}  what it measures")
    ends = 0.0
    for part in chosen:
        ends += part.limit
        needs = f" (needs {', '.join(part.needs)})" if part.needs else ""
        lines.append(
            f"{part.name:<11} {part.least:>4.0f} s {part.limit:>4.0f} s {ends:>6.0f} s  "
            f"{part.title}{needs}"
        )
    return "\n".join(lines)


def measured(chosen: Sequence[Part], args: Any) -> int:
    """Run what fits; each part's JSON is there once it is done, ``summary.json`` after each."""
    deadline = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    became: dict[str, Any] = {}
    with folder(args.scratch) as scratch:
        tree = package(scratch)
        for part in chosen:
            left = deadline - time.monotonic()
            done = [name for name, row in became.items() if row["state"] == "done"]
            why = refusal(part, left, done)
            if why is not None:
                became[part.name] = {"state": "skipped", "why": why}
            else:
                became[part.name] = work(part, limit_of(part, left), scratch, tree, args)
            row = became[part.name]
            print(f"{part.name}: {row['state']}; {row.get('why', '')}", flush=True)
            write_json(args.out / "summary.json", {"minutes": args.minutes, "parts": became})
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
    return tree


def work(part: Part, limit: float, scratch: Path, tree: Path, args: Any) -> dict[str, Any]:
    """Run a part and say what became of it."""
    command = [sys.executable, "-m", "benchmarks.gpu.work", part.name, str(scratch)]
    command += [str(args.out.resolve()), *(["--cpu"] if args.cpu else [])]
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")]))
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
