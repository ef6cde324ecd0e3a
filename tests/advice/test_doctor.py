"""The doctor tells the truth: about this machine, and about machines that are out of order."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from cpt_bench.advice import doctor
from cpt_bench.advice.doctor import (
    Finding,
    devices,
    extras,
    fitting,
    packages,
    room,
    together,
    within,
)
from cpt_bench.advice.estimate import GPUS
from cpt_bench.advice.plan import Needs, needs
from tests.support.commands import Cli

GOOD = {
    "torch": "2.13.0+cpu", "transformers": "5.23.0", "trl": "1.16.0", "peft": "0.21.2",
    "accelerate": "1.15.0", "datasets": "5.2.0", "psutil": "7.0.0",
}  # fmt: skip
MACHINE: dict[str, Any] = {"cpu": "a cpu", "cores": 2, "memory_gib": 24, "gpus": []}


def topic(findings: Any, name: str) -> Finding:
    return next(f for f in findings if f.topic == name)


def test_this_machine(cli: Cli, tmp_path: Path) -> None:
    """Each version it reports is the installed one; what it calls missing cannot be found."""
    done = cli("doctor", "--json")
    report = json.loads(done.stdout)
    rows = {row["topic"]: row for row in report["findings"]}
    assert done.returncode == int(not report["healthy"])
    assert report["healthy"] == all(row["state"] != "broken" for row in report["findings"])
    for extra, names in extras().items():
        for name in names:
            try:
                assert f"{name} {version(name)}" in rows[extra]["found"]
            except PackageNotFoundError:
                assert rows[extra]["state"] == "missing" and name in rows[extra]["found"]
                assert rows[extra]["cure"] == f"pip install 'cptbench[{extra}]'"
    import os
    import shutil

    free = shutil.disk_usage(tmp_path).free / 2**30
    told = float(rows["disk"]["found"].split()[0])
    assert abs(told - free) < 5
    assert str(os.cpu_count()) in rows["machine"]["found"]
    assert rows["data nano"]["state"] == "ok"
    page = cli("doctor").stdout
    assert all(name in page for name in rows)


def test_the_tested_set_is_said_to_be_it() -> None:
    assert topic(packages(GOOD, extras()), "train").found.endswith("(the tested versions)")
    newer = topic(packages({**GOOD, "accelerate": "1.16.1"}, extras()), "train")
    assert newer.state == "warn" and "tested with accelerate 1.15" in newer.found


@pytest.mark.parametrize(
    ("name", "wrong", "wanted"),
    [("torch", "2.14.1", "<2.14,>=2.9"), ("trl", "1.17.0", "<1.17,>=1.16"), ("transformers", "4.51.3", "<5.24,>=5.20")],
)  # fmt: skip
def test_versions_out_of_range_are_broken(name: str, wrong: str, wanted: str) -> None:
    found = topic(packages({**GOOD, name: wrong}, extras()), "train")
    assert found.state == "broken" and f"{name} {wanted}" in found.found
    assert found.cure == "pip install 'cptbench[train]'"


def test_missing_packages_come_with_their_command() -> None:
    found = topic(packages({k: v for k, v in GOOD.items() if k != "peft"}, extras()), "train")
    assert (found.state, found.cure) == ("missing", "pip install 'cptbench[train]'")
    assert "peft not installed; needed for cptbench run" in found.found


def test_a_torchvision_that_breaks_transformers() -> None:
    found = topic(
        together(GOOD, "RuntimeError: operator torchvision::nms does not exist"), "torchvision"
    )
    assert found.state == "broken" and found.cure == "pip uninstall torchvision"
    absent = topic(together(GOOD, None), "torchvision")
    assert absent.state == "note" and "torchvision==0." in absent.cure
    assert fitting("2.13.0+cpu") == (
        "pip install 'torchvision==0.28.*', from the index that torch came from"
    )
    assert fitting("2.9.1") == "pip install 'torchvision==0.24.*'"
    assert fitting("") == fitting("3.0.0") == ""
    assert topic(together(GOOD, "ok"), "torchvision").state == "ok"


def test_ranges_are_those_of_the_metadata() -> None:
    """What pyproject.toml declares, as an installer writes it down; nothing is known beside that."""
    import tomllib

    file = Path(doctor.__file__).parents[2] / "pyproject.toml"
    declared = tomllib.loads(file.read_text())["project"]["optional-dependencies"]
    lines = []
    for extra, wanted in declared.items():
        for line in wanted:
            needed, _, marker = line.partition(";")
            also = f"({marker.strip()}) and " if marker else ""
            lines.append(f'{needed.strip()}; {also}extra == "{extra}"')
    found = extras(lambda name: lines)
    assert {*found} <= {*declared}
    for extra, ranges in found.items():
        needed = [Requirement(line) for line in declared[extra]]
        assert ranges == {r.name: r.specifier for r in needed}, extra

    def requires(name: str) -> list[str]:
        assert name == "cptbench"
        return [
            "numpy>=1",
            'torch>=9; extra == "train"',
            'vllm>=1; sys_platform == "amiga" and extra == "vllm"',
        ]

    assert {k: {n: str(s) for n, s in v.items()} for k, v in extras(requires).items() if v} == {"train": {"torch": ">=9"}}  # fmt: skip
    assert topic(packages({"torch": "2.13"}, extras(requires)), "train").state == "broken"
    assert not [f for f in packages({}, extras(requires)) if f.topic == "vllm"]


METADATA = {
    "vllm": {
        "0.30.0": ["torch==2.13.0", "transformers>=5.10"],
        "0.31.0": ["torch==2.13.0", "transformers<=5.17.9,>=5.10"],
        "0.32.0": ["torch==2.13.0", "transformers<=5.19.9", "not a requirement @"],
    },
    "trl": {"1.16.0": ['vllm<=0.31.0,>=0.22.0; extra == "vllm"', 'vllm>=99; extra == "dev"']},
}
"""What such packages say they need."""


@pytest.mark.parametrize(
    ("vllm", "transformers", "torch", "complaints"),
    [("0.30.0", "5.23.0", "2.13.0", []), ("0.31.0", "5.17.1", "2.13.0+cu130", []),
     ("0.31.0", "5.23.0", "2.13.0", ["vllm 0.31.0 works with transformers <=5.17.9,>=5.10, not 5.23.0"]),
     ("0.32.0", "5.19.0", "2.13.0", ["trl 1.16.0 works with vllm <=0.31.0,>=0.22.0, not 0.32.0"]),
     ("0.30.0", "5.23.0", "2.12.1", ["vllm 0.30.0 works with torch ==2.13.0, not 2.12.1"])],
)  # fmt: skip
def test_packages_that_refuse_each_other(
    vllm: str, transformers: str, torch: str, complaints: list[str]
) -> None:
    """By what each says itself, whichever packages they are."""
    found = {**GOOD, "transformers": transformers, "vllm": vllm, "torch": torch}

    def requires(name: str) -> list[str]:
        return METADATA.get(name, {}).get(found[name], [])

    told = [f for f in together(found, None, requires) if f.topic == "versions"]
    assert [f.found for f in told if f.state == "broken"] == complaints
    assert all(f.cure.startswith("pip install '") for f in told if f.state == "broken")
    assert bool(complaints) or [f.state for f in told] == ["ok"]


def test_what_suites_need_is_computed() -> None:
    found = {need.suite: need for need in needs()}
    assert found["nano"].ships and found["nano"].disk < 1
    assert not found["cpt7"].ships and found["cpt7"].gpu == GPUS["a100-80"]
    assert found["cpt7"].disk == pytest.approx(8 * 2 * 8_292_166_656 / 2**30)
    # gym's base model is unpacked on some machines and missing on others.
    large = [Needs("huge", False, None, 1e9), found["nano"], found["cpt7"]]
    told = room(Path(), large)
    assert told.state == "note" and "huge with --keep all takes 1000000000" in told.found
    assert "nano" not in told.found
    assert (
        "none: nano runs here; cpt7 needs at least one of 80 GB"
        in topic(devices(MACHINE, GOOD, large), "gpu").found
    )
    two = [found["nano"], found["nano"]._replace(suite="mine"), found["cpt7"]]
    assert "none: nano and mine run here; cpt7" in topic(devices(MACHINE, GOOD, two), "gpu").found


def test_a_gpu_that_torch_cannot_use() -> None:
    gpu = {**MACHINE, "gpus": ["NVIDIA H200, 580.1, 143771 MiB"]}
    assert topic(devices(gpu, GOOD), "gpu").state == "broken"
    assert topic(devices(gpu, {"torch": "2.13.0"}), "gpu").state == "ok"
    assert topic(devices(MACHINE, GOOD), "gpu").state == "note"


def test_versions_are_compared_as_numbers() -> None:
    assert within("2.10.0", "<2.14,>=2.9") and not within("2.14.0+cu130", "<2.14,>=2.9")
    assert within("5.23.1", "==5.23.*") and not within("5.3.0", "==5.23.*")
    assert not within("2.8.9", ">=2.9") and within("2.13.0+cpu", "==2.13.0")
    assert within("2.10.0rc1", ">=2.9") and not within("2.9.0rc1", ">=2.9")


def test_a_broken_machine_ends_with_one(cli: Cli, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    import os

    done = cli("doctor", env={**os.environ, "CPTBENCH_VLMEVALKIT": str(python)})
    assert done.returncode == 1
    assert "broken   vlmevalkit" in done.stdout and "-> python3 -m venv" in done.stdout
