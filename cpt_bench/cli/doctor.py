"""``cptbench doctor``: is this machine in order, and if not, what mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    folder: Annotated[Path, typer.Option(help="Where runs will be written.")] = Path("runs"),
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what is installed, what fits together, what is missing and the command that mends it.

    Exit status 1 when something that is installed is broken; what is merely missing is no error.
    """
    from cpt_bench.advice.doctor import examine

    findings = examine(folder)
    broken = any(f.state == "broken" for f in findings)
    if json_:
        rows = [f._asdict() for f in findings]
        print(json.dumps({"healthy": not broken, "findings": rows}, indent=2, ensure_ascii=False))
    else:
        width = max(len(f.topic) for f in findings)
        for f in findings:
            print(f"{f.state:<8} {f.topic:<{width}}  {f.found}")
            if f.cure:
                print(f"{'':<8} {'':<{width}}  -> {f.cure}")
    raise typer.Exit(int(broken))
