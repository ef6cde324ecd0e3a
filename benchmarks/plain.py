"""A whole ``cptbench run`` on nano or gym against the script that a user would write instead.

The script: TRL's SFTTrainer or GRPOTrainer on one task after the other, the checkpoint saved, then
lm-eval's command line (``hf-multimodal`` or ``hf``, batches of 128) on every task's test split. It
has the same model, samples, prompts, rewards, settings and both cores, and nothing of cptbench but
a processor that needs no torchvision. lm-eval has no way to ask ``knowledge``, which has no
pictures, so that the script evaluates one split less; and the script measures no KL and no kinds of
forgetting. Its stages are alike, and one takes minutes, so only ``--stages`` of them are run, and
``--steps`` of each stage; the rest is taken to be as long. One checkpoint is also evaluated by
either command.

    python -m benchmarks.plain --trainer sft --out benchmarks/results/plain-sft.json

A run of gym takes up to 45 minutes. With ``--run``, a finished one that was made on this machine is
taken instead, with the seconds in its own record; then no checkpoint is evaluated by itself.

    python -m benchmarks.plain --suite gym --trainer rft --steps 4 --run runs/rft
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
from cpt_bench.engines import Request
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.files import write_text
from cpt_bench.grading import grade, reward
from cpt_bench.models.start import start_of
from cpt_bench.sources import load_split
from cpt_bench.stage.recipes import named
from cpt_bench.suite import Suite, open_suite

# lm-eval's command line, with the processor that needs no torchvision.
LM_EVAL = (
    "from benchmarks.systems.lm_eval import stock_processor; stock_processor(); "
    "from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
)


def asked_of(suite: Suite) -> dict[str, list[Request]]:
    """The test splits that lm-eval can ask; of a suite with pictures, those that all have one."""
    found = {name: requests(name, suite=suite) for name in (*suite.sequence, *suite.general)}
    pictured = {name: rows for name, rows in found.items() if all(r.images for r in rows)}
    return pictured or found


def questions(suite: Suite, task: str, kind: str) -> Dataset:
    """The train split as TRL takes it."""
    rows = []
    for i, sample in enumerate(load_split(suite.card(task), "train")):
        row: dict[str, Any] = {
            "prompt": [{"role": "user", "content": suite.protocol.prompt(sample.question)}],
        }
        if sample.images:
            row["images"] = [{"bytes": image, "path": None} for image in sample.images]
        if kind == "sft":
            target = suite.protocol.target(sample.answers[0])
            row["completion"] = [{"role": "assistant", "content": target}]
        else:
            row["sample"] = i
        rows.append(row)
    return with_pictures(rows) if "images" in rows[0] else Dataset.from_list(rows)


def opened(model: Path, pictured: bool, attention: str) -> tuple[Any, Any]:
    """The model and its processor or tokenizer, by transformers alone."""
    import transformers

    if not pictured:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        policy = transformers.AutoModelForCausalLM.from_pretrained(
            model, attn_implementation=attention
        )
        return policy, tokenizer
    stock_processor()
    processor = transformers.AutoProcessor.from_pretrained(model)
    policy = transformers.AutoModelForImageTextToText.from_pretrained(
        model, attn_implementation=attention
    )
    return policy, processor


def train(
    kind: str, suite: Suite, task: str, model: Path, out: Path, settings: dict[str, Any], steps: int
) -> float:
    """One stage with stock TRL.

    Returns:
        The seconds that its steps took, by transformers' clock.
    """
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    data = questions(suite, task, kind)
    policy, processor = opened(model, "images" in data.column_names, attention_of(settings))
    common = {
        "output_dir": str(out / "trl"), "use_cpu": True, "bf16": False, "save_strategy": "no",
        "report_to": "none", "logging_steps": 10, "max_steps": steps,
        "learning_rate": settings["learning_rate"], "warmup_steps": settings["warmup_steps"],
    }  # fmt: skip
    if kind == "sft":
        arguments = SFTConfig(**common, max_length=None, completion_only_loss=True,
                              per_device_train_batch_size=settings["batch_size"])  # fmt: skip
        trainer: Any = SFTTrainer(
            model=policy, args=arguments, train_dataset=data, processing_class=processor
        )
    else:
        card = suite.card(task)
        known, matcher = load_split(card, "train"), matcher_of(card)

        def verifiable(completions: Any, sample: list[int], **_: Any) -> list[float]:
            texts = [completion[0]["content"] for completion in completions]
            graded = [
                grade(text, known[i], suite.protocol.form, matcher)
                for i, text in zip(sample, texts, strict=True)
            ]
            return [reward(g, suite.protocol.reward) for g in graded]

        batch = settings["prompts_per_step"] * settings["rollouts"]
        arguments = GRPOConfig(
            **common, loss_type="grpo", per_device_train_batch_size=batch,
            num_generations=settings["rollouts"],
            max_completion_length=suite.protocol.decoding.max_new_tokens,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=policy, args=arguments, train_dataset=data, processing_class=processor,
            reward_funcs=verifiable,
        )  # fmt: skip
    runtime = float(trainer.train().metrics["train_runtime"])
    trainer.save_model(str(out / "model"))
    processor.save_pretrained(out / "model")
    return runtime


def attention_of(settings: dict[str, Any]) -> str:
    """As the recipe says; nano's says nothing, and eager is quickest at its size."""
    return str(settings.get("attention", "eager"))


def evaluate(model: Path, splits: dict[str, list[Request]], attention: str, out: Path) -> None:
    """Every split, by lm-eval's command line."""
    kind = "hf-multimodal" if next(iter(splits.values()))[0].images else "hf"
    command = [
        sys.executable, "-c", LM_EVAL, "--model", kind, "--model_args",
        f"pretrained={model},dtype=float32,attn_implementation={attention}", "--include_path",
        out.parent, "--tasks", ",".join(splits), "--batch_size", "128", "--apply_chat_template",
        "--device", "cpu", "--log_samples", "--output_path", out / "lm-eval",
    ]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr,
                   env={**os.environ, "HF_HUB_OFFLINE": "1"})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", default=SUITE.name)
    parser.add_argument("--trainer", choices=["sft", "rft"], default="sft")
    parser.add_argument("--stages", type=int, default=1)
    parser.add_argument(
        "--steps", type=int, help="of the script's stages; the recipe's if not given"
    )
    parser.add_argument("--run", type=Path, help="a finished run of cptbench, made on this machine")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    suite = open_suite(args.suite)
    settings = named(f"{suite.name}/{args.trainer}")
    steps = args.steps or settings["max_steps"]
    splits = asked_of(suite)
    trained, evaluated = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch), start_of(suite, None).folder
        for name, rows in splits.items():
            write_task(name, rows, folder, suite.protocol.decoding.max_new_tokens)
        for t, task in enumerate(suite.sequence[: args.stages]):
            start = time.monotonic()
            looped = train(args.trainer, suite, task, model, folder / str(t), settings, steps)
            around = time.monotonic() - start - looped
            trained.append(around + looped * settings["max_steps"] / steps)
            model = folder / str(t) / "model"
            start = time.monotonic()
            evaluate(model, splits, attention_of(settings), folder / str(t))
            evaluated.append(time.monotonic() - start)
        asked, of = None, ("--suite", args.suite)
        if args.run:
            ours = ran(args.run)
        else:
            command = ("run", *of, "--trainer", args.trainer, "--no-share")
            ours = seconds_of(*command, "--out", folder / "run")
            asked = seconds_of("eval", model, *of, "--out", folder / "eval")
    stages = len(suite.sequence)
    script = stages * sum(trained) / args.stages + (stages + 1) * sum(evaluated) / args.stages
    found = {
        **environment.hardware(),
        "script, training a stage": round(sum(trained) / args.stages, 1),
        "script, evaluating a stage": round(sum(evaluated) / args.stages, 1),
        f"script, {stages} stages and the base (s)": round(script),
        "cptbench run (s)": round(ours),
        "times as fast": round(script / ours, 2),
    }
    if steps != settings["max_steps"]:
        found["script, steps measured of a stage's"] = f"{steps} of {settings['max_steps']}"
    if asked is not None:
        splits_of_ours = len(suite.sequence) + len(suite.general)
        found |= {
            f"lm-eval's command, one checkpoint, {len(splits)} splits (s)": round(evaluated[0], 1),
            f"cptbench eval, one checkpoint, {splits_of_ours} splits (s)": round(asked, 1),
            "its times as fast": round(evaluated[0] / asked, 2),
        }
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if args.out:
        write_text(args.out, text)


def ran(folder: Path) -> float:
    """The seconds that a finished run took, over all its sessions."""
    sessions = json.loads((folder / "run.json").read_text())["sessions"]
    return float(sum(session["wall_seconds"] for session in sessions))


def seconds_of(*command: str | Path) -> float:
    """The seconds that a command of cptbench takes, its start included."""
    start = time.monotonic()
    words = [sys.executable, "-m", "cpt_bench", *map(str, command)]
    subprocess.run(words, check=True, stdout=sys.stderr)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
