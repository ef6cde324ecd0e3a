"""``stage.json`` -> what LLaMA-Factory reads: a sharegpt data set and a training YAML.

Only the standard library and PyYAML: it runs in LLaMA-Factory's environment, not in cptbench's.

python convert.py stage.json FOLDER    writes FOLDER/{train.json, dataset_info.json, train.yaml}
"""

import json
import sys
from pathlib import Path

import yaml

TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}


def convert(stage, folder):
    """Write the data set and the settings of one stage; ``--set KEY=VALUE`` changes a setting."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for file in map(Path, stage["data"]):
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            # One <image> a picture, before the words, as the protocol shows them.
            asked = "<image>" * len(row["images"]) + row["prompt"]
            turn = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": row["target"]},
            ]
            images = [str(file.parent / name) for name in row["images"]]
            rows.append({"messages": turn, "images": images})
    info = {
        "file_name": "train.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": TAGS,
    }
    settings = {
        "model_name_or_path": stage["policy"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "cptbench",
        "dataset_dir": str(folder),
        "template": "qwen2_vl",
        "cutoff_len": 4096,
        "output_dir": stage["output"],
        "save_only_model": True,
        "report_to": "none",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 1.0e-5,
        "num_train_epochs": 1.0,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "bf16": True,
        "seed": stage["seed"],
        "data_seed": stage["seed"],
        **stage["config"],
    }
    write = {"train.json": rows, "dataset_info.json": {"cptbench": info}}
    for name, value in write.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    (folder / "train.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


if __name__ == "__main__":
    convert(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
