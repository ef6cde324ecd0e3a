"""Runs VLMEvalKit in a separate environment.

It needs torchvision, OpenCV and sixty other packages, and the newest torchvision requires another
torch. So it is not installed in this environment, but runs as a subprocess of another Python. That
process does the parts that define VLMEvalKit's score: it builds the prompts (``build_prompt``) and
evaluates the predictions (``evaluate``, exact matching, no judge). The replies in between come from
our engine, in batches; VLMEvalKit's own loop asks one question at a time.

The other Python is ``$CPTBENCH_VLMEVALKIT``, else the one in ``~/.cache/cptbench/vlmevalkit``.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cpt_bench.engines import Engine, Request
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.general.measurement import Measured

LOADS_CHECKPOINTS = False
"""``measure`` needs an engine."""

VARIABLE = "CPTBENCH_VLMEVALKIT"
HOME = Path("~/.cache/cptbench/vlmevalkit")
PINS = "torch==2.13.0 torchvision==0.28.0 transformers==5.23.0 ms-vlmeval==0.0.20 setuptools"
"""Installed together for the tests; torch and torchvision must be a pair."""
INSTALL = f"python3 -m venv {HOME} && {HOME}/bin/pip install {PINS}"
MAX_NEW_TOKENS = 2048
"""VLMEvalKit's settings for Qwen2.5-VL."""
DRIVER = Path(__file__).with_name("vlmevalkit_driver.py")


def interpreter() -> Path:
    """The Python of VLMEvalKit's environment.

    Raises:
        CptBenchError: There is none.
    """
    try:
        python = Path(os.environ.get(VARIABLE, HOME / "bin/python")).expanduser()
    except RuntimeError:
        raise CptBenchError(
            "there is no home directory to look for VLMEvalKit's environment in",
            where="$HOME",
            todo=f"Set {VARIABLE} to a Python that has vlmeval",
        ) from None
    if not python.is_file():
        raise CptBenchError(
            "VLMEvalKit's environment does not exist",
            where=python,
            todo=f"Create it with: {INSTALL}; or set {VARIABLE} to a Python that has vlmeval",
        )
    return python


def installed() -> str:
    """The interpreter of VLMEvalKit's environment.

    Raises:
        CptBenchError: There is none.
    """
    return str(interpreter())


def measure(
    task: str,
    engine: Engine,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    limit: int | None = None,
    data: Path | None = None,
    timeout: float = 3600,
) -> Measured:
    """Run one dataset.

    Args:
        task: ``POPE``, ``MMMU_DEV_VAL``; or ``ImageYORNDataset/NAME`` for ``NAME.tsv`` in
            VLMEvalKit's data folder, read by that class of VLMEvalKit.
        engine: The engine that answers.
        max_new_tokens: Maximal length of a reply.
        limit: Use only the first ``limit`` questions.
        data: VLMEvalKit's data folder, instead of ``$LMUData``.
        timeout: Seconds that each of the two calls may take, downloads included.

    Raises:
        CptBenchError: There is no environment, no such dataset, or VLMEvalKit failed.
    """
    python = interpreter()
    with tempfile.TemporaryDirectory(prefix="cptbench-vlmevalkit-") as scratch:
        work = Path(scratch)
        environment = {**os.environ, **({"LMUData": str(data)} if data else {})}

        def call(verb: str) -> dict[str, Any]:
            _run([str(python), str(DRIVER), verb, task, scratch], environment, timeout)
            result: dict[str, Any] = read_json(work / f"{verb}.json")
            return result

        asked = call("prompts")
        questions = asked["questions"][:limit]
        replies = engine.generate([request(q) for q in questions], max_new_tokens)
        answers = {q["index"]: r.text for q, r in zip(questions, replies, strict=True)}
        (work / "predictions.json").write_text(json.dumps(answers), encoding="utf-8")
        scored = call("score")
    rows = [
        {
            "id": question["index"],
            "reply": reply.text,
            "extracted": scored["extracted"].get(question["index"]),
            "score": float(scored["samples"][question["index"]]),
        }
        for question, reply in zip(questions, replies, strict=True)
    ]
    return Measured(
        rows=rows,
        score=float(scored["headline"]),
        provenance={
            "evaluator": "vlmevalkit",
            "version": f"{asked['distribution']} {asked['version']}",
            "task": task,
            "task_version": asked["data_sha256"][:12],
            "class": asked["class"],
            "metric": scored["metric"],
            "result": scored["result"],
            "judge": "exact_matching",
            "max_new_tokens": max_new_tokens,
            "limit": limit,
        },
    )


def request(question: dict[str, Any]) -> Request:
    """VLMEvalKit's message (texts and image files, in its order) as a request to an engine."""
    images: list[bytes] = []
    layout: list[str | int] = []
    for part in question["message"]:
        if part["type"] == "text":
            layout.append(part["value"])
        elif part["type"] == "image":
            layout.append(len(images))
            images.append(Path(part["value"]).read_bytes())
        else:
            raise CptBenchError(f"a message contains a {part['type']}", where=question["index"])
    words = "\n".join(part for part in layout if isinstance(part, str))
    return Request(str(question["index"]), words, tuple(images), layout=tuple(layout))


def _run(command: list[str], environment: dict[str, str], timeout: float) -> None:
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise CptBenchError(
            f"VLMEvalKit took more than {timeout:.0f} s", where=command[2]
        ) from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        raise CptBenchError(
            f"VLMEvalKit failed: {lines[-1][:300]}",
            where=f"{command[3]} {command[2]}",
            todo=f"Its environment is {command[0]}; it was created with: {INSTALL}",
        )
