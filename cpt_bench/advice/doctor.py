"""What is installed, what fits together, what is missing and the command that repairs it.

Nothing is assumed: each finding is read from this machine when the command runs. Importing
the heavy packages would take half a minute, so their versions are read from their metadata.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from cpt_bench import environment
from cpt_bench.advice.plan import Needs, needs
from cpt_bench.engines import vllm_open
from cpt_bench.errors import CptBenchError
from cpt_bench.general.vlmevalkit import INSTALL, interpreter
from cpt_bench.models.base import is_here
from cpt_bench.models.start import hub_base
from cpt_bench.plugins import listing
from cpt_bench.suite import open_suite, prepared
from cpt_bench.suite.origins import Hub

State = Literal["ok", "note", "warn", "missing", "broken"]
Requires = Callable[[str], Sequence[str] | None]

PACKAGE: Final = "cptbench"
TESTED: Final = {
    "torch": "2.13",
    "transformers": "5.23",
    "trl": "1.16",
    "peft": "0.21",
    "accelerate": "1.15",
}
"""The versions the test suite runs with, to the minor."""

NEEDED_FOR: Final = {
    "train": "cptbench run",
    "grade": "symbolic answers, protocol paper",
    "endpoint": "--engine endpoint",
    "eval": "--general lm-eval:TASK",
    "deepspeed": "sharding=zero3, as most recipes for several GPUs",
    "vllm": "--engine vllm, use_vllm=true",
    "ray": "many runs at once",
    "tensorboard": "--report-to tensorboard",
    "study": "cptbench study build",
}
"""Extra to what it is for; what each installs, and in which versions, is in the metadata."""


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        topic: What it is about.
        state: ``ok``; ``note``: worth knowing; ``missing``: something optional is not there;
            ``warn``: untested or tight; ``broken``: what is installed does not fit together.
        found: What is the case.
        cure: The command that repairs it, or nothing.
    """

    topic: str
    state: State
    found: str
    cure: str = ""


def examine(folder: Path) -> list[Finding]:
    """Everything ``cptbench doctor`` reports; ``folder`` is where runs will be written."""
    wanted = extras()
    found = {}
    for name in dict.fromkeys(n for packages in wanted.values() for n in packages):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in vllm_open.PACKAGES:  # its build for CPUs has a name of its own
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.setdefault("vllm", importlib.metadata.version(name))
    hardware, suites = environment.hardware(), [*needs()]
    return [
        Finding("python", "ok", f"{hardware['python']} on {hardware['system']}"),
        *packages(found, wanted),
        *together(found, torchvision()),
        *devices(hardware, found, suites),
        vlmevalkit(),
        *data(),
        *models(),
        room(folder, suites),
    ]


def extras(requires: Requires = importlib.metadata.requires) -> dict[str, dict[str, SpecifierSet]]:
    """Extra to what it installs here: package to the versions that are accepted."""
    wanted: dict[str, dict[str, SpecifierSet]] = {extra: {} for extra in NEEDED_FOR}
    for requirement in _requirements(PACKAGE, requires):
        for extra, found in wanted.items():
            if requirement.marker and requirement.marker.evaluate({"extra": extra}):
                found[canonicalize_name(requirement.name)] = requirement.specifier
    return wanted


def _requirements(package: str, requires: Requires) -> Iterator[Requirement]:
    try:
        lines = requires(package) or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for line in lines:
        try:
            yield Requirement(line)
        except InvalidRequirement:  # written before there was a rule for it
            continue


def packages(found: dict[str, str], wanted: dict[str, dict[str, SpecifierSet]]) -> list[Finding]:
    """Each extra: all of it there and in range, or the command that installs it.

    Args:
        found: Installed versions by name.
        wanted: As :func:`extras` returns them.
    """
    out = []
    for extra, ranges in wanted.items():
        if not ranges:
            continue  # not for this system
        absent = [n for n in ranges if n not in found]
        cure = f"pip install '{PACKAGE}[{extra}]'"
        if absent:
            what = f"{', '.join(absent)} not installed; needed for {NEEDED_FOR[extra]}"
            out.append(Finding(extra, "missing", what, cure))
            continue
        outside = [n for n in ranges if not within(found[n], ranges[n])]
        line = ", ".join(f"{n} {found[n]}" for n in ranges)
        if outside:
            needed = ", ".join(f"{n} {ranges[n]}" for n in outside)
            out.append(Finding(extra, "broken", f"{line}; {PACKAGE} needs {needed}", cure))
            continue
        known = {n: TESTED[n] for n in ranges if n in TESTED}
        untested = [n for n, minor in known.items() if not within(found[n], f"=={minor}.*")]
        if untested:
            tested = ", ".join(f"{n} {known[n]}" for n in untested)
            out.append(Finding(extra, "warn", f"{line}; tested with {tested}"))
        else:
            tested = " (the tested versions)" if known else ""
            out.append(Finding(extra, "ok", f"{line}{tested}"))
    return out


def together(
    found: dict[str, str], vision: str | None, requires: Requires = importlib.metadata.requires
) -> list[Finding]:
    """Ways in which versions that are each fine do not fit together.

    Args:
        found: Installed versions by name.
        vision: The result of importing torchvision: None if it is not there, else ``ok`` or the
            error.
        requires: Gives a package's requirements, as its metadata has them.
    """
    out = []
    if vision is None:
        line = "not there; the families in docs/models.md do without it, others need it"
        out.append(Finding("torchvision", "note", line, fitting(found.get("torch", ""))))
    elif vision == "ok":
        out.append(Finding("torchvision", "ok", "there, and fits torch"))
    else:
        line = (
            f"does not fit torch ({vision}); it is ignored here, transformers alone stumbles on it"
        )
        needed = "vllm" in found  # which does not work without it
        line += ", and vLLM needs the one that was built for this torch" if needed else ""
        cure = "" if needed else "pip uninstall torchvision"
        out.append(Finding("torchvision", "broken", line, cure))
    misfits = [misfit for name in found for misfit in _misfits(name, found, requires)]
    if not misfits:
        out.append(Finding("versions", "ok", "each package accepts the versions of the others"))
    return [*out, *misfits]


def fitting(torch: str) -> str:
    """The command for the torchvision that is built for a torch (0.28 for 2.13, 0.29 for 2.14)."""
    major, _, rest = torch.partition(".")
    minor = rest.partition(".")[0]
    if major != "2" or not minor.isdigit():
        return ""
    index = ", from the index that torch came from" if "+" in torch else ""
    return f"pip install 'torchvision==0.{int(minor) + 15}.*'{index}"


def _misfits(package: str, found: dict[str, str], requires: Requires) -> Iterator[Finding]:
    """Installed packages that an installed package refuses by its own metadata."""
    for requirement in _requirements(package, requires):
        other = canonicalize_name(requirement.name)
        # An extra that is named after the package it adds holds what works with it.
        marker = requirement.marker
        applies = marker is None or marker.evaluate({"extra": other})
        if other not in found or not applies or within(found[other], requirement.specifier):
            continue
        what = f"{package} {found[package]} works with {other} {requirement.specifier}"
        cure = f"pip install '{package}=={found[package]}' '{other}{requirement.specifier}'"
        yield Finding("versions", "broken", f"{what}, not {found[other]}", cure)


def within(version: str, accepted: SpecifierSet | str) -> bool:
    """Whether a version is accepted; one before a release (``rc1``) counts as any other."""
    return SpecifierSet(str(accepted)).contains(version, prereleases=True)


def devices(
    hardware: dict[str, Any], found: dict[str, str], suites: Sequence[Needs] = ()
) -> list[Finding]:
    """Processor, memory and GPUs, and whether torch was built for them."""
    out = [
        Finding(
            "machine",
            "ok",
            f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB",
        )
    ]
    if not hardware["gpus"]:
        ship = [s.suite for s in suites if s.ships]
        here = f"{' and '.join(ship)} {'run' if len(ship) > 1 else 'runs'} here"
        beyond = [
            f"{s.suite} needs at least one of {s.gpu.memory:.0f} GB"
            for s in suites
            if not s.ships and s.gpu is not None
        ]
        return [*out, Finding("gpu", "note", "; ".join([f"none: {here}", *beyond]))]
    built = "+cpu" not in found.get("torch", "")
    for gpu in hardware["gpus"]:
        cure = "" if built else f"pip install --force-reinstall 'torch=={TESTED['torch']}.*'"
        line = gpu if built else f"{gpu}; but torch {found['torch']} is built for CPUs"
        out.append(Finding("gpu", "ok" if built else "broken", line, cure))
    return out


def vlmevalkit() -> Finding:
    """VLMEvalKit's own environment: is there one, and does it import."""
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
    for row in listing("suites"):
        name = row.name
        try:
            cards = open_suite(name).cards.values()
            fetched = [c for c in cards if isinstance(c.source, Hub)]
            there = [prepared.is_prepared(c, s) for c in fetched for s in c.splits]
            place = prepared.root() if fetched else None
        except CptBenchError as error:
            yield Finding(f"data {name}", "broken", str(error))
            continue
        if all(there):
            line = f"{len(there)} splits prepared" if there else "made on the spot"
            yield Finding(f"data {name}", "ok", line)
        else:
            line = f"{sum(there)} of {len(there)} splits prepared in {place}"
            cure = f"cptbench data prepare --suite {name}"
            yield Finding(f"data {name}", "missing", line, cure)


def models() -> Iterable[Finding]:
    """Which suites' base models are here, of those that are on the hub."""
    for row in listing("suites"):
        try:
            name = hub_base(open_suite(row.name))
            if name is None:
                continue
            here = is_here(name)
        except CptBenchError as error:
            yield Finding(f"base {row.name}", "broken", str(error))
            continue
        if here:
            yield Finding(f"base {row.name}", "ok", f"{name} is here")
        else:
            cure = f"cptbench data prepare --suite {row.name}"
            yield Finding(f"base {row.name}", "missing", f"{name} is not here", cure)


def room(folder: Path, suites: Sequence[Needs] = ()) -> Finding:
    """Free disk space where runs will be written, and which suites' checkpoints it has none for."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    if not os.access(place, os.W_OK):
        return Finding("disk", "broken", f"{place} is not writable")
    large = [f"{s.suite} with --keep all takes {s.disk:.0f}" for s in suites if s.disk > free]
    tight = f" ({', '.join(large)}: cptbench plan)" if large else ""
    return Finding("disk", "note" if tight else "ok", f"{free:.0f} GiB free in {place}{tight}")


def torchvision() -> str | None:
    """None when torchvision is not there, ``ok`` when it imports, else why it does not."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    command = [sys.executable, "-c", "import torchvision"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return "ok" if done.returncode == 0 else done.stderr.strip().splitlines()[-1][:120]
