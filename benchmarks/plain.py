"""A whole ``cptbench run`` on nano against the script that a user would write instead.

The script: TRL's SFTTrainer or GRPOTrainer on one task after the other, the checkpoint saved, then
lm-eval's command line (``hf-multimodal``, batches of 128) on every task's test split. It has the
same model, samples, prompts, rewards, settings and both cores, and nothing of cptbench but a
processor that needs no torchvision. lm-eval has no way to ask ``knowledge``, which has no pictures,
so that the script evaluates one split less; and the script measures no KL and no kinds of
forgetting. Its stages are alike, and one takes minutes: ``--stages`` of them are run, the others
are taken to be as long. Beside it, evaluating one checkpoint by either command.

    python -m benchmarks.plain --trainer sft --out benchmarks/results/plain-sft.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset

from benchmarks.pictures import with_pictures
from benchmarks.questions import SUITE, requests, write_task
from benchmarks.systems.lm_eval import stock_processor
from cpt_bench import environment
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.files import write_text
from cpt_bench.grading import grade, reward
from cpt_bench.sources import load_split
from cpt_bench.stage.recipes import named

ASKED = [name for name in (*SUITE.sequence, *SUITE.general) if name != "knowledge"]

# lm-eval's command line, with the processor that needs no torchvision.
LM_EVAL = (
    "from benchmarks.systems.lm_eval import stock_processor; stock_processor(); "
    "from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
)


def questions(task: str, kind: str) -> Dataset:
    """The train split as TRL takes it."""
    rows = []
    for i, sample in enumerate(load_split(SUITE.card(task), "train")):
        row: dict[str, Any] = {
            "prompt": [{"role": "user", "content": SUITE.protocol.prompt(sample.question)}],
            "images": [{"bytes": image, "path": None} for image in sample.images],
        }
        if kind == "sft":
            target = SUITE.protocol.target(sample.answers[0])
            row["completion"] = [{"role": "assistant", "content": target}]
        else:
            row["sample"] = i
        rows.append(row)
    return with_pictures(rows)


def train(kind: str, task: str, model: Path, out: Path, settings: dict[str, Any]) -> None:
    """One stage with stock TRL."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    stock_processor()
    processor = AutoProcessor.from_pretrained(model)
    policy = AutoModelForImageTextToText.from_pretrained(model, attn_implementation="eager")
    common = {
        "output_dir": str(out / "trl"), "use_cpu": True, "bf16": False, "save_strategy": "no",
        "report_to": "none", "logging_steps": 10, "max_steps": settings["max_steps"],
        "learning_rate": settings["learning_rate"], "warmup_steps": settings["warmup_steps"],
    }  # fmt: skip
    data = questions(task, kind)
    if kind == "sft":
        arguments = SFTConfig(**common, max_length=None, completion_only_loss=True,
                              per_device_train_batch_size=settings["batch_size"])  # fmt: skip
        trainer: Any = SFTTrainer(
            model=policy, args=arguments, train_dataset=data, processing_class=processor
        )
    else:
        card = SUITE.card(task)
        known, matcher = load_split(card, "train"), matcher_of(card)

        def verifiable(completions: Any, sample: list[int], **_: Any) -> list[float]:
            texts = [completion[0]["content"] for completion in completions]
            graded = [
                grade(text, known[i], SUITE.protocol.form, matcher)
                for i, text in zip(sample, texts, strict=True)
            ]
            return [reward(g, SUITE.protocol.reward) for g in graded]

        batch = settings["prompts_per_step"] * settings["rollouts"]
        arguments = GRPOConfig(
            **common, loss_type="grpo", per_device_train_batch_size=batch,
            num_generations=settings["rollouts"],
            max_completion_length=SUITE.protocol.decoding.max_new_tokens,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=policy, args=arguments, train_dataset=data, processing_class=processor,
            reward_funcs=verifiable,
        )  # fmt: skip
    trainer.train()
    trainer.save_model(str(out / "model"))
    processor.save_pretrained(out / "model")


def evaluate(model: Path, tasks: Path, out: Path) -> None:
    """Every split, by lm-eval's command line."""
    command = [
        sys.executable, "-c", LM_EVAL, "--model", "hf-multimodal", "--model_args",
        f"pretrained={model},dtype=float32,attn_implementation=eager", "--include_path", tasks,
        "--tasks", ",".join(ASKED), "--batch_size", "128", "--apply_chat_template",
        "--device", "cpu", "--log_samples", "--output_path", out / "lm-eval",
    ]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr,
                   env={**os.environ, "HF_HUB_OFFLINE": "1"})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trainer", choices=["sft", "rft"], default="sft")
    parser.add_argument("--stages", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    settings = named(f"nano/{args.trainer}")
    trained, evaluated = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch), SUITE.base_path()
        for name in ASKED:
            write_task(name, requests(name), folder)
        for t, task in enumerate(SUITE.sequence[: args.stages]):
            start = time.monotonic()
            train(args.trainer, task, model, folder / str(t), settings)
            trained.append(time.monotonic() - start)
            model = folder / str(t) / "model"
            evaluate(model, folder, folder / str(t))
            evaluated.append(time.monotonic() - start - trained[-1])
        start = time.monotonic()
        run = [sys.executable, "-m", "cpt_bench", "run", "--trainer", args.trainer, "--no-share"]
        subprocess.run([*run, "--out", folder / "run"], check=True, stdout=sys.stderr)
        ours = time.monotonic() - start
        start = time.monotonic()
        ask = [sys.executable, "-m", "cpt_bench", "eval", model, "--out", folder / "eval"]
        subprocess.run(list(map(str, ask)), check=True, stdout=sys.stderr)
        asked = time.monotonic() - start
    stages = len(SUITE.sequence)
    script = stages * sum(trained) / args.stages + (stages + 1) * sum(evaluated) / args.stages
    text = (
        json.dumps(
            {
                **environment.hardware(),
                "script, training a stage": round(sum(trained) / args.stages, 1),
                "script, evaluating a stage": round(sum(evaluated) / args.stages, 1),
                f"script, {stages} stages and the base (s)": round(script),
                "cptbench run (s)": round(ours),
                "times as fast": round(script / ours, 2),
                "lm-eval's command, one checkpoint, 9 splits (s)": round(evaluated[0], 1),
                "cptbench eval, one checkpoint, 10 splits (s)": round(asked, 1),
                "its times as fast": round(evaluated[0] / asked, 2),
            },
            indent=2,
        )
        + "\n"
    )
    print(text, end="")
    if args.out:
        write_text(args.out, text)


if __name__ == "__main__":
    main()
