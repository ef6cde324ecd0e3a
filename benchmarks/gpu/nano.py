"""Part ``nano``: whole runs on the GPU, in both arithmetics; and replies as the CPU gives them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu.scale import Place
from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.files import read_jsonl
from cpt_bench.sources import load_split
from cpt_bench.suite import open_suite
from cpt_bench.trainers.selfcheck import TOLERANCE

STAGES = 2


def measure(place: Place) -> dict[str, Any]:
    """Runs of two stages in both arithmetics, at the same time: they wait for imports mostly.

    Meanwhile the base model's replies are compared, then those of each float32 run's last stage.
    """
    short(place)
    with ThreadPoolExecutor() as pool:
        begun = {
            f"{trainer} {dtype}": pool.submit(run, place, trainer, dtype)
            for trainer, dtype in place.scale.nano
        }
        found = {"base": replies(place, open_suite("nano").base_path())}
        ended = {name: future.result() for name, future in begun.items()}
    for name, facts in ended.items():
        if "failed" not in facts and name.endswith(" float32"):
            found[name] = replies(place, last(place, name))
    return {"replies": found, "runs": ended, "tolerance": TOLERANCE["bfloat16"]}


def last(place: Place, name: str) -> Path:
    """The checkpoint of a run's last stage."""
    (stage,) = (place.own / name.replace(" ", "-") / "stages").glob(f"{STAGES}-*")
    return stage / "checkpoint"


def run(place: Place, trainer: str, dtype: str) -> dict[str, Any]:
    """One ``cptbench run``; a failure is a finding."""
    scale = place.scale
    out = place.own / f"{trainer}-{dtype}"
    changes = [f"device={scale.device}", f"dtype={dtype}", *scale.changes[trainer]]
    if trainer == "rft":
        # The difference is to be measured, and not to end the stage.
        changes.append("self_check_tolerance=1000")
    command = [
        sys.executable, "-m", "cpt_bench", "run", "--suite", str(short(place)), "--out", str(out),
        "--trainer", trainer, "--recipe", f"nano/{trainer}", "--no-share", "--json",
        *(["--limit", str(scale.limit)] if scale.limit else []),
        *(word for change in changes for word in ("--set", change)),
    ]  # fmt: skip
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=scale.patience)
    except subprocess.TimeoutExpired as error:
        written = (error.stderr or b"").decode(errors="replace")[-2000:]
        why = f"ended after {scale.patience} s"
        return {"failed": f"{why}: {written}", "seconds": scale.patience}
    taken = time.monotonic() - start
    if done.returncode:
        return {"failed": done.stderr[-2000:], "seconds": taken}
    rows = [row for file in sorted(out.glob("stages/*/train.jsonl")) for row in read_jsonl(file)]
    check = {key: row[key] for row in rows for key in row if key.startswith("self_check")}
    matrix = json.loads(done.stdout)["matrix"]["accuracy"]
    return {"seconds": taken, "steps": len(rows), "accuracy": matrix, "self-check": check}


def short(place: Place) -> Path:
    """A copy of nano that ends after its second task."""
    copy = place.own / "suite"
    if not copy.is_dir():
        whole = open_suite("nano")
        shutil.copytree(whole.folder, copy)
        facts = yaml.safe_load((copy / "suite.yaml").read_text())
        facts["sequence"] = list(whole.sequence[:STAGES])
        facts["general"] = list(whole.general[:1])
        (copy / "suite.yaml").write_text(yaml.safe_dump(facts))
    return copy


def replies(place: Place, checkpoint: Path) -> dict[str, Any]:
    """The share of nano's questions that get the same reply on both devices, in float32."""
    suite = open_suite("nano")
    asked = [
        Request(sample.id, suite.protocol.prompt(sample.question), sample.images)
        for task in suite.sequence[:3]
        for sample in islice(load_split(suite.card(task), "test"), place.scale.replies)
    ]
    most = suite.protocol.decoding.max_new_tokens
    here, there = (
        TransformersEngine(checkpoint, device=device, dtype="float32").generate(asked, most)
        for device in (place.scale.device, "cpu")
    )
    same = sum(a == b for a, b in zip(here, there, strict=True))
    return {"asked": len(asked), "equal": same, "share": same / len(asked)}
