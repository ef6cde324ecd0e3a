"""One stage of supervised training by LLaMA-Factory, in an environment of its own.

    cptbench run --trainer "cmd:ENV/bin/python examples/llamafactory/train.py {stage}"

``--set KEY=VALUE`` gives any of LLaMA-Factory's settings: ``--set learning_rate=1e-5``.
"""

# cptbench-files: train.py

import json
import sys
import tempfile
from pathlib import Path

import torch
from llamafactory.data.formatter import StringFormatter
from llamafactory.data.mm_plugin import get_mm_plugin
from llamafactory.data.template import register_template
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback

stage = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
if stage["memory"]["samples_per_task"]:
    sys.exit("this adapter keeps no memory of earlier tasks: leave --privilege out")
if stage["chat"] is None:
    sys.exit("the start checkpoint's chat template has no parts that LLaMA-Factory could use")

TEMPLATE = "cptbench"
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}


def register():
    """Give LLaMA-Factory the start checkpoint's own chat; its qwen2_vl adds a system turn."""
    chat = stage["chat"]
    begin, _, end = chat["image"].partition(chat["image_token"])
    register_template(
        name=TEMPLATE,
        format_user=StringFormatter(slots=[chat["before"] + "{{content}}" + chat["after"]]),
        format_assistant=StringFormatter(slots=["{{content}}" + chat["end"]]),
        mm_plugin=get_mm_plugin(
            name="qwen2_vl",
            image_token=chat["image_token"],
            vision_bos_token=begin,
            vision_eos_token=end,
        ),
    )


def write_data(folder):
    """Write the stage's samples as a sharegpt data set; returns how many there are."""
    rows = []
    for file in map(Path, stage["data"]):
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            # One <image> a picture, before the words, as the protocol shows them.
            question = "<image>" * len(row["images"]) + row["prompt"]
            turns = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": row["target"]},
            ]
            images = [str(file.parent / name) for name in row["images"]]
            rows.append({"messages": turns, "images": images})
    info = {
        "file_name": "train.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": TAGS,
    }
    for name, value in (("train.json", rows), ("dataset_info.json", {"cptbench": info})):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return len(rows)


def settings(folder):
    """LLaMA-Factory's settings: those that a stage fixes, defaults, and what ``--set`` gave."""
    gpu = torch.cuda.is_available()
    return {
        "learning_rate": 1.0e-5,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1.0,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "cutoff_len": 8192,
        "bf16": gpu,
        "flash_attn": "auto" if gpu else "disabled",
        **stage["config"],
        # All weights are trained; by default the tower that sees pictures is frozen.
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
        # Pictures have the size that the checkpoint's own processor gives them.
        "image_min_pixels": 1,
        "image_max_pixels": 10**9,
        "template": TEMPLATE,
        "model_name_or_path": stage["policy"],
        "dataset": "cptbench",
        "dataset_dir": str(folder),
        "output_dir": stage["output"],
        "save_strategy": "no",
        "use_cpu": not gpu,
        "seed": stage["seed"],
        "data_seed": stage["seed"],
        "logging_steps": 1,
        "report_to": "none",
    }


def limit(chosen, samples):
    """Set the number of steps, so that no more samples are drawn than the budget allows."""
    drawn = chosen["per_device_train_batch_size"] * chosen["gradient_accumulation_steps"]
    steps = chosen.pop("max_steps", 0) or int(chosen["num_train_epochs"] * samples / drawn)
    allowed = stage["budget"]["samples"]
    if allowed is not None:
        steps = min(steps, allowed // drawn)
    if steps < 1:
        sys.exit(f"one step draws {drawn} samples, and fewer are allowed or there")
    return {**chosen, "max_steps": steps}, drawn


class Log(TrainerCallback):
    """Appends the figures of each step to the stage's log."""

    def __init__(self, drawn):
        self.drawn = drawn

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            row = {
                "step": state.global_step,
                "steps": state.max_steps,
                "samples": state.global_step * self.drawn,
                **{key: float(logs[key]) for key in ("loss", "grad_norm", "learning_rate")},
            }
            with Path(stage["log"]).open("a") as log:
                print(json.dumps(row), file=log, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(stage["threads"])
    register()
    with tempfile.TemporaryDirectory() as name:
        chosen, drawn = limit(settings(Path(name)), write_data(Path(name)))
        run_exp(chosen, callbacks=[Log(drawn)])
