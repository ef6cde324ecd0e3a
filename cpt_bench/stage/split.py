"""A task's train split as every trainer reads it: ``train.jsonl`` and picture files, written once.

The folder is named by the hash of all that can change it, so that runs in one folder share it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import common_folder, digest, digest_json, write_jsonl, write_text
from cpt_bench.sources import load_split
from cpt_bench.stage.document import FORMAT, Row
from cpt_bench.suite import Protocol, Sample, TaskCard
from cpt_bench.suite.protocol import as_words

NAMED = 32
"""Hexadecimal digits of a picture's SHA-256 in its file name."""

SIGNATURES = {b"P6": "ppm", b"\x89P": "png", b"\xff\xd8": "jpg", b"GI": "gif", b"RI": "webp"}

DIGEST = "train.sha256"
"""The file with the SHA-256 of ``train.jsonl``; pictures are named by theirs."""


def split_folder(card: TaskCard, protocol: Protocol, limit: int | None, root: Path) -> Path:
    """The folder under ``root`` that holds, or will hold, the train split of ``card``."""
    key = digest_json(
        {
            "format": FORMAT,
            "card": card.model_dump(mode="json"),
            "prompt": protocol.prompts[protocol.style],
            "form": protocol.form.model_dump(),
            "limit": limit,
            "digest": DIGEST,
        }
    )
    return root / f"{card.name}-{key[:16]}"


def write_split(card: TaskCard, protocol: Protocol, limit: int | None, folder: Path) -> None:
    """Write the train split to ``folder``, all of it or nothing; a split that is there stays."""
    if folder.exists():
        return
    with common_folder(folder) as partial:
        rows = (
            row_of(sample, card, protocol, partial) for sample in load_split(card, "train")[:limit]
        )
        write_jsonl(partial / "train.jsonl", rows)
        write_text(partial / DIGEST, digest(partial / "train.jsonl"))


def require_unedited(folder: Path) -> None:
    """Refuse a train split that somebody edited: other runs read it too.

    Raises:
        CptBenchError: A file is not what was written.
    """
    file, known = folder / "train.jsonl", folder / DIGEST
    edited = [f for f in (folder / "images").glob("*") if digest(f)[:NAMED] != f.stem]
    if not (file.is_file() and known.is_file() and known.read_text() == digest(file)):
        edited = [file]
    if edited:
        raise CptBenchError(
            "was edited after it had been prepared",
            where=edited[0],
            todo=f"Delete {folder}, and run the same command again",
        )


def row_of(sample: Sample, card: TaskCard, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """A sample as a row of ``train.jsonl``; its pictures are written to ``folder/images``."""
    return Row(
        id=sample.id,
        task=card.name,
        prompt=protocol.prompt(sample.question),
        images=tuple(write_images(sample, folder)),
        target=protocol.target(sample.answers[0]),
        rationale=as_words(sample.rationale) if sample.rationale else None,
        gold=sample.model_dump(
            mode="json", exclude={"id", "question", "images", "rationale"}, exclude_none=True
        ),
    ).model_dump(mode="json")


def write_images(sample: Sample, folder: Path) -> list[str]:
    """Write a sample's pictures to ``folder/images``; returns their names, relative to it."""
    names = []
    for image in sample.images:
        kind = SIGNATURES.get(image[:2], "img")
        name = f"images/{hashlib.sha256(image).hexdigest()[:NAMED]}.{kind}"
        (folder / "images").mkdir(exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_bytes(image)
        names.append(name)
    return names
