"""Whether two splits have questions or pictures in common: by their words, by what is seen."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.images import decode
from cpt_bench.sources.store import Pictures
from cpt_bench.suite import Sample


class Leak(NamedTuple):
    """What two splits share.

    Attributes:
        questions: (id here, id there) of the same words about the same pictures.
        pictures: (id here, id there) of the same picture with other words.
    """

    questions: list[tuple[str, str]]
    pictures: list[tuple[str, str]]


def leaks(
    train: Iterable[Sample],
    test: Iterable[Sample],
    pictures_of: Callable[[Sample], Sequence[str]] | None = None,
) -> Leak:
    """What a test split shares with a train split.

    Words are compared without case, spacing and punctuation, pictures by their pixels: a copy in
    another file format is found, one that was cropped or scaled is not.

    Args:
        train: The samples that a method learns from.
        test: Those that it is tested on.
        pictures_of: What pictures are compared by, in place of their pixels.
    """
    asked: dict[tuple[str, ...], str] = {}
    shown: dict[str, str] = {}
    seen: dict[str, str] = {}

    def by_pixels(sample: Sample) -> Sequence[str]:
        return [pixels(image, seen) for image in sample.images]

    named = pictures_of or by_pixels
    for sample in train:
        pictures = named(sample)
        asked.setdefault((words(sample), *pictures), sample.id)
        for picture in pictures:
            shown.setdefault(picture, sample.id)
    found = Leak([], [])
    for sample in test:
        pictures = named(sample)
        key = (words(sample), *pictures)
        if key in asked:
            found.questions.append((sample.id, asked[key]))
        elif other := next((shown[picture] for picture in pictures if picture in shown), None):
            found.pictures.append((sample.id, other))
    return found


def repeated(train: Sequence[Sample], test: Sequence[Sample]) -> list[tuple[str, str]]:
    """(id in ``test``, id in ``train``) of questions in both: the same words and picture files.

    It is quick: pictures are read only where the words are the same, and none is decoded.
    """
    common = {words(sample) for sample in test} & {words(sample) for sample in train}

    def asked(samples: Sequence[Sample]) -> dict[tuple[str, ...], str]:
        found: dict[tuple[str, ...], str] = {}
        for sample in samples if common else ():
            if (text := words(sample)) in common:
                found.setdefault((text, *files(sample)), sample.id)
        return found

    learned = asked(train)
    return [(name, learned[key]) for key, name in asked(test).items() if key in learned]


def files(sample: Sample) -> tuple[str, ...]:
    """The hashes of a sample's picture files; prepared ones are named by theirs."""
    if isinstance(sample.images, Pictures):
        return sample.images.digests
    return tuple(hashlib.sha256(image).hexdigest() for image in sample.images)


_BETWEEN = re.compile(r"[\W_]+")


def words(sample: Sample) -> str:
    """The words of a question and its choices, as they are compared.

    Signs between digits count: 1+2 and 1-2 are two questions.
    """
    text = " ".join((sample.question, *sample.choices)).casefold()
    plain = _BETWEEN.sub(" ", text).strip()
    return " ".join(text.split()) if any(c.isdigit() for c in text) or not plain else plain


def pixels(image: bytes, seen: dict[str, str]) -> str:
    """A hash of what a picture shows; of its bytes where it cannot be decoded.

    Args:
        image: The encoded picture.
        seen: Hash of bytes to what was returned for them; added to.
    """
    name = hashlib.sha256(image).hexdigest()
    if name not in seen:
        try:
            plain = decode(image, "")
            seen[name] = hashlib.sha256(repr(plain.size).encode() + plain.tobytes()).hexdigest()
        except CptBenchError:
            seen[name] = name
    return seen[name]


def some(pairs: Sequence[tuple[str, str]]) -> str:
    """The first pairs in words: ``test-3 = train-17 and 4 more``."""
    first = ", ".join(f"{here} = {there}" for here, there in pairs[:2])
    return f"{first} and {len(pairs) - 2} more" if len(pairs) > 2 else first
