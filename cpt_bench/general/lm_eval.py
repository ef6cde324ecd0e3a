"""Runs lm-evaluation-harness in this process: any of its tasks, on a checkpoint.

lm-eval's own ``hf-multimodal`` backend loads the model and generates, so that a score is equal to
that of its command line:

    lm_eval --model hf-multimodal --model_args pretrained=CHECKPOINT,dtype=auto --tasks TASK

Its response cache is never used: the key is only the request, without the model (its issue 4063).
"""

from __future__ import annotations

import logging
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.general.measurement import Measured
from cpt_bench.models import families
from cpt_bench.models.checkpoint import adapter_base

LOADS_CHECKPOINTS = True
"""``measure`` needs a checkpoint's folder, which lm-eval loads."""

NOT_METRICS = ("alias", "name", "sample_len", "sample_count")


def installed() -> str:
    """``lm-eval 0.4.13``.

    Raises:
        CptBenchError: lm-eval is not installed.
    """
    try:
        return f"lm-eval {version('lm-eval')}"
    except PackageNotFoundError:
        raise CptBenchError(
            "lm-eval is not installed", todo="Install it with: pip install 'cptbench[eval]'"
        ) from None


def measure(
    task: str,
    checkpoint: Path,
    *,
    include: Path | None = None,
    backend: str | None = None,
    batch_size: int = 8,
    dtype: str = "auto",
    device: str | None = None,
    chat_template: bool = True,
    limit: int | None = None,
    model_args: dict[str, Any] | None = None,
) -> Measured:
    """Run one task, or a group of tasks.

    Args:
        task: ``mmlu_pro``; ``mmlu_pro/exact_match`` or ``mmlu_pro/exact_match,custom-extract``
            for a metric other than the task's first.
        checkpoint: A folder in Hugging Face format.
        include: A folder with task files, read instead of lm-eval's own. By default the one in
            ``$CPTBENCH_LM_EVAL_TASKS``, if that is set.
        backend: lm-eval's model class: ``hf-multimodal``, ``vllm-vlm``, ``hf``. By default the
            first for a model that reads pictures, and the last for one that reads text alone.
        batch_size: Requests per batch.
        dtype: Arithmetic; ``auto`` is the checkpoint's.
        device: ``cpu``, ``cuda:0``; None: a GPU if there is one.
        chat_template: Ask in the model's chat format.
        limit: Use only the first ``limit`` documents of each task.
        model_args: Further arguments of the backend.

    Raises:
        CptBenchError: lm-eval is not installed, or has no such task or metric.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise CptBenchError(
            "lm-eval is not installed", todo="Install it with: pip install 'cptbench[eval]'"
        ) from error
    from cpt_bench.models.families import image_only
    from cpt_bench.models.processor import install

    install()
    if include is None and (folder := os.environ.get("CPTBENCH_LM_EVAL_TASKS")):
        include = Path(folder)
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    name, _, metric = task.partition("/")
    manager = TaskManager(
        include_path=str(include) if include else None, include_defaults=include is None
    )
    if name not in manager.all_tasks:
        raise CptBenchError(
            f"lm-eval {version('lm-eval')} has no task {name!r}",
            todo=did_you_mean(name, manager.all_tasks[:2000]),
        )
    base = adapter_base(checkpoint)
    kind = families.kind_of(Path(base or checkpoint))
    image_only.install(kind)
    if backend is None:
        backend = "hf-multimodal" if families.reads_pictures(kind) else "hf"
    loaded = {"pretrained": str(checkpoint)}
    if base is not None:
        loaded = {"pretrained": base, "peft": str(checkpoint)}
    arguments = {**loaded, "dtype": dtype, **(model_args or {})}
    found = simple_evaluate(
        model=backend,
        model_args=arguments,
        tasks=[name],
        batch_size=batch_size,
        device=device,
        limit=limit,
        apply_chat_template=chat_template,
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=True,
        use_cache=None,
    )
    assert found is not None, "lm-eval gives results on the first rank alone"
    wanted, filter_name = headline(found, name, metric)
    rows = samples(found, wanted, filter_name)
    return Measured(
        rows=rows,
        score=100 * float(_of(found, name)[f"{wanted},{filter_name}"]),
        provenance={
            "evaluator": "lm-eval",
            "version": version("lm-eval"),
            "task": name,
            "task_version": _task_version(found, name),
            "task_hashes": found.get("task_hashes", {}),
            "metric": wanted,
            "filter": filter_name,
            "n_shot": found.get("n-shot", {}),
            "backend": backend,
            "model_args": {k: v for k, v in arguments.items() if k not in loaded},
            "batch_size": batch_size,
            "chat_template": chat_template,
            "limit": limit,
        },
    )


def headline(found: dict[str, Any], task: str, metric: str) -> tuple[str, str]:
    """The metric and filter to report: the requested ones, else the task's first.

    Raises:
        CptBenchError: The task has no such metric.
    """
    keys = [
        key
        for key in _of(found, task)
        if "," in key and "_stderr" not in key and key.partition(",")[0] not in NOT_METRICS
    ]
    chosen = next((key for key in keys if metric in ("", key, key.partition(",")[0])), None)
    if chosen is None:
        raise CptBenchError(
            f"task {task} has no metric {metric!r}", todo=did_you_mean(metric, keys)
        )
    name, _, filter_name = chosen.partition(",")
    return name, filter_name


def samples(found: dict[str, Any], metric: str, filter_name: str) -> list[dict[str, Any]]:
    """One row per document of each task, with its score under ``metric``."""
    rows = []
    for task, documents in sorted(found["samples"].items()):
        for document in documents:
            if document.get("filter", "none") != filter_name:
                continue
            value = document.get(metric)
            if not isinstance(value, bool | int | float):
                raise CptBenchError(
                    f"metric {metric!r} of {task} is not a number for each document",
                    where=f"document {document['doc_id']}",
                    todo="Name another: lm-eval:TASK/METRIC",
                )
            rows.append(
                {
                    "id": f"{task}/{document['doc_id']}",
                    "reply": _text(document.get("resps")),
                    "extracted": _text(document.get("filtered_resps")),
                    "target": str(document.get("target")),
                    "score": float(value),
                    "sha256": document.get("prompt_hash"),
                }
            )
    return rows


def _of(found: dict[str, Any], task: str) -> dict[str, Any]:
    """The task's or group's results."""
    table: dict[str, Any] = found["results"].get(task) or found.get("groups", {}).get(task, {})
    return table


def _task_version(found: dict[str, Any], task: str) -> str:
    versions = found.get("versions", {})
    if task in versions:
        return str(versions[task])
    return "+".join(sorted({str(v) for v in versions.values()})) or "?"


def _text(value: Any) -> str:
    """A response as text; documents with one response have it in nested lists."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else str(value)
