"""Looks at data and proposes a card's source: files, splits, columns, answer kinds, grader."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.sources.mapping import is_number
from cpt_bench.sources.rows import METADATA, PICTURES, read_rows

KINDS = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "validation", "valid", "val", "dev", "eval"),
}
LOOKED_AT = 500
"""Rows of a table that a proposal is made from."""

QUESTION = (
    "question",
    "q",
    "query",
    "problem",
    "prompt",
    "instruction",
    "input",
    "text",
    "sentence",
)
ANSWER = ("answer", "answers", "a", "gold", "label", "target", "solution", "output", "response",
          "class", "species", "y")  # fmt: skip
CHOICES = ("choices", "options", "candidates", "alternatives")
CATEGORY = ("category", "topic", "subject", "type", "domain", "skill")
RATIONALE = ("rationale", "explanation", "reasoning", "cot", "why")
IDS = ("id", "qid", "question_id", "uid", "index")
FEW = 12
"""The most answers that are shown as choices where a data set has no others."""


class Data(NamedTuple):
    """One data set: a task of the suite.

    Attributes:
        name: Of the task.
        kind: The source's.
        root: The folder that its files are named from.
        splits: Split to files; empty where all are in ``files``.
        files: Files whose rows the splits share.
    """

    name: str
    kind: str
    root: Path
    splits: dict[str, tuple[str, ...]]
    files: tuple[str, ...]


def data_sets(place: Path) -> list[Data]:
    """The data sets at ``place``: a file, a folder of one, or a folder of several.

    Raises:
        CptBenchError: There is none.
    """
    if place.is_file():
        return [_file(place)]
    if not place.is_dir():
        raise CptBenchError("no such file or folder", where=place, todo="Give --from what there is")
    one = _folder(place)
    if one is not None:
        return [one]
    found = []
    for child in sorted(place.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_dir() and (inside := _folder(child)):
            found.append(inside)
        elif child.suffix in KINDS:
            found.append(_file(child))
    if not found:
        known = ", ".join(sorted(KINDS))
        todo = f"Tables end in {known}; pictures lie in folders named after their labels"
        raise CptBenchError("has no data set", where=place, todo=todo)
    return found


def _file(file: Path) -> Data:
    if file.suffix not in KINDS:
        todo = f"There is: {', '.join(sorted(KINDS))}, and folders of pictures"
        raise CptBenchError(f"{file.suffix!r} is no kind of table", where=file, todo=todo)
    return Data(slug(file.stem), KINDS[file.suffix], file.parent, {}, (file.name,))


def _folder(folder: Path) -> Data | None:
    """The one data set that ``folder`` holds; None where it holds several, or none."""
    name, inside = slug(folder.name), [p for p in sorted(folder.iterdir()) if p.name[0] != "."]
    if any((folder / listed).is_file() for listed in METADATA):
        return Data(name, "imagefolder", folder, {}, (".",))
    tables = [p for p in inside if p.suffix in KINDS]
    by_split = {s: [p.name for p in tables if _is_split(p.stem, s)] for s in SPLITS}
    if all(by_split.values()):
        kind = KINDS[(folder / by_split["train"][0]).suffix]
        files = {split: tuple(names) for split, names in by_split.items()}
        return Data(name, kind, folder, files, ())
    folders = [p for p in inside if p.is_dir()]
    parted = {s: [p.name for p in folders if _is_split(p.name, s)] for s in SPLITS}
    if not tables and all(parted.values()) and _pictures(folder):
        return Data(name, "imagefolder", folder, {s: (n[0],) for s, n in parted.items()}, ())
    if tables:
        # Tables of equal columns could be shards, but two data sets in one folder look the same.
        one = _file(tables[0])._replace(name=name)
        return one if len(tables) == 1 and (not folders or names_pictures(one)) else None
    if folders and all(any(p.suffix.lower() in PICTURES for p in f.iterdir()) for f in folders):
        return Data(name, "imagefolder", folder, {}, (".",))
    return None


def _pictures(folder: Path) -> bool:
    return any(p.suffix.lower() in PICTURES for p in folder.rglob("*"))


def _is_split(stem: str, split: str) -> bool:
    return re.split(r"[-_.]", stem.lower())[0] in SPLITS[split]


def slug(text: str) -> str:
    """A name for a task: small letters, digits, hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain if plain[:1].isalpha() else f"task-{plain}".strip("-")


class Proposal(NamedTuple):
    """What a card may declare of a data set.

    Attributes:
        map: Where a row holds what.
        kinds: The kinds of its answers.
        grader: What compares them.
        remarks: What a person should look at, each a line.
    """

    map: dict[str, Any]
    kinds: tuple[str, ...]
    grader: str
    remarks: tuple[str, ...]


def propose(rows: Sequence[Mapping[str, Any]], where: object) -> Proposal:
    """A proposal from the first rows of a data set.

    Raises:
        CptBenchError: No column can be the answer.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row.get(name) for row in rows] for name in columns}
    lower = {name.lower().replace("-", "_"): name for name in reversed(columns)}
    used: set[str] = set()

    def named(names: Sequence[str]) -> str:
        found = next((lower[n] for n in names if n in lower and lower[n] not in used), "")
        used.update({found} - {""})
        return found

    images = [name for name in columns if any(map(_is_picture, values[name]))]
    used.update(images)
    answer, remarks = named(ANSWER), list[str]()
    if not answer:
        rest = [name for name in columns if name not in used]
        if len(rest) < 2 - bool(images):
            todo = f"Give a table with a question and its answer: there is {', '.join(columns)}"
            raise CptBenchError("no column can be the answer", where=where, todo=todo)
        answer = rest[-1]
        used.add(answer)
        remarks.append(f"no column is called answer or label: the last one, {answer}, was taken")
    choices = named(CHOICES)
    lettered = [lower[x] for x in "abcdefgh" if x in lower and lower[x] != answer]
    question, identity = named(QUESTION), named(IDS)
    if identity and len({str(v) for v in values[identity]}) < len(rows):
        remarks.append(f"{identity} is not different in every row, so ids are row numbers")
        identity = ""
    several = [v for v in values[answer] if isinstance(v, list)]
    golds = [x for v in values[answer] for x in (v if isinstance(v, list) else [v])]
    words = [_plain(x) for x in golds if x is not None]
    mapped: dict[str, Any] = {"id": f"{{{identity}}}"} if identity else {}
    options = choices or (lettered if len(lettered) > 1 else "")
    distinct = sorted(set(words))
    if question:
        template = f"{{{question}}}"
    else:
        rest = [c for c in columns if c not in used and c not in (answer, *lettered, "label")]
        asked = "What is shown?" if images else f"What is the {answer.replace('_', ' ')}?"
        template = "".join(f"{c.replace('_', ' ')}: {{{c}}}\n" for c in rest) + asked
        remarks.append("no column looks like a question: this one is made up, put it in your words")
        if not options and len(distinct) <= FEW and not all(map(is_number, words)):
            template += f" One of: {', '.join(distinct)}."
    mapped["question"] = f"{template}\n{{options}}" if options else template
    mapped["answer"] = answer
    if options:
        mapped["choices"] = options
        mapped["gold"] = _how(rows, answer, choices, lettered, words)
    if images:
        mapped["images"] = images[0] if len(images) == 1 else images
    annotated = several and Counter(map(len, several)).most_common(1)[0][0] >= 5
    if annotated:
        mapped["annotators"] = answer
        remarks.append(f"{answer} looks like several people's answers: graded by agreement (vqa)")
    for key, names in (("category", CATEGORY), ("rationale", RATIONALE)):
        if (found := named(names)) and not any(isinstance(v, Mapping) for v in values[found]):
            mapped[key] = found
    kinds, grader = (("letter",), "choice") if options else _kinds(words)
    return Proposal(mapped, kinds, "vqa" if annotated else grader, tuple(remarks))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).strip()


def _is_picture(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_picture, value))
    if isinstance(value, Mapping):
        return "bytes" in value and "path" in value
    if isinstance(value, bytes):
        return True
    return isinstance(value, str) and (
        value.startswith("data:image/") or Path(value).suffix.lower() in PICTURES
    )


def _how(
    rows: Sequence[Mapping[str, Any]],
    answer: str,
    choices: str,
    lettered: Sequence[str],
    words: Sequence[str],
) -> str:
    """How the answer names a choice."""
    if choices and all(_plain(row[answer]) in map(_plain, row[choices]) for row in rows):
        return "text"
    if all(re.fullmatch(r"[A-Za-z]", w) for w in words):
        return "letter"
    if all(w.isdigit() for w in words):
        counts = [len(row[choices]) if choices else len(lettered) for row in rows]
        top = any(int(_plain(r[answer])) >= n for r, n in zip(rows, counts, strict=True))
        return "number" if top and "0" not in words else "index"
    return "text"


def _kinds(words: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The kinds of answers, and a grader that reads them all."""
    folded = [w.lower() for w in words]
    sets = {
        "yesno": [w in ("yes", "no") for w in folded],
        "number": [is_number(w) for w in words],
    }
    for kind, fits in sets.items():
        if all(fits):
            return (kind,), kind
    mixed = tuple(kind for kind, fits in sets.items() if any(fits))
    if mixed:
        return (*mixed, "word"), "by-kind"
    return ("word",), "exact"


def names_pictures(data: Data) -> bool:
    """Whether rows name picture files, which belong to the data set."""
    values = [value for row in first_rows(data) for value in row.values()]
    return any(_is_picture(value) and isinstance(value, str | list) for value in values)


def first_rows(data: Data) -> Iterator[dict[str, Any]]:
    """Up to :data:`LOOKED_AT` rows, the train split's where there is one."""
    names = data.splits.get("train") or data.files
    count = 0
    for name in names:
        for row in read_rows(data.kind, data.root, name):
            if count == LOOKED_AT:
                return
            count += 1
            yield row.values
