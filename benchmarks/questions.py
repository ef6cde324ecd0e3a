"""Nano's questions, for engines and as tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pictures import with_pictures
from cpt_bench.engines import Request
from cpt_bench.sources import load_split
from cpt_bench.suite import open_suite

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


def requests(task: str, split: str = "test") -> list[Request]:
    return [
        Request(s.id, SUITE.protocol.prompt(s.question), s.images)
        for s in load_split(SUITE.card(task), split)
    ]


def write_task(name: str, asked: list[Request], folder: Path) -> None:
    """Questions, each with a picture, as lm-eval's task ``name``."""
    rows = [
        {"prompt": r.prompt, "gold": "", "images": [{"bytes": r.images[0], "path": None}]}
        for r in asked
    ]
    file = folder / f"{name}.parquet"
    with_pictures(rows).to_parquet(file)
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, file=file, new=NEW))
