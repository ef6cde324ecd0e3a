"""A suite's questions, nano's unless another is named, for engines and as tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from benchmarks.pictures import with_pictures
from cpt_bench.engines import Request
from cpt_bench.sources import load_split
from cpt_bench.suite import Suite, open_suite

SUITE = open_suite("nano")
NEW = SUITE.protocol.decoding.max_new_tokens
TASK = """\
task: {name}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{placeholder}{{{{prompt}}}}"
doc_to_target: gold
generation_kwargs: {{until: [], max_gen_toks: {new}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
WITH_PICTURE = "doc_to_image: images\n"


def requests(task: str, split: str = "test", suite: Suite = SUITE) -> list[Request]:
    return [
        Request(s.id, suite.protocol.prompt(s.question), s.images)
        for s in load_split(suite.card(task), split)
    ]


def write_task(name: str, asked: list[Request], folder: Path, new: int = NEW) -> None:
    """Questions, each with a picture or none with any, as lm-eval's task ``name``.

    Args:
        name: The task's name.
        asked: The questions.
        folder: Where its two files are written.
        new: The most tokens that a reply may have.
    """
    rows: list[dict[str, Any]] = [{"prompt": r.prompt, "gold": ""} for r in asked]
    file = folder / f"{name}.parquet"
    task = TASK.format(
        name=name, file=file, new=new, placeholder="<image>" if asked[0].images else ""
    )
    if asked[0].images:
        task += WITH_PICTURE
        for row, request in zip(rows, asked, strict=True):
            row["images"] = [{"bytes": request.images[0], "path": None}]
        with_pictures(rows).to_parquet(file)
    else:
        Dataset.from_list(rows).to_parquet(file)
    (folder / f"{name}.yaml").write_text(task)
