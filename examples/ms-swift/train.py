"""One stage of supervised training by ms-swift, in an environment of its own.

    cptbench run --trainer "cmd:ENV/bin/python examples/ms-swift/train.py {stage}"

``--set KEY=VALUE`` gives any of ms-swift's settings: ``--set learning_rate=1e-5``. For models of
Qwen2.5-VL's architecture.
"""

# cptbench-files: train.py

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from swift.arguments import SftArguments
from swift.callbacks import TrainerCallback, callbacks_map
from swift.pipelines import sft_main
from swift.template import TemplateMeta, register_template
from swift.template.templates.qwen import Qwen2_5VLTemplate
from swift.template.vision_utils import load_image

stage = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
if stage["memory"]["samples_per_task"]:
    sys.exit("this adapter keeps no memory of earlier tasks: leave --privilege out")
if stage["chat"] is None:
    sys.exit("the start checkpoint's chat template has no parts that ms-swift could use")

NAME = "cptbench"


class Template(Qwen2_5VLTemplate):
    """The start checkpoint's own chat and picture sizes.

    ms-swift's has a system turn, the token numbers of Qwen's checkpoints, and pictures resized to
    multiples of 28 pixels, whatever the checkpoint's patches are.
    """

    def init_processor(self, processor):
        super().init_processor(processor)
        if processor is not None:
            numbers = processor.tokenizer.convert_tokens_to_ids
            self.image_token_id = numbers(stage["chat"]["image_token"])
            self.placeholder_tokens = [self.image_token_id]

    def replace_tag(self, media_type, index, inputs):
        picture = load_image(inputs.images[index]).convert("RGB")
        inputs.images[index] = picture.resize(self.size_of(picture), resample=3)
        return [stage["chat"]["image"]]

    def size_of(self, picture):
        """Width and height that the checkpoint's processor gives a picture."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        images = self.processor.image_processor
        height, width = smart_resize(
            picture.height,
            picture.width,
            factor=images.patch_size * images.merge_size,
            min_pixels=images.size["shortest_edge"],
            max_pixels=images.size["longest_edge"],
        )
        return width, height


class Log(TrainerCallback):
    """Appends the figures of each step to the stage's log."""

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            drawn = args.per_device_train_batch_size * args.gradient_accumulation_steps
            row = {"step": state.global_step, "steps": state.max_steps}
            row["samples"] = state.global_step * drawn
            row |= {k: float(logs[k]) for k in ("loss", "grad_norm", "learning_rate") if k in logs}
            with Path(stage["log"]).open("a") as log:
                print(json.dumps(row), file=log, flush=True)


def register():
    """Give ms-swift the template and the log."""
    chat = stage["chat"]
    register_template(
        TemplateMeta(
            NAME,
            prefix=[],
            prompt=[chat["before"] + "{{QUERY}}" + chat["after"]],
            chat_sep=None,
            suffix=[chat["end"]],
            template_cls=Template,
        ),
        exist_ok=True,
    )
    callbacks_map[NAME] = Log


def write_data(file):
    """Write the stage's samples as ms-swift reads them; returns how many there are."""
    rows = []
    for data in map(Path, stage["data"]):
        for row in map(json.loads, data.read_text(encoding="utf-8").splitlines()):
            # One <image> a picture, before the words, as the protocol shows them.
            question = "<image>" * len(row["images"]) + row["prompt"]
            turns = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": row["target"]},
            ]
            images = [str(data.parent / name) for name in row["images"]]
            rows.append({"messages": turns, "images": images})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def settings(file, samples):
    """ms-swift's settings: defaults, what ``--set`` gave, and those that a stage fixes."""
    gpu = torch.cuda.is_available()
    chosen = {
        "learning_rate": 1e-5,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1.0,
        "warmup_ratio": 0.1,
        "max_length": 8192,
        "torch_dtype": "bfloat16" if gpu else "float32",
        "attn_impl": None if gpu else "eager",
        "gradient_checkpointing": gpu,
        **stage["config"],
    }
    drawn = chosen["per_device_train_batch_size"] * chosen["gradient_accumulation_steps"]
    steps = chosen.pop("max_steps", 0) or int(chosen["num_train_epochs"] * samples / drawn)
    allowed = stage["budget"]["samples"]
    if allowed is not None:
        steps = min(steps, allowed // drawn)
    if steps < 1:
        sys.exit(f"one step draws {drawn} samples, and fewer are allowed or there")
    return {
        **chosen,
        "max_steps": steps,
        "model": stage["policy"],
        "model_type": "qwen2_5_vl",
        "template": NAME,
        "dataset": [str(file)],
        "split_dataset_ratio": 0.0,
        # All weights are trained; by default the tower that sees pictures is frozen.
        "tuner_type": "full",
        "freeze_vit": False,
        "freeze_aligner": False,
        "output_dir": stage["output"],
        "add_version": False,
        "save_strategy": "steps",
        "save_steps": steps,
        "save_only_model": True,
        "use_cpu": not gpu,
        "seed": stage["seed"],
        "data_seed": stage["seed"],
        "logging_steps": 1,
        "report_to": ["none"],
        "callbacks": [NAME],
    }


if __name__ == "__main__":
    torch.set_num_threads(stage["threads"])
    register()
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "train.jsonl"
        chosen = settings(data, write_data(data))
        sft_main(SftArguments(**chosen))
    output = Path(stage["output"])
    for link in filter(Path.is_symlink, output.iterdir()):  # to its last checkpoint
        link.unlink()
    for file in (output / f"checkpoint-{chosen['max_steps']}").iterdir():  # where it saves
        shutil.move(file, output / file.name)
