"""Where the time of a whole ``cptbench run`` on nano goes: samples of py-spy, by what and by whom.

py-spy (``pip install py-spy``) notes fifty times a second what every thread of the run's processes
is doing. Each of its samples lands in one class by the table :data:`RULES`: the innermost frame
that a row speaks of decides. Threads that wait are left out. py-spy slows the run down, and a
thread that is ready counts while it waits for its turn at a core: the shares are what this is for,
on a machine that does nothing else. How soon the first training step was done is measured apart,
without py-spy.

    python -m benchmarks.where --trainer sft --out where-sft.json
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from cpt_bench import environment

RATE = 50
"""Samples a second."""

ARITHMETIC, BATCHES, DATA, GRADING = "arithmetic", "batches", "data", "grading"
CHECKPOINTS, START, BOOKS = "checkpoints", "start", "bookkeeping"
FRAMEWORK, OTHER = "framework", "other"
KINDS = {
    ARITHMETIC: "the model: forward, backward, clipping, optimiser step, decoding",
    BATCHES: "processor, tokenizer, chat template, pictures decoded, collators, data sets",
    DATA: "samples drawn by the suite's generators and checked, train splits written and read",
    GRADING: "grades and rewards of replies",
    CHECKPOINTS: "weights and processors loaded, saved, looked at",
    START: "imports, processes started, the plan",
    BOOKS: "ledger, hashes, files, memory watched, metrics, report",
    FRAMEWORK: "TRL's, transformers' and our trainers around all this",
    OTHER: "what no row of the table speaks of",
}

COMMAND, TRAINING, ROLLOUTS = "command", "training", "rollouts"
EVALUATION, KL, DIAGNOSIS = "evaluation", "KL", "diagnosis"
WORKERS = (TRAINING, ROLLOUTS, EVALUATION, KL, DIAGNOSIS, COMMAND)
"""The command prepares the train splits, too, and holds the process that workers fork from."""

# What a sample is: the first row whose two patterns are found in the file and at the end of the
# function's name. Frames of which no row speaks (numpy, json, re, Pillow, torch's own odds and
# ends) are what their caller does with them. An empty pattern is found everywhere.
RULES = (
    (START, r"^<frozen (importlib|zipimport)", ""),
    (START, "", "<module>"),
    # ------------------------------------------------------------------------------------------
    (CHECKPOINTS, r"^(transformers|peft)/", r"(from_pretrained|save_pretrained|\b_?save(_model)?)"),
    (CHECKPOINTS, r"transformers/.*/modeling_", r"(__init__|_init_weights)"),
    (CHECKPOINTS, r"^transformers/core_model_loading", ""),
    (CHECKPOINTS, r"^safetensors/|cpt_bench/models/", r"(load_\w+|_load_whole|\bsave_file)"),
    (CHECKPOINTS, r"trainers/policy", r"\b(load|save|pass_on)"),
    (CHECKPOINTS, r"cpt_bench/training", r"(check_checkpoint|count_parameters)"),
    (CHECKPOINTS, r"cpt_bench/engines/hf", r"(__init__|stops)"),
    # ------------------------------------------------------------------------------------------
    (GRADING, r"cpt_bench/grading/", ""),
    (GRADING, r"cpt_bench/evaluation", r"(graded|matcher_of)"),
    (GRADING, r"cpt_bench/contract", r"\bof"),
    (GRADING, r"trainers/(rft|rollouts)", r"(verifiable|graded)"),
    (GRADING, r"^trl/", r"_calculate_rewards"),
    # ------------------------------------------------------------------------------------------
    (DATA, r"cpt_bench/(sources/|prepare\.)|tasks/nano/", ""),
    (DATA, r"cpt_bench/images", r"encode_ppm"),
    (DATA, r"cpt_bench/(contract|memory)", r"(open_stage|sample_of)"),
    # ------------------------------------------------------------------------------------------
    (BATCHES, r"^(torch/utils/data|datasets)/|^accelerate/(data_loader|utils/operations)", ""),
    (BATCHES, r"^transformers/(processing|tokenization|image|feature)_", r"(__call__|decode)"),
    (BATCHES, r"^transformers/.*/(image_)?processing_", r"(__call__|preprocess|decode)"),
    (BATCHES, r"^transformers/", r"(apply_chat_template|\b_?preprocess|\bpad|_process_images)"),
    (BATCHES, r"^transformers/(data/|trainer\.)", r"(__call__|get_batch_samples|_prepare_input)"),
    (BATCHES, r"^trl/data_utils", ""),
    (BATCHES, r"^trl/", r"(torch_call|\b_collate\w*|\b_?tokenize\w*|_prepare_dataset|\bpad)"),
    (BATCHES, r"cpt_bench/(images|trainer)\.", ""),
    (BATCHES, r"models/(processor|qwen_cpu/(encoding|processing))\.", ""),
    (BATCHES, r"models/qwen_cpu/vision", r"(Processor\w*\.\w+|prepare_together)"),
    (BATCHES, r"cpt_bench/engines/hf", r"(encode|texts|messages|generate)(\.<locals>.*)?"),
    (BATCHES, r"cpt_bench/(evaluation|divergence)", r"\b(evaluate|divergence|_positions)(\..*)?"),
    (BATCHES, r"trainers/rows", ""),
    (BATCHES, r"trainers/(sft|rft|answers|rollouts)", r"\b(rows|aligned|encoded)(\..*)?"),
    (BATCHES, r"trainers/shared", r"\b(Prompts\.\w+|Sharing\.prompts|until)(\..*)?"),
    # ------------------------------------------------------------------------------------------
    (ARITHMETIC, r"^torch/nn/modules/", r"(forward|_call_impl)"),
    (ARITHMETIC, r"^torch/(nn/functional|nn/utils/clip_grad|optim/(?!lr_scheduler))", ""),
    (ARITHMETIC, r"^torch/autograd/(__init__|graph|function)", ""),
    (ARITHMETIC, r"^transformers/.*/modeling_|^transformers/(activations|generation/|loss/)", ""),
    (ARITHMETIC, r"^transformers/(cache_utils|masking_utils|modeling_layers|vision_utils)", ""),
    (ARITHMETIC, r"^transformers/integrations/\w+_attention", ""),
    (ARITHMETIC, r"^(trl|accelerate)/", r"(_?compute_loss|_logps_and_entropies|_fused_forward)"),
    (ARITHMETIC, r"^(trl|accelerate)/", r"(_log_softmax|from_logits|backward|clip_grad_norm_)"),
    (ARITHMETIC, r"models/qwen_cpu/", ""),
    (ARITHMETIC, r"cpt_bench/(evaluation/divergence|engines/hf)", r"\b(_batch|write)"),
    (ARITHMETIC, r"trainers/(shared|answers)", ""),
    # ------------------------------------------------------------------------------------------
    (BOOKS, r"cpt_bench/(metrics|report)/|cpt_bench/cli/(progress|tables)", ""),
    (BOOKS, r"cpt_bench/(results/|files\.|worker/monitor\.|stage/memory\.)", ""),
    (BOOKS, r"cpt_bench/run/(?!jobs/|plan|naming|code|lanes)", ""),
    (BOOKS, r"cpt_bench/(models/checkpoint|worker/process)", r"(weights_digest|Worker\.result)"),
    # ------------------------------------------------------------------------------------------
    (FRAMEWORK, r"^(trl|accelerate|peft)/|^huggingface_hub/utils/_telemetry", ""),
    (FRAMEWORK, r"^transformers/(train|optimization|integrations/integration)", ""),
    (FRAMEWORK, r"^torch/optim/lr_scheduler|trainers/", ""),
    # ------------------------------------------------------------------------------------------
    # Outwards of here stands what started the worker, which is not what it does.
    (OTHER, r"cpt_bench/(run/jobs/|stage/training\.)", ""),
    # ------------------------------------------------------------------------------------------
    (START, r"^multiprocessing/|^<frozen runpy>|^(typer|click)/|cpt_bench/cli/", ""),
    (START, r"cpt_bench/(worker/|plugins|settings|environment|run/(plan|naming|code))", ""),
    (START, r"cpt_bench/(suite/|stage/|models/checkpoint|engines/__init__)", ""),
)  # fmt: skip

# py-spy takes some threads that wait for running ones: their innermost frame is one of these.
WAITS = (
    (r"^(selectors|threading|queue|subprocess|socket)", r"\b(select|join|get|accept|\w*wait\w*)"),
    (r"^multiprocessing/(connection|popen_\w+)", r"\b(_recv|_poll|poll|wait)"),
    (r"^concurrent/futures/thread", r"\b_worker"),
)  # fmt: skip

# Whose work a process does: the call that its stacks begin with.
JOBS = {
    "train (cpt_bench/stage/training.py)": TRAINING,
    "evaluate (cpt_bench/run/jobs/evaluate.py)": EVALUATION,
    "diverge (cpt_bench/run/jobs/divergence.py)": KL,
    "diagnose (cpt_bench/run/jobs/diagnose.py)": DIAGNOSIS,
}
WRITERS = r"(Trainer._generate|_generate_single_turn|transformers_rollouts|Rollouts.draw)"
WRITING = re.compile(WRITERS + r" \(")
"""Frames below which a training process writes rollouts."""

FRAME = re.compile(r"(?P<name>.+) \((?P<file>.+?)(:\d+)?\)$")


class Stack(NamedTuple):
    """What a thread was seen doing.

    Attributes:
        process: Its process.
        frames: ``name (file)``, outermost first; none while Python itself starts or ends.
        samples: How often it was seen so.
    """

    process: int
    frames: tuple[str, ...]
    samples: int


class Sorted(NamedTuple):
    """Samples by class and worker, and the innermost frames of each class.

    Attributes:
        samples: (class, whose) to samples.
        frames: Class to innermost frame to samples.
        waiting: Samples left out.
    """

    samples: Counter[tuple[str, str]]
    frames: dict[str, Counter[str]]
    waiting: int


def stacks(raw: Iterable[str]) -> list[Stack]:
    """The lines of py-spy's raw format.

    Each begins with the processes from the run's first to the one that was seen, as
    ``process 17:"its command line"``, in which semicolons separate nothing.
    """
    found = []
    for line in raw:
        text, _, samples = line.rstrip("\n").rpartition(" ")
        frames = "" if text.endswith('"') else text.rpartition('";')[2]
        ids = re.findall(r'process (\d+):"', text.removesuffix(frames))
        names = tuple(re.sub(r":\d+\)$", ")", frame) for frame in frames.split(";") if frame)
        found.append(Stack(int(ids[-1]) if ids else 0, names, int(samples)))
    return found


def split(frame: str) -> tuple[str, str]:
    """A frame's file and function."""
    parts = FRAME.match(frame)
    return (parts["file"], parts["name"]) if parts else ("", frame)


def speaks(files: str, functions: str, frame: str) -> bool:
    """Whether a rule with these patterns speaks of a frame."""
    file, name = split(frame)
    return bool(re.search(files, file) and re.search(f"(?:{functions})$", name))


def waits(stack: Stack) -> bool:
    """Whether a thread was seen waiting."""
    return any(speaks(*rule, frame) for rule in WAITS for frame in stack.frames[-1:])


def kind_of(stack: Stack, known: dict[str, str | None]) -> str:
    """The class of a stack.

    Args:
        stack: The stack.
        known: Frames to what the rules say of them, filled here: there are far fewer frames than
            stacks.
    """
    for frame in reversed(stack.frames):
        if frame not in known:
            known[frame] = next((kind for kind, *rule in RULES if speaks(*rule, frame)), None)
        if kind := known[frame]:
            return kind
    return OTHER if stack.frames else START


def jobs_of(found: Sequence[Stack]) -> dict[int, str]:
    """Processes to whose work they do; threads beside the work are told by their process."""
    return {s.process: JOBS[frame] for s in found for frame in s.frames if frame in JOBS}


def sort(found: Sequence[Stack]) -> Sorted:
    """Every sample to its class and worker."""
    jobs, known = jobs_of(found), dict[str, str | None]()
    samples: Counter[tuple[str, str]] = Counter()
    frames: dict[str, Counter[str]] = defaultdict(Counter)
    waiting = 0
    for stack in found:
        if waits(stack):
            waiting += stack.samples
            continue
        whose = jobs.get(stack.process, COMMAND)
        if whose == TRAINING and any(map(WRITING.search, stack.frames)):
            whose = ROLLOUTS
        kind = kind_of(stack, known)
        samples[kind, whose] += stack.samples
        frames[kind][stack.frames[-1] if stack.frames else "no Python"] += stack.samples
    return Sorted(samples, frames, waiting)


def figures(found: Sorted) -> dict[str, Any]:
    """Processor seconds and shares by class and by worker."""
    total = sum(found.samples.values())

    def cell(kind: str | None, whose: str | None) -> int:
        return sum(
            n
            for (k, w), n in found.samples.items()
            if (kind is None or k == kind) and (whose is None or w == whose)
        )

    def told(samples: int) -> dict[str, float]:
        return {"seconds": round(samples / RATE, 2), "share": round(samples / max(total, 1), 4)}

    return {
        "processor_seconds": round(total / RATE, 2),
        "share_not_arithmetic": round(1 - cell(ARITHMETIC, None) / max(total, 1), 4),
        "classes": {
            kind: {
                "meaning": meaning,
                **told(cell(kind, None)),
                "seconds_by_whose_work": {w: told(cell(kind, w))["seconds"] for w in WORKERS},
            }
            for kind, meaning in KINDS.items()
        },
        "whose_work": {whose: told(cell(None, whose)) for whose in WORKERS},
        "innermost_frames": {
            kind: {frame: n / RATE for frame, n in found.frames[kind].most_common(8)}
            for kind in KINDS
        },
        "left_out_waiting": round(found.waiting / RATE, 2),
    }


def table(found: dict[str, Any]) -> Table:
    """Classes down, workers across, processor seconds in the cells."""
    out = Table(box=None, padding=(0, 1, 0, 0))
    out.add_column("")
    for name in (*WORKERS, "all", "share"):
        out.add_column(name, justify="right", no_wrap=True)
    for kind, row in found["classes"].items():
        cells = [f"{row['seconds_by_whose_work'][whose]:.1f}" for whose in WORKERS]
        out.add_row(kind, *cells, f"{row['seconds']:.1f}", f"{100 * row['share']:.1f} %")
    sums = found["whose_work"].values()
    seconds = f"{found['processor_seconds']:.1f}"
    out.add_row("all", *[f"{row['seconds']:.1f}" for row in sums], seconds, "")
    out.add_row("share", *[f"{100 * row['share']:.1f} %" for row in sums], "", "")
    return out


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    hardware = environment.hardware()
    known = {"cpu": hardware["cpu"], "cores": hardware["cores"], "python": hardware["python"]}
    return known | {"torch": environment.versions().get("torch")}


def machine_line(found: dict[str, Any]) -> str:
    """The same in a line."""
    return f"{found['cpu']}, {found['cores']} cores, torch {found['torch']}"


def tell(found: dict[str, Any], out: Path | None) -> None:
    """Write what was found as JSON: to a file, or to standard output."""
    text = json.dumps(found, indent=2) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text)


# ------------------------------------------------------------------------------------- the runs


class Clock:
    """A tracker of a run (:mod:`cpt_bench.run.trackers`): it ends the run after its first step.

    Args:
        note: The file that takes when that was, on the clock that all processes share.
    """

    def __init__(self, note: Path) -> None:
        self.note = note

    def log(self, values: dict[str, float], step: int) -> None:
        if "train/stage" in values:
            self.note.write_text(str(time.monotonic()))
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


def until_first_step(note: str, words: Sequence[str]) -> None:
    """The command line ``words`` in this process, up to its first training step."""
    from cpt_bench.cli.main import entry
    from cpt_bench.run import trackers

    trackers.KNOWN["clock"] = lambda folder, config: Clock(Path(note))
    sys.argv = ["cptbench", *words, "--report-to", "clock"]
    entry()


def first_step(words: Sequence[str], scratch: Path) -> float:
    """Seconds from the start of the command until its first training step is done."""
    note = scratch / "first-step"
    command = [sys.executable, "-m", "benchmarks.where", "until-first-step", str(note)]
    start = time.monotonic()
    done = carried_out([*command, *words, "--out", str(scratch / "begun")], scratch / "begun.log")
    if not note.is_file():
        raise SystemExit(f"the run ended before its first step: {done}")
    return float(note.read_text()) - start


def watched(words: Sequence[str], scratch: Path) -> tuple[list[Stack], float, str]:
    """The command under py-spy: its stacks, its wall seconds, and what py-spy said of itself."""
    spy, raw, run = py_spy(), scratch / "stacks", scratch / "run"
    command = [
        spy, "record", "--subprocesses", "--rate", str(RATE), "--format", "raw", "--output",
        str(raw), "--", sys.executable, "-m", "cpt_bench", *words, "--out", str(run),
    ]  # fmt: skip
    start = time.monotonic()
    said = carried_out(command, scratch / "run.log")
    seconds = time.monotonic() - start
    if not (run / "metrics.json").is_file() or not raw.is_file():
        raise SystemExit(f"the run under py-spy failed: {said}")
    with raw.open(encoding="utf-8", errors="replace") as lines:
        found = stacks(lines)
    behind = re.findall(r"[\d.]+s behind in sampling", (scratch / "run.log").read_text())
    return found, seconds, f"{len(behind)} times behind in sampling"


def carried_out(command: Sequence[str], log: Path) -> str:
    """Run a command; returns the last line it wrote to standard error, kept in ``log``."""
    with log.open("w") as stream:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=stream)
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def py_spy() -> str:
    """The py-spy beside this Python, or on the path."""
    beside = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("py-spy")
    if found is None:
        raise SystemExit("py-spy is not installed: pip install py-spy")
    return found


def main() -> None:
    if sys.argv[1:2] == ["until-first-step"]:
        until_first_step(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trainer", choices=["sft", "rft"], default="sft")
    parser.add_argument("--limit", type=int, help="only the first samples of each split")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--stacks", type=Path, help="keep py-spy's own file here")
    parser.add_argument("--out", type=Path, help="write the JSON here")
    args = parser.parse_args()
    py_spy()  # what is missing is told before anything runs
    words = ["run", "--trainer", args.trainer, "--no-share", "--json"]
    words += ["--limit", str(args.limit)] if args.limit else []
    words += [word for setting in args.set for word in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        first = first_step(words, scratch)
        found, wall, spied = watched(words, scratch)
        if args.stacks:
            shutil.copyfile(scratch / "stacks", args.stacks)
    result = {
        "machine": machine(),
        "command": " ".join(["cptbench", *words]),
        "first_step_done_after_seconds": round(first, 2),
        "wall_seconds_under_py_spy": round(wall, 2),
        "py_spy": f"{RATE} samples a second, {spied}; it slows the run: read the shares",
        **figures(sort(found)),
    }
    console = Console(stderr=True, highlight=False)
    console.print(machine_line(result["machine"]))
    console.print(f"processor seconds of {result['command']}, under py-spy")
    console.print(table(result))
    console.print(
        f"not arithmetic: {100 * result['share_not_arithmetic']:.1f} % of processor time; "
        f"{wall:.0f} s in all under py-spy, which slows the run: read the shares.\n"
        f"Without py-spy the first training step was done after {first:.1f} s."
    )
    tell(result, args.out)


if __name__ == "__main__":
    main()
