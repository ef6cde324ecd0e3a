"""Runs a training script and records what its first steps were given.

    python recorded.py SCRIPT STAGE

Imports nothing of cptbench or of these tests: it runs in the environments of other frameworks, all
of whose trainers are subclasses of transformers'. ``state/step-INDEX-N.pt`` of the stage gets the
tensors of a batch, and its loss.
"""

import json
import runpy
import sys
from pathlib import Path

import torch
from transformers import Trainer

STEPS = 2


def record(folder, index):
    """Have each trainer write down its first batches."""
    step = Trainer.training_step
    done = []

    def recorded(self, model, inputs, *more, **named):
        if len(done) == STEPS:
            return step(self, model, inputs, *more, **named)
        batch = {k: v.detach().clone() for k, v in inputs.items() if torch.is_tensor(v)}
        loss = step(self, model, inputs, *more, **named)
        done.append(batch)
        torch.save({**batch, "loss": loss}, folder / f"step-{index}-{len(done)}.pt")
        return loss

    Trainer.training_step = recorded


if __name__ == "__main__":
    script, stage = sys.argv[1:]
    document = json.loads(Path(stage).read_text(encoding="utf-8"))
    record(Path(document["state"]), document["index"])
    sys.argv = [script, stage]
    runpy.run_path(script, run_name="__main__")
