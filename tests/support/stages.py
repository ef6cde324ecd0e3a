"""A stage of the tiny suite, as a trainer gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpt_bench.stage.document import Grading, MemoryPlace, StageDocument, open_stage
from cpt_bench.stage.split import prepare, prepared
from cpt_bench.suite import load_suite
from cpt_bench.trainer import Privileges, Stage
from tests.support import places

TINY = load_suite(places.TINY)


def make_stage(
    task: str,
    policy: Path,
    folder: Path,
    rows: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> Stage:
    """A stage of the tiny suite, laid out on disk as a run does."""
    card = TINY.card(task)
    data = prepared(card, TINY.protocol, None, folder / "data")
    prepare(card, TINY.protocol, None, data)
    for part in ("out", "state", "memory"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    document = StageDocument(
        index=1,
        task=task,
        policy=policy,
        data=(data / "train.jsonl",),
        output=folder / "out",
        state=folder / "state",
        memory=MemoryPlace(folder=folder / "memory", samples_per_task=0),
        log=folder / "log.jsonl",
        seed=7,
        threads=1,
        max_new_tokens=TINY.protocol.decoding.max_new_tokens,
        config={},
        privileges=Privileges(),
        grading=Grading(cards={task: card}, form=TINY.protocol.form, weights=TINY.protocol.reward),
    ).model_copy(update=changes)
    document.write(folder / "stage.json")
    return open_stage(folder / "stage.json", (rows if rows is not None else []).append)
