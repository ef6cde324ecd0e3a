"""``cptbench sweep``: many runs from one file."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cpt_bench

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cpt_bench.sweep.jobs import Job
    from cpt_bench.sweep.loop import Loop, State

Event = dict[str, Any]


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep file, as YAML: see docs/sweep.md.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of the run folders [default: runs/<the file's name>]."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many runs at once on this machine.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on this Ray cluster: auto or HOST:PORT."),
    ] = None,
    stored: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Leave out the runs that are stored in this folder."
        ),
    ] = None,
    first: Annotated[int | None, typer.Option(min=1, help="Only the first N runs.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the runs and what they share.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run every combination of a file's trainers, recipes, seeds, orders and learning rates.

    The same command goes on after any interruption. At the end it writes the comparison and the
    report of all runs.
    """
    from cpt_bench.cli.options import a_folder
    from cpt_bench.environment import require_training
    from cpt_bench.errors import CONTINUE, Interrupted
    from cpt_bench.sweep.spec import read_sweep

    found = read_sweep(file)
    require_training()
    from cpt_bench.sources import require_prepared
    from cpt_bench.sources.apart import require_apart
    from cpt_bench.sweep.jobs import jobs_of
    from cpt_bench.sweep.loop import Loop

    folder = a_folder(out or Path("runs") / file.stem)
    jobs = jobs_of(found, folder, file)
    if stored is not None:
        from cpt_bench.study.stored import ENDING

        jobs = [job for job in jobs if not (stored / f"{job.name}{ENDING}").is_file()]
    jobs = jobs[:first]
    if not jobs:
        print("nothing to do: every run is stored")
        return
    if dry_run:
        _show_jobs(jobs, json_)
        return
    require_prepared(jobs[0].plan.suite, jobs[0].plan.suite_spec)
    require_apart(jobs[0].plan.suite)
    backend = _backend(found.resources, workers, ray, found.threads)
    with _shown(len(jobs), json_) as shown:
        loop = shown.loop = Loop(jobs, backend, found.retries, found.keep, shown)
        try:
            # Ray's own threads print to standard output, which is the result's.
            with contextlib.redirect_stdout(sys.stderr):
                states = loop.run()
        except KeyboardInterrupt:
            raise Interrupted("interrupted", where=folder, todo=CONTINUE) from None
    pages = _finish(folder, [job for job in jobs if states[job.name].status == "done"])
    _show_end(jobs, states, pages, json_)
    if any(state.status != "done" for state in states.values()):
        raise typer.Exit(1)


def _backend(resources: Any, workers: int, ray: str | None, threads: int) -> Any:
    from cpt_bench.sweep.backends import Local, Ray
    from cpt_bench.sweep.jobs import cores

    if ray is not None:
        return Ray(ray, resources)
    return Local(workers, overlap=cores() >= 2 * workers * threads)


# ------------------------------------------------------------------------------------- dry run


def _show_jobs(jobs: list[Job], json_: bool) -> None:
    import shlex

    from cpt_bench.sweep.jobs import finished
    from cpt_bench.sweep.loop import shared

    taken = shared(jobs)
    stages = sum(len(job.chain) - 1 for job in jobs)
    saved = sum(
        sum(1 for s, _ in job.chain if 0 < s <= taken[job.name][0])
        for job in jobs
        if job.name in taken
    )
    if json_:
        rows = [
            {
                "name": job.name,
                "command": ["cptbench", *job.arguments],
                "finished": finished(job),
                "shares": {"stage": taken[job.name][0], "with": taken[job.name][1]}
                if job.name in taken
                else None,
            }
            for job in jobs
        ]
        print(json.dumps({"runs": rows, "stages": stages, "shared": saved}, indent=2))
        return
    for job in jobs:
        print(shlex.join(["cptbench", *job.arguments]))
        if job.name in taken:
            stage, other = taken[job.name]
            print(f"    stages 1 to {stage} from {other}")
        if finished(job):
            print("    finished")
    print(f"{len(jobs)} runs of {stages} stages, {saved} of them shared")


# ------------------------------------------------------------------------------------ progress


class Lines:
    """Takes a loop's events; one line a finished thing."""

    def __init__(self, total: int, stream: Any) -> None:
        self.total, self.stream = total, stream
        self.loop: Loop | None = None
        self.ended = 0

    def __call__(self, event: Event) -> None:
        line = self.line(event)
        if line:
            self.write(line)

    def write(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    def line(self, event: Event) -> str:
        kind, name = event["kind"], event.get("job")
        if kind == "started":
            again = f" (attempt {event['attempt']})" if event["attempt"] > 1 else ""
            return f"started {name}{again}"
        if kind == "lost":
            return f"lost {name}: {event['why']}; " + (
                "it goes on" if event["again"] else "given up"
            )
        if kind in ("done", "failed"):
            self.ended += 1
            why = f": {event['why']}" if kind == "failed" else ""
            return f"{kind} {name} after {event['seconds']:.0f} s ({self.ended}/{self.total}){why}"
        return ""


class Board(Lines):
    """The same lines above a table of what runs now."""

    def __init__(self, total: int, console: Console) -> None:
        super().__init__(total, None)
        self.console = console

    def write(self, line: str) -> None:
        from rich.text import Text

        self.console.print(Text(line))

    def __rich__(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        from cpt_bench.sweep.jobs import stages_done

        table = Table.grid(padding=(0, 2))
        if self.loop is None:
            return table
        states = self.loop.states
        done = sum(s.status == "done" for s in states.values())
        table.add_row("sweep", ProgressBar(total=len(states), completed=done, width=30),
                      f"{done}/{len(states)}")  # fmt: skip
        now = time.monotonic()
        for name, state in [*states.items()]:
            if state.status != "running":
                continue
            job = self.loop.jobs[name]
            stages, of = stages_done(job), len(job.chain) - 1
            table.add_row(name, ProgressBar(total=of, completed=stages, width=30),
                          f"{stages}/{of}  {now - self.loop.began[name]:.0f} s")  # fmt: skip
        return table


@contextlib.contextmanager
def _shown(total: int, quiet: bool) -> Iterator[Lines]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=quiet, highlight=False)
    if not console.is_terminal:
        yield Lines(total, sys.stderr if quiet else sys.stdout)
        return
    board = Board(total, console)
    with Live(board, console=console, refresh_per_second=2, transient=True):
        yield board


# ----------------------------------------------------------------------------------------- end


def _finish(folder: Path, done: list[Job]) -> dict[str, str]:
    """Write the comparison and the report of the finished runs; returns name to file."""
    if not done:
        return {}
    from cpt_bench.files import write_json, write_text
    from cpt_bench.run.layout import SWEEP_PAGES

    found = cpt_bench.compare([job.folder for job in done])
    pages = {name: folder / name for name in SWEEP_PAGES}
    write_json(pages["compare.json"], found.data)
    write_text(pages["compare.html"], found.page())
    found.report(pages["report.html"])
    return {name: str(path) for name, path in pages.items()}


def _show_end(
    jobs: list[Job], states: dict[str, State], pages: dict[str, str], json_: bool
) -> None:
    from cpt_bench.files import read_json

    rows = []
    for job in jobs:
        state = states[job.name]
        row: dict[str, Any] = {"name": job.name, "folder": str(job.folder), **state._asdict()}
        row["seconds"] = round(state.seconds, 1)
        if state.status == "done":
            metrics = read_json(job.folder / "metrics.json")
            row |= {key: metrics[key]["value"] for key in ("AvgAcc", "Learn", "FM")}
        rows.append(row)
    if json_:
        print(json.dumps({"runs": rows, "pages": pages}, indent=2, ensure_ascii=False))
        return
    for row in rows:
        numbers = "  ".join(
            f"{key} {row[key]:.1f}" for key in ("AvgAcc", "Learn", "FM") if row.get(key) is not None
        )
        print(f"{row['name']}: {numbers or row['status'] + ': ' + row['why']}")
    for path in pages.values():
        print(path)
