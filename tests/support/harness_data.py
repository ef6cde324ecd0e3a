"""Data in the shapes harnesses read: an MMLU-Pro-like task for lm-eval, a POPE-like TSV for VLMEvalKit."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

from cpt_bench.images import decode
from cpt_bench.sources import load_split
from cpt_bench.suite import load_suite
from cpt_bench.tasks.nano import FOLDER

NANO = load_suite(FOLDER)

# The keys of lm-eval's mmlu_pro: chain-of-thought style generation, an answer found by a pattern.
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["<|im_end|>"], max_gen_toks: 20, do_sample: false, temperature: 0.0}}
filter_list:
  - name: custom-extract
    filter:
      - function: regex
        regex_pattern: "<answer> ?([A-J])"
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
num_fewshot: 0
metadata: {{version: 2.1}}
"""


def mmlu_pro_shaped(folder: Path, n: int) -> Path:
    """nano's questions of knowledge as two subjects and a group, as mmlu_pro is made."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = load_split(NANO.card("knowledge"), "test")[:n]
    for subject, part in (("one", samples[: 2 * n // 3]), ("two", samples[2 * n // 3 :])):
        rows = [{"question": s.question, "answer": s.answers[0], "category": subject} for s in part]
        file = folder / f"{subject}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        name = f"local_pro_{subject}"
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, file=file))
    (folder / "local_pro.yaml").write_text(
        "group: local_pro\ntask: [local_pro_one, local_pro_two]\n"
        "aggregate_metric_list:\n  - {aggregation: mean, metric: exact_match, "
        "weight_by_size: true, filter_list: custom-extract}\nmetadata: {version: 2.1}\n"
    )
    return folder


def pope_shaped(folder: Path, name: str, n: int) -> Path:
    """nano's presence probe as VLMEvalKit's POPE.tsv: base64 pictures, Yes/No, categories."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.tsv").open("w", newline="") as stream:
        table = csv.writer(stream, delimiter="\t")
        table.writerow(["index", "image", "question", "answer", "category", "image_name"])
        for i, sample in enumerate(load_split(NANO.card("presence"), "test")[:n]):
            png = io.BytesIO()
            decode(sample.images[0], sample.id).save(png, "PNG")
            category = ("adversarial", "popular", "random")[i % 3]
            image = base64.b64encode(png.getvalue()).decode()
            answer = sample.answers[0].capitalize()
            table.writerow([i, image, sample.question, answer, category, f"{i}.png"])
    return folder
