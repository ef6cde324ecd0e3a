"""``cptbench doctor``: what is installed on this machine, what is broken, and how to mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    folder: Annotated[Path, typer.Option(help="The folder that runs will be written to.")] = Path(
        "runs"
    ),
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """List what is installed, what is broken or missing, and the command that repairs it.

    Exit status 1 when something that is installed is broken; a missing part is not an error.
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
