"""A stage split by FSDP over two processes on a CPU: ``torchrun … -m tests.support.drive_fsdp FOLDER POLICY KILL``.

accelerate splits models over GPUs alone; here it is made to do so over gloo. The processes end hard
after step KILL; 0: never. What the split was is in ``FOLDER/split.json``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from cpt_bench.files import write_json
from cpt_bench.trainers.sft import SFT
from tests.support.stages import make_stage

_init = AcceleratorState.__init__


def split_on_cpu(self: Any, *args: Any, fsdp_plugin: Any = None, **named: Any) -> None:
    """accelerate's own, for processes on CPUs as for those on GPUs."""
    _init(self, *args, fsdp_plugin=fsdp_plugin, **named)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


AcceleratorState.__init__ = split_on_cpu


def main() -> None:
    torch.set_num_threads(1)
    folder, policy, kill = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    rank = int(os.environ["RANK"])
    rows: list[dict[str, Any]] = []
    # Each process has folders of its own, as stage.rank gives them; the saved states are shared.
    stage = make_stage("science", policy, folder / str(rank), rows)

    def log(row: dict[str, Any]) -> None:
        rows.append(row)
        if row["step"] == kill and len(rows) == kill:
            os._exit(9)

    class Seen(SFT):
        """SFT that writes down how its weights were split."""

        def learn(self, trainer: Any, *more: Any) -> None:
            super().learn(trainer, *more)
            shares = [p for p in trainer.model.parameters() if isinstance(p, DTensor)]
            whole, mine = (
                sum(t.numel() for t in tensors)
                for tensors in (shares, [p.to_local() for p in shares])
            )
            if rank == 0:
                write_json(folder / "split.json", {"whole": whole, "mine": mine, "rows": rows})

    config = Seen.Config(
        learning_rate=1e-3, max_steps=8, batch_size=4, warmup_steps=3, sharding="fsdp"
    )
    Seen(config).train(replace(stage, log=log, save_every=2, resume=folder / "resume"))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
