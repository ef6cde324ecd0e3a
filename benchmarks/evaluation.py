"""Evaluation throughput against lm-eval's ``hf-multimodal``: same model, samples, replies.

Both have the model loaded and are asked the same questions of nano's test splits, in turns, on the
same number of cores; lm-eval at each batch size of ``--batches``, its best one counts. Replies are
compared text by text.

    python -m benchmarks.evaluation
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cpt_bench.cpu import set_threads
from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.processor import install
from cpt_bench.sources import load_split
from cpt_bench.suite import open_suite
from cpt_bench.trainers.common import dataset

SUITE = open_suite("nano")
NEW = SUITE.protocol.decoding.max_new_tokens
TASK = """\
task: {name}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_image: images
doc_to_text: "<image>{{{{prompt}}}}"
doc_to_target: gold
generation_kwargs: {{until: [], max_gen_toks: {new}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


def requests(task: str) -> list[Request]:
    return [
        Request(s.id, SUITE.protocol.prompt(s.question), s.images)
        for s in load_split(SUITE.card(task), "test")
    ]


def write_task(name: str, asked: list[Request], folder: Path) -> None:
    """Questions, each with a picture, as lm-eval's task ``name``."""
    rows = [
        {"prompt": r.prompt, "gold": "", "images": [{"bytes": r.images[0], "path": None}]}
        for r in asked
    ]
    file = folder / f"{name}.parquet"
    dataset(rows).to_parquet(file)
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, file=file, new=NEW))


class LMEval:
    """lm-eval with the model loaded."""

    def __init__(self, folder: Path) -> None:
        from lm_eval.models.hf_vlms import HFMultimodalLM
        from lm_eval.tasks import TaskManager

        install()
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.model = HFMultimodalLM(
            pretrained=str(SUITE.base_path()), device="cpu", dtype="float32", batch_size=1,
            attn_implementation="eager",
        )  # fmt: skip
        self.tasks = TaskManager(include_path=str(folder), include_defaults=False)

    def answer(self, batch: int) -> tuple[float, list[str]]:
        from lm_eval import simple_evaluate

        self.model.batch_size_per_gpu = batch
        start = time.monotonic()
        found: Any = simple_evaluate(
            model=self.model, tasks=["same_questions"], apply_chat_template=True,
            task_manager=self.tasks, bootstrap_iters=0, log_samples=True,
        )  # fmt: skip
        seconds = time.monotonic() - start
        rows = sorted(found["samples"]["same_questions"], key=lambda row: row["doc_id"])
        return seconds, [row["resps"][0][0].strip() for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="scene")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="1,8,32,64")
    args = parser.parse_args()
    set_threads(1)
    asked = requests(args.task)
    batches = [int(b) for b in args.batches.split(",")]
    seconds: dict[str, list[float]] = {}
    same: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        write_task("same_questions", asked, Path(scratch))
        engine, peer = TransformersEngine(SUITE.base_path()), LMEval(Path(scratch))
        engine.generate(asked[:64], NEW)
        for _ in range(args.rounds):
            start = time.monotonic()
            ours = [reply.text for reply in engine.generate(asked, NEW)]
            seconds.setdefault("cptbench", []).append(time.monotonic() - start)
            for batch in batches:
                spent, theirs = peer.answer(batch)
                name = f"lm-eval, batch {batch}"
                seconds.setdefault(name, []).append(spent)
                same[name] = sum(a == b for a, b in zip(ours, theirs, strict=True))
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((name for name in middle if name != "cptbench"), key=middle.__getitem__)
    print(
        json.dumps(
            {
                "samples": len(asked),
                "samples a second": {k: round(len(asked) / v, 1) for k, v in middle.items()},
                "same replies": same,
                "times as fast as the best": round(middle[best] / middle["cptbench"], 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
