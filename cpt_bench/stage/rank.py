"""``python -m cpt_bench.stage.rank STAGE.JSON TRAINER``: one of the processes that train a stage.

A launcher starts it once per process, see :mod:`cpt_bench.stage.launch`. Only the first process
writes to the stage's folders; the others work on temporary copies.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json, write_json
from cpt_bench.stage.document import StageDocument, open_stage
from cpt_bench.stage.launch import EVENT
from cpt_bench.stage.trainers import class_of
from cpt_bench.worker.threads import set_threads


def main() -> None:
    """Train as one of the processes."""
    file, spec = Path(sys.argv[1]), sys.argv[2]
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    result = file.with_name("launch.json")

    def say(kind: str, value: Any) -> None:
        if rank == 0:
            print(f"{EVENT}{json.dumps([kind, value])}", flush=True)

    try:
        with tempfile.TemporaryDirectory() as scratch:
            mine = file if rank == 0 else _apart(file, Path(scratch))
            document = StageDocument.read(mine)
            set_threads(document.threads)
            kind = class_of(spec)
            stage = open_stage(mine, lambda row: say("log", row), lambda line: say("tell", line))
            kind(kind.Config.model_validate(document.config)).train(stage)
            _leave()
    except CptBenchError as error:
        if rank == 0:
            write_json(result, {"error": str(error), "kind": getattr(error, "kind", "crash")})
        raise
    if rank == 0:
        write_json(result, {"processes": world})


def _apart(file: Path, scratch: Path) -> Path:
    """A copy of the stage with its own folders to write to."""
    data = read_json(file)
    for key in ("output", "state"):
        shutil.copytree(data[key], scratch / key)
        data[key] = str(scratch / key)
    shutil.copytree(data["memory"]["folder"], scratch / "memory")
    data["memory"]["folder"] = str(scratch / "memory")
    data["log"] = str(scratch / "log.jsonl")
    write_json(scratch / "stage.json", data)
    return scratch / "stage.json"


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()  # the first process may still be writing
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
