"""Who sees which GPUs: training and evaluation never share one."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.worker.devices import VISIBLE, Devices, divide, processes, visible

ALL = Devices()
TWO, FOUR = ("0", "1"), ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("gpus", "trained", "wanted", "cores", "needed", "overlap", "devices"),
    [
        # No GPU: the cores decide.
        ((), 1, None, 2, 1, True, ALL),
        ((), 1, None, 1, 1, False, ALL),
        ((), 1, True, 1, 1, True, ALL),
        ((), 2, False, 2, 1, False, ALL),
        ((), None, None, 2, 1, True, ALL),
        # One GPU: never at one time.
        (("0",), 1, None, 16, 1, False, ALL),
        (("0",), 1, False, 16, 1, False, ALL),
        (("5",), None, None, 16, 1, False, ALL),
        # One to spare: the last.
        (TWO, 1, None, 16, 1, True, Devices(("0",), ("1",))),
        (TWO, 1, True, 1, 1, True, Devices(("0",), ("1",))),
        (FOUR, 1, None, 16, 1, True, Devices(("0", "1", "2"), ("3",))),
        (FOUR, 3, None, 16, 1, True, Devices(("0", "1", "2"), ("3",))),
        (("3", "GPU-a"), 1, None, 16, 1, True, Devices(("3",), ("GPU-a",))),
        # Training takes all of them, or may.
        (FOUR, 4, None, 16, 1, False, ALL),
        (FOUR, 8, None, 16, 1, False, ALL),
        (FOUR, None, None, 16, 1, False, ALL),
        # Without overlap each may have all.
        (FOUR, 1, False, 16, 1, False, ALL),
        # An engine on several.
        (FOUR, 2, None, 16, 2, True, Devices(("0", "1"), ("2", "3"))),
        (FOUR, 3, None, 16, 2, False, ALL),
        (TWO, 1, None, 16, 2, False, ALL),
    ],
)
def test_the_table(
    gpus: tuple[str, ...], trained: int | None, wanted: bool | None, cores: int, needed: int,
    overlap: bool, devices: Devices,
) -> None:  # fmt: skip
    assert divide(gpus, trained, wanted, cores, needed) == (overlap, devices)
    seen = (devices.training or gpus, devices.evaluation or gpus)
    assert not overlap or not gpus or not {*seen[0]} & {*seen[1]}


@pytest.mark.parametrize(
    ("gpus", "trained", "needed"), [(("0",), 1, 1), (FOUR, 4, 1), (FOUR, None, 1), (TWO, 1, 2)]
)
def test_overlap_by_hand_on_a_shared_gpu_is_refused(
    gpus: tuple[str, ...], trained: int | None, needed: int
) -> None:
    with pytest.raises(CptBenchError, match="--overlap: evaluation would share a GPU") as caught:
        divide(gpus, trained, True, 16, needed)
    assert len(str(caught.value).splitlines()) == 1


def test_an_engine_that_is_too_wide_is_refused() -> None:
    with pytest.raises(CptBenchError, match="the engine takes 4 GPUs, 2 visible"):
        divide(TWO, 1, None, 16, 4)


def test_what_a_process_has_in_its_environment() -> None:
    apart = Devices(("0", "1"), ("2",))
    assert apart.env(training=True) == {VISIBLE: "0,1"}
    assert apart.env(training=False) == {VISIBLE: "2"}
    assert ALL.env(training=True) == ALL.env(training=False) == {}


@pytest.mark.parametrize(
    ("launch", "count"),
    [
        (None, 1),
        ("torchrun --nproc_per_node 8", 8),
        ("torchrun --nproc-per-node=3 --nnodes 1", 3),
        ("torchrun --nproc_per_node gpu", None),
        ("torchrun", 1),
        ("/usr/bin/torchrun --nnodes 1", 1),
        ("accelerate launch --num_processes=2", 2),
        ("accelerate launch --num_processes 2 --gpu_ids 0,3", None),
        ("accelerate launch --config_file x.yaml", None),
    ],
)
def test_how_many_processes_train(launch: str | None, count: int | None) -> None:
    assert processes(launch) == count


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("", ()),
        ("-1", ()),
        ("0", ("0",)),
        ("3, 1", ("3", "1")),
        ("0,-1,2", ("0",)),
        ("GPU-8d1,MIG-77", ("GPU-8d1", "MIG-77")),
    ],
)
def test_gpus_that_are_named(named: str, found: tuple[str, ...], monkeypatch: Any) -> None:
    monkeypatch.setenv(VISIBLE, named)
    assert visible() == found


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ("echo 'GPU 0: H100 (UUID: GPU-1)'; echo 'GPU 1: H100 (UUID: GPU-2)'", ("0", "1")),
        ("echo 'GPU 0: A100 (UUID: GPU-1)'; echo '  MIG 1g.5gb Device 0: (UUID: MIG-1)'", ("0",)),
        ("echo 'NVIDIA-SMI has failed'; exit 9", ()),
    ],
)
def test_gpus_that_are_counted(
    says: str, found: tuple[str, ...], tmp_path: Path, monkeypatch: Any
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ "$1" = -L ] || exit 3\n{says}\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert visible() == found
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible() == ()
