"""What is installed, what fits together, what is missing and the command that mends it.

Every finding is looked up when it is asked for; nothing is assumed from a declaration. Importing
the heavy packages would take half a minute, so their versions are read from their metadata.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cpt_bench import environment
from cpt_bench.engines import vllm_open

State = Literal["ok", "note", "warn", "missing", "broken"]

TESTED = {
    "torch": "2.13",
    "transformers": "5.23",
    "trl": "1.16",
    "peft": "0.21",
    "accelerate": "1.15",
}
"""The versions the test suite runs with, to the minor."""

RANGES = {
    "torch": ("2.9", "2.14"),
    "transformers": ("5.20", "5.24"),
    "trl": ("1.16", "1.17"),
    "peft": ("0.18", None),
    "accelerate": ("1.10", None),
    "datasets": ("4", None),
}
"""What [train] accepts: from, and below."""

VLLM: dict[str, tuple[str, str | None]] = {
    "0.30": ("2.13", None),
    "0.31": ("2.13", "5.17"),
    "0.32": ("2.13", "5.19"),
}
"""vLLM's minor to the torch it pins and the newest transformers it accepts (from its metadata)."""
VLLM_FOR_TRL = "0.31"
"""The newest that trl 1.16 works with."""

EXTRAS = {
    "train": ("torch", "transformers", "trl", "peft", "accelerate", "datasets"),
    "grade": ("math-verify", "mathruler"),
    "endpoint": ("openai",),
    "eval": ("lm-eval",),
    "vllm": ("vllm",),
    "ray": ("ray",),
}
"""Extra to its packages."""

NEEDED_FOR = {
    "train": "cptbench run",
    "grade": "symbolic answers, protocol paper",
    "endpoint": "--engine endpoint",
    "eval": "--general lm-eval:TASK",
    "vllm": "--engine vllm, use_vllm=true",
    "ray": "many runs at once",
}


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        topic: What was looked at.
        state: ``ok``; ``note``: worth knowing; ``missing``: something optional is not there;
            ``warn``: untested or tight; ``broken``: what is installed does not fit together.
        says: What was found.
        cure: The command that mends it, or nothing.
    """

    topic: str
    state: State
    says: str
    cure: str = ""


def examine(folder: Path) -> list[Finding]:
    """Everything ``cptbench doctor`` reports; ``folder`` is where runs will be written."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    wanted = dict.fromkeys(p for packages in EXTRAS.values() for p in packages)
    for name in (*wanted, *vllm_open.PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    hardware = environment.hardware()
    findings = [
        Finding("python", "ok", f"{hardware['python']} on {hardware['system']}"),
        *packages(found),
        *together(found, torchvision()),
        *devices(hardware, found),
        vlmevalkit(),
        *data(),
        room(folder),
    ]
    return findings


def packages(found: dict[str, str]) -> list[Finding]:
    """Each extra: all of it there and in range, or the command that installs it."""
    out = []
    for extra, names in EXTRAS.items():
        if extra == "vllm" and any(name in found for name in vllm_open.PACKAGES):
            continue  # of which together() has more to say
        absent = [n for n in names if n not in found]
        cure = f"pip install 'cptbench[{extra}]'"
        if absent:
            what = f"{', '.join(absent)} not installed; needed for {NEEDED_FOR[extra]}"
            out.append(Finding(extra, "missing", what, cure))
            continue
        outside = [n for n in names if n in RANGES and not within(found[n], *RANGES[n])]
        says = ", ".join(f"{n} {found[n]}" for n in names)
        if outside:
            wanted = ", ".join(f"{n} {spoken(*RANGES[n])}" for n in outside)
            out.append(Finding(extra, "broken", f"{says}; cptbench needs {wanted}", cure))
            continue
        untested = [n for n in names if n in TESTED and not within(found[n], TESTED[n], None, True)]
        if untested:
            wanted = ", ".join(f"{n} {TESTED[n]}" for n in untested)
            out.append(Finding(extra, "warn", f"{says}; tested with {wanted}"))
        else:
            tested = " (the tested versions)" if any(n in TESTED for n in names) else ""
            out.append(Finding(extra, "ok", f"{says}{tested}"))
    return out


def together(found: dict[str, str], vision: str | None) -> list[Finding]:
    """Known ways in which versions that are each fine do not fit together.

    Args:
        found: Installed versions by name.
        vision: What importing torchvision said: None if it is not there, else ``ok`` or the error.
    """
    out = []
    if vision is None:
        says = "not there; Qwen2.5-VL's images are read without it"
        out.append(Finding("torchvision", "ok", says))
    elif vision == "ok":
        out.append(Finding("torchvision", "ok", "there, and fits torch"))
    else:
        says = f"does not fit torch ({vision}); transformers then opens no vision-language model"
        needed = any(name in found for name in vllm_open.PACKAGES)  # vLLM does not go without it
        cure = "" if needed else "pip uninstall torchvision"
        says += ", and vLLM needs the one that was built for this torch" if needed else ""
        out.append(Finding("torchvision", "broken", says, cure))
    return [*out, *vllm(found)]


def vllm(found: dict[str, str]) -> list[Finding]:
    """The vLLM that is installed, for GPUs or for CPUs, and whether it fits the rest."""
    package = next((name for name in reversed(vllm_open.PACKAGES) if name in found), None)
    if package is None:
        return []
    says = f"{package} {found[package]}"
    minor = ".".join(found[package].split(".")[:2])
    if minor not in VLLM:
        return [Finding("vllm", "warn", f"{says} is untested; known: {', '.join(VLLM)}")]
    torch, newest = VLLM[minor]
    fits = within(found.get("torch", "0"), torch, None, True)
    fits = fits and (newest is None or compare(found.get("transformers", "0"), newest) <= 0)
    fits = fits and compare(found[package], VLLM_FOR_TRL) <= 0
    says += f": {minor} wants torch {torch} and transformers up to {newest or 'any'}"
    says += f"; trl works with vllm up to {VLLM_FOR_TRL}"
    cure = f"pip install '{package}==0.30.*' 'torch==2.13.*' 'transformers<5.24'"
    return [Finding("vllm", "ok" if fits else "broken", says, "" if fits else cure)]


def devices(hardware: dict[str, Any], found: dict[str, str]) -> list[Finding]:
    """Processor, memory and GPUs, and whether torch was built for them."""
    out = [
        Finding(
            "machine",
            "ok",
            f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB",
        )
    ]
    if not hardware["gpus"]:
        says = "none: nano runs here; cpt7 needs at least one of 80 GB"
        return [*out, Finding("gpu", "note", says)]
    built = "+cpu" not in found.get("torch", "")
    for gpu in hardware["gpus"]:
        cure = "" if built else "pip install --force-reinstall torch==2.13.0"
        says = gpu if built else f"{gpu}; but torch {found['torch']} is built for CPUs"
        out.append(Finding("gpu", "ok" if built else "broken", says, cure))
    return out


def vlmevalkit() -> Finding:
    """VLMEvalKit's own environment: is there one, and does it import."""
    from cpt_bench.errors import CptBenchError
    from cpt_bench.general.vlmevalkit import INSTALL, interpreter

    try:
        python = interpreter()
    except CptBenchError:
        return Finding(
            "vlmevalkit", "missing", "no environment; needed for --general vlmevalkit:TASK", INSTALL
        )
    ask = (
        "from importlib.metadata import packages_distributions as p, version as v; "
        "d = p()['vlmeval'][0]; print(d, v(d))"
    )
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, timeout=120)
    if done.returncode:
        return Finding("vlmevalkit", "broken", f"{python} has no vlmeval", INSTALL)
    return Finding("vlmevalkit", "ok", f"{done.stdout.strip()} in {python}")


def data() -> Iterable[Finding]:
    """Which suites' data are prepared."""
    from cpt_bench.errors import CptBenchError
    from cpt_bench.origins import Generator
    from cpt_bench.plugins import BUILTIN
    from cpt_bench.sources import cache
    from cpt_bench.suite import open_suite

    for name in BUILTIN["suites"]:
        try:
            cards = open_suite(name).cards.values()
        except CptBenchError as error:
            yield Finding(f"data {name}", "broken", str(error))
            continue
        fetched = [c for c in cards if not isinstance(c.source, Generator)]
        splits = [(c, s) for c in fetched for s in c.splits]
        there = [cache.is_prepared(c, s) for c, s in splits]
        if all(there):
            says = "made on the spot" if not splits else f"{len(splits)} splits prepared"
            yield Finding(f"data {name}", "ok", says)
        else:
            says = f"{sum(there)} of {len(there)} splits prepared in {cache.root()}"
            cure = f"cptbench data prepare --suite {name}"
            yield Finding(f"data {name}", "missing", says, cure)


def room(folder: Path) -> Finding:
    """Free disk space where runs will be written."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    writable = os.access(place, os.W_OK)
    if not writable:
        return Finding("disk", "broken", f"{place} is not writable")
    tight = " (cpt7 with --keep all takes 124: cptbench plan)" if free < 124 else ""
    return Finding("disk", "note" if tight else "ok", f"{free:.0f} GiB free in {place}{tight}")


def torchvision() -> str | None:
    """None when torchvision is not there, ``ok`` when it imports, else why it does not."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    import sys

    command = [sys.executable, "-c", "import torchvision"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return "ok" if done.returncode == 0 else done.stderr.strip().splitlines()[-1][:120]


def compare(a: str, b: str) -> int:
    """-1, 0 or 1 as ``a`` is older, the same or newer than ``b``, to the digits ``b`` has."""
    left, right = _digits(a)[: len(_digits(b))], _digits(b)
    return (left > right) - (left < right)


def within(version: str, low: str, below: str | None, same: bool = False) -> bool:
    """Whether ``version`` is at least ``low`` and below ``below``; ``same``: of ``low``'s minor."""
    if same:
        return compare(version, low) == 0
    return compare(version, low) >= 0 and (below is None or compare(version, below) < 0)


def spoken(low: str, below: str | None) -> str:
    return f">={low}" + (f",<{below}" if below else "")


def _digits(version: str) -> list[int]:
    parts = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return parts
