"""One stage of supervised training by a plain script of TRL, in an environment of its own.

    cptbench run --trainer "cmd:ENV/bin/python examples/trl-script/train.py {stage}"

Nothing of cptbench is imported. ``--set KEY=VALUE`` gives settings of TRL's SFTConfig.
"""

# cptbench-files: train.py

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import SFTConfig, SFTTrainer

stage = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
if stage["memory"]["samples_per_task"]:
    sys.exit("this script keeps no memory of earlier tasks: leave --privilege out")


def examples():
    """The samples as TRL takes them; it puts pictures before the words, as the protocol does."""
    rows = []
    for file in map(Path, stage["data"]):
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            pictures = [Image.open(file.parent / name).convert("RGB") for name in row["images"]]
            rows.append(
                {
                    "prompt": [{"role": "user", "content": row["prompt"]}],
                    "completion": [{"role": "assistant", "content": row["target"]}],
                    "images": pictures,
                }
            )
    return rows


def arguments(samples):
    """TRL's settings: defaults, what ``--set`` gave, and those that a stage fixes."""
    gpu = torch.cuda.is_available()
    chosen = {
        "learning_rate": 1e-5,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1.0,
        "bf16": gpu,
        **stage["config"],
    }
    drawn = chosen["per_device_train_batch_size"] * chosen["gradient_accumulation_steps"]
    steps = chosen.pop("max_steps", 0) or int(chosen["num_train_epochs"] * samples / drawn)
    allowed = stage["budget"]["samples"]
    if allowed is not None:
        steps = min(steps, allowed // drawn)
    if steps < 1:
        sys.exit(f"one step draws {drawn} samples, and fewer are allowed or there")
    fixed = SFTConfig(
        **chosen,
        max_steps=steps,
        output_dir=stage["output"],
        seed=stage["seed"],
        data_seed=stage["seed"],
        use_cpu=not gpu,
        max_length=None,
        completion_only_loss=True,
        gradient_checkpointing=gpu,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    return fixed, drawn


class Log(TrainerCallback):
    """Appends the figures of each step to the stage's log."""

    def __init__(self, drawn):
        self.drawn = drawn

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            step = {"step": state.global_step, "steps": state.max_steps}
            step["samples"] = state.global_step * self.drawn
            figures = {k: float(v) for k, v in logs.items() if k in ("loss", "grad_norm")}
            with Path(stage["log"]).open("a") as log:
                print(json.dumps(step | figures), file=log, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(stage["threads"])
    rows = examples()
    chosen, drawn = arguments(len(rows))
    processor = AutoProcessor.from_pretrained(stage["policy"])
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(stage["policy"]),
        args=chosen,
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        callbacks=[Log(drawn)],
    )
    trainer.train()
    trainer.save_model(stage["output"])
    processor.save_pretrained(stage["output"])
