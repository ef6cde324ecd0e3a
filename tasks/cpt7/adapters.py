"""Rows of the published tables -> samples, with the publication's wording.

Each function takes (row, index, split, options) and returns a Sample, or None to leave the row out;
``index`` counts the rows that are used. Pictures come as encoded bytes. Facts about the tables and
the authors' files are in the cards' notes.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cpt_bench.suite import Sample

Row = Mapping[str, Any]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def lettered(choices: Sequence[str], form: str = "{}. {}") -> str:
    """``A. this`` and ``B. that``, one per line."""
    return "\n".join(form.format(letter, c) for letter, c in zip(LETTERS, choices, strict=False))


def most_common(answers: Sequence[str]) -> str:
    """The most frequent answer in lower case; the first of them on a tie."""
    counts = Counter(answer.strip().lower() for answer in answers)
    if not counts:
        raise ValueError("the list of answers is empty")
    return max(counts, key=lambda answer: counts[answer])  # max keeps the first


def pictures(row: Row, column: str = "image") -> tuple[bytes, ...]:
    picture = row.get(column)
    return (picture,) if picture is not None else ()


def scienceqa(row: Row, index: int, split: str, context_word: str = "always") -> Sample | None:
    """The questions that have an image; the gold is the option's letter."""
    if row["image"] is None:
        return None
    choices, hint = tuple(row["choices"]), (row["hint"] or "").strip()
    word = "Context: " if context_word == "always" or split == "train" else ""
    context = f"{word}{hint}\n" if hint else ""
    if not 0 <= row["answer"] < len(choices):
        raise ValueError(f"answer {row['answer']} is none of {len(choices)} choices")
    return Sample(
        id=f"{split}-{index:05d}",
        question=f"{context}{row['question']}\n{lettered(choices)}",
        images=pictures(row),
        answers=(LETTERS[row["answer"]],),
        kind="letter",
        choices=choices,
    )


def textvqa(row: Row, index: int, split: str, ocr_tokens: bool = True) -> Sample:
    tokens = f"\nReference OCR token:{','.join(row['ocr_tokens'])}" if ocr_tokens else ""
    answers = tuple(row["answers"])
    return Sample(
        id=str(row["question_id"]),
        question=f"{row['question']}{tokens}",
        images=pictures(row),
        answers=(most_common(answers),),
        kind="word",
        annotators=answers,
    )


def vizwiz(row: Row, index: int, split: str) -> Sample:
    # Two tables: one has question_id, the other the file's name; both are the picture's stem.
    name = str(row["question_id"] if "question_id" in row else row["filename"])
    answers = tuple(a["answer"] if isinstance(a, Mapping) else a for a in row["answers"])
    gold = most_common(answers)
    return Sample(
        id=name.rpartition("/")[2].removesuffix(".jpg"),
        question=row["question"],
        images=pictures(row),
        answers=(gold,),
        kind="unanswerable" if gold == "unanswerable" else "word",
        annotators=answers,
    )


def gqa(row: Row, index: int, split: str, capitalise: bool = False) -> Sample:
    gold = row["answer"].strip()
    return Sample(
        id=row["id"],
        question=row["question"],
        images=pictures(row),
        answers=(gold.capitalize() if capitalise else gold,),
        kind="yesno" if gold.lower() in ("yes", "no") else "word",
    )


def geometry3k(row: Row, index: int, split: str) -> Sample:
    return Sample(
        id=f"{split}-{index:05d}",
        question=row["problem"].removeprefix("<image>").strip(),
        images=tuple(row["images"]),
        answers=(row["answer"].strip(),),
        kind="math",
    )


def pathvqa(row: Row, index: int, split: str) -> Sample:
    gold = row["answer"].strip()
    return Sample(
        id=f"{split}-{index:05d}",
        question=row["question"],
        images=pictures(row),
        answers=(gold,),
        kind="yesno" if gold.lower() in ("yes", "no") else "word",
    )


def superclevr(row: Row, index: int, split: str) -> Sample:
    """One table for both splits: the id is the row's number in it."""
    turns = row["conversations"]
    # A list of turns, or, from older cards, one mapping of lists.
    words = turns["value"] if isinstance(turns, Mapping) else [turn["value"] for turn in turns]
    if len(words) != 2:
        raise ValueError(f"{len(words)} turns of conversation, not a question and an answer")
    gold = words[1].strip()
    low = gold.lower()
    return Sample(
        id=f"row-{index:05d}",
        question=words[0].replace("<image>", "").strip(),
        images=pictures(row),
        answers=(gold,),
        kind="number" if gold.isdigit() else "yesno" if low in ("yes", "no") else "word",
    )


def mmmu(row: Row, index: int, split: str) -> Sample:
    """The official prompt, instruction included: it differs between the two types of questions."""
    options = tuple(str(option) for option in _listed(row["options"]))
    images = [row[f"image_{i}"] for i in range(1, 8)]
    multiple = row["question_type"] == "multiple-choice"
    if row["answer"].strip() == "?":
        raise ValueError("its answer is '?': the table hides the gold of this split")
    if multiple:
        tail = (
            f"\n\n{lettered(options, '({}) {}')}\n\n"
            "Answer with the option's letter from the given choices directly."
        )
        answers: tuple[str, ...] = (row["answer"].strip(),)
    else:
        tail = "\n\nAnswer the question using a single word or phrase."
        answers = tuple(str(answer) for answer in _listed(row["answer"]))
    return Sample(
        id=row["id"],
        question=f"{row['question']}{tail}",
        images=tuple(image for image in images if image is not None),
        answers=answers,
        kind="letter" if multiple else "open",
        choices=options,
        category="_".join(row["id"].split("_")[1:-1]),
    )


def _listed(text: str) -> list[Any]:
    """A list written as Python writes it; anything else is a list of itself."""
    if not text.lstrip().startswith("["):
        return [text]
    value = ast.literal_eval(text.strip())
    return list(value)


def mmlu_pro(row: Row, index: int, split: str) -> Sample:
    options = tuple(option.strip() for option in row["options"])
    return Sample(
        id=str(row["question_id"]),
        question=f"{row['question'].strip()}\n{lettered(options)}",
        answers=(row["answer"].strip(),),
        kind="letter",
        choices=options,
        category=row["category"],
    )


def pope(row: Row, index: int, split: str) -> Sample:
    return Sample(
        id=f"{row['category']}-{row['question_id']}",
        question=row["question"],
        images=pictures(row),
        answers=(row["answer"].strip().lower(),),
        kind="yesno",
        category=row["category"],
    )
