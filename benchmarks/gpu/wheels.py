"""Collect the packages that a GPU machine without a network lacks: ``make gpu-wheels``.

    python -m benchmarks.gpu.wheels FOLDER

``machine.yaml`` says what such a machine has. What cptbench needs to train, and what that needs in
turn, has to be there or in the folder, in a version that fits; and the folder has to be small
enough to travel with the repository.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from email import message_from_string
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError

ROOT = Path(__file__).resolve().parents[2]
MACHINE = Path(__file__).with_name("machine.yaml")
MIB = 2**20


class Wheel(NamedTuple):
    """A wheel: its version, and what it needs."""

    version: str
    needs: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Download what is not there yet, check, and print the size."""
    folder = Path(*(arguments if arguments is not None else sys.argv[1:]))
    machine = read_mapping(MACHINE)
    try:
        download(machine, folder)
        found = absent(machine, wheels_in(folder))
        if found:
            todo = f"Put it into {MACHINE.name}"
            what = f"{len(found)} needs are not met, among them {found[0]}"
            raise CptBenchError(what, where=folder, todo=todo)
        size, tracked = size_of(folder), repository()
        if size + tracked > machine["most"] * MIB:
            what = f"{(size + tracked) / MIB:.1f} MiB are to travel, {machine['most']} may"
            todo = "Leave out a wheel that the machine has"
            raise CptBenchError(what, where=folder, todo=todo)
    except CptBenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{folder}: {len(wheels_in(folder))} wheels, {size / MIB:.1f} MiB; with the repository's "
        f"files {(size + tracked) / MIB:.1f} of {machine['most']} MiB"
    )
    return 0


def download(machine: Mapping[str, Any], folder: Path) -> None:
    """Fetch the wheels; others in the folder are removed: two versions would stop pip.

    Raises:
        CptBenchError: pip cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {canonicalize_name(r.name): r for r in map(Requirement, machine["wheels"])}
    held = set()
    for file in folder.glob("*.whl"):
        name, version, *_ = parse_wheel_filename(file.name)
        if name in wanted and version in wanted[name].specifier:
            held.add(name)
        else:
            file.unlink()
    lacking = [str(requirement) for name, requirement in wanted.items() if name not in held]
    if not lacking:
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", machine["python"], "--dest", str(folder)]
    command += [word for name in machine["platforms"] for word in ("--platform", name)]
    done = subprocess.run([*command, *lacking], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise CptBenchError(last, where=folder, todo="Is there a network?")


def wheels_in(folder: Path) -> dict[str, Wheel]:
    """Package to its wheel in ``folder``."""
    found = {}
    for file in sorted(folder.glob("*.whl")):
        name, version, *_ = parse_wheel_filename(file.name)
        with zipfile.ZipFile(file) as archive:
            inside = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            fields = message_from_string(archive.read(inside).decode("utf-8"))
        found[str(name)] = Wheel(str(version), tuple(fields.get_all("Requires-Dist") or ()))
    return found


def needed() -> list[str]:
    """What cptbench needs to train, as ``pyproject.toml`` says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["train"]]


def absent(machine: Mapping[str, Any], wheels: Mapping[str, Wheel]) -> list[str]:
    """Needs that neither the machine nor a wheel meets, each with whose it is."""
    return [
        f"{requirement} (of {owner})"
        for owner, requirement in _needs(machine, wheels)
        if not _met(requirement, machine, wheels)
    ]


def _needs(
    machine: Mapping[str, Any], wheels: Mapping[str, Wheel]
) -> Iterator[tuple[str, Requirement]]:
    there = {**default_environment(), "python_version": machine["python"], "extra": ""}
    there |= {"python_full_version": f"{machine['python']}.0", "sys_platform": "linux"}
    owners = [("cptbench", needed()), *((name, wheel.needs) for name, wheel in wheels.items())]
    for owner, lines in owners:
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate(there):
                yield owner, requirement


def _met(requirement: Requirement, machine: Mapping[str, Any], wheels: Mapping[str, Wheel]) -> bool:
    name = canonicalize_name(requirement.name)
    if name in wheels:
        return requirement.specifier.contains(wheels[name].version, prereleases=True)
    if name not in machine["present"]:
        return False
    version = machine["present"][name]
    if version is None:
        # The machine is new: of an unknown version only a bound above, or an exact one, is open.
        return all(bound.operator in (">", ">=", "!=") for bound in requirement.specifier)
    return requirement.specifier.contains(str(version))


def size_of(folder: Path) -> int:
    """Bytes of the wheels."""
    return sum(file.stat().st_size for file in folder.glob("*.whl"))


def repository() -> int:
    """Bytes of the files that git tracks."""
    names = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, text=True
    ).stdout
    files = (ROOT / name for name in names.split("\0") if name)
    return sum(file.lstat().st_size for file in files if file.exists())


if __name__ == "__main__":
    sys.exit(main())
