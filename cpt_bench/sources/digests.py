"""The hash of a split: over ids, questions, pictures and gold, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from cpt_bench.suite import Sample


def split_digest(samples: Iterable[Sample]) -> str:
    """SHA-256 over ids, questions, images, gold answers and kinds, in order."""
    total = hashlib.sha256()
    for s in samples:
        images = [hashlib.sha256(image).hexdigest() for image in s.images]
        total.update(
            digest_fields(
                s.id, s.question, images, s.answers, s.kind, s.choices, s.annotators, s.category
            )
        )
    return total.hexdigest()


def digest_fields(
    id: str,
    question: str,
    images: Sequence[str],
    answers: Sequence[str],
    kind: str,
    choices: Sequence[str],
    annotators: Sequence[str],
    category: str,
) -> bytes:
    """The bytes that one sample adds to its split's hash; empty fields add nothing."""
    fields = [id, question, *images, *answers, kind]
    for name, values in (("choices", choices), ("annotators", annotators)):
        fields += ["", name, *values] if values else []
    fields += ["", "category", category] if category else []
    return ("\0".join(fields) + "\n").encode()
