"""A row -> a sample, as a card's ``map`` declares it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from cpt_bench.errors import CptBenchError, did_you_mean, shown
from cpt_bench.sources.checks import LETTERS
from cpt_bench.suite import Sample
from cpt_bench.suite.columns import OPTIONS, Among, Columns, Condition, names_in

UNKNOWN = "?"
"""Stands for a gold answer that is not on this machine."""

_ABSENT = object()


def sample_of(
    values: Mapping[str, Any],
    columns: Columns,
    kinds: Sequence[str],
    name: str,
    images: Sequence[bytes] = (),
    asked_only: bool = False,
) -> Sample:
    """The sample that a row makes.

    Args:
        values: The row.
        columns: Where it holds what.
        kinds: The card's answer kinds.
        name: The sample's id where ``columns`` has none.
        images: Its pictures, which :func:`pictures_of` finds.
        asked_only: The row has no gold answer; :data:`UNKNOWN` stands for it.

    Raises:
        CptBenchError: A column is missing, or does not hold what it should.
    """
    choices = _choices(values, columns)
    answers = (UNKNOWN,) if asked_only else _golds(values, columns, choices)
    kind = _kind(values, columns, kinds, answers[0], bool(choices))
    if asked_only:
        pass
    elif choices and kind == "letter":
        answers = tuple(_as_letter(answer, columns, choices) for answer in answers)
    elif choices and columns.gold in ("letter", "index", "number"):
        answers = tuple(choices[LETTERS.index(_as_letter(a, columns, choices))] for a in answers)
    rationale = _text(values, columns.rationale, columns) if columns.rationale else ""
    made = Sample(
        id=fill(columns.id, values, columns) if columns.id else name,
        question=fill(columns.question, values, columns, choices),
        answers=answers,
        kind=kind,
        rationale=rationale or None,
        choices=choices,
        annotators=()
        if asked_only or not columns.annotators
        else _list(values, columns.annotators, columns),
        category=_text(values, columns.category, columns) if columns.category else "",
    )
    return made.model_copy(update={"images": images})  # pictures are read when they are needed


def fill(
    template: str, values: Mapping[str, Any], columns: Columns, choices: Sequence[str] = ()
) -> str:
    """A template with the row's words in it; braces in those words mean nothing."""
    parts, rest = [], template
    for name in names_in(template):
        before, _, rest = rest.partition(f"{{{name}}}")
        parts.append(before)
        if choices and name == OPTIONS[1:-1]:
            parts.append("\n".join(f"{x}. {c}" for x, c in zip(LETTERS, choices, strict=False)))
        else:
            parts.append(_text(values, name, columns))
    return "".join([*parts, rest])


def group_of(values: Mapping[str, Any], by: str) -> str:
    """What a draw ranks rows by: the value of a column, or a template's words."""
    found = by
    for name in names_in(by):
        found = found.replace(f"{{{name}}}", str(lookup(values, name)))
    return found if names_in(by) else str(lookup(values, by))


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a path into one.

    Raises:
        CptBenchError: The row has no such column.
    """
    if name in values:
        return values[name]
    optional = name.endswith("?")
    name = name.removesuffix("?")
    found: Any = values
    for part in name.split("."):
        found = _inside(found, part)
        if found is _ABSENT:
            break
    if found is _ABSENT and optional:
        return None
    if found is _ABSENT:
        known = [str(key) for key in values]
        raise CptBenchError(f"no column {name!r}", todo=did_you_mean(name, known))
    return found


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part, _ABSENT)
    if isinstance(value, list | tuple) and part.lstrip("-").isdigit():
        return value[int(part)] if -len(value) <= int(part) < len(value) else _ABSENT
    return _ABSENT


def _words(value: Any, name: str, columns: Columns) -> str:
    labels = columns.labels.get(name)
    if labels is not None:
        key = _plain(value)
        if isinstance(labels, tuple):
            place = int(key) if key.isdigit() else -1
            if not 0 <= place < len(labels):
                what = f"labels.{name} has no word for {shown(value)} (it has {len(labels)})"
                raise CptBenchError(what)
            return labels[place]
        if key not in labels:
            raise CptBenchError(
                f"labels.{name} has no word for {shown(value)}", todo=did_you_mean(key, [*labels])
            )
        return labels[key]
    if isinstance(value, Mapping | bytes):
        raise CptBenchError(f"column {name!r} is {shown(value)}, not text")
    return _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))  # tables with a gap in a column of whole numbers store 12.0
    return str(value)


def _text(values: Mapping[str, Any], name: str, columns: Columns) -> str:
    value = lookup(values, name)
    if isinstance(value, list | tuple):
        return "\n".join(_words(item, name, columns) for item in value)
    return _words(value, name, columns)


def _list(values: Mapping[str, Any], name: str, columns: Columns) -> tuple[str, ...]:
    value = lookup(values, name)
    items = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return tuple(_words(item, name, columns) for item in items)


def _choices(values: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    if columns.same_choices:
        return columns.same_choices
    if len(columns.choices) == 1:
        found = _list(values, columns.choices[0], columns)
        if found and not isinstance(lookup(values, columns.choices[0]), list | tuple):
            raise CptBenchError(f"column {columns.choices[0]!r} is {shown(found[0])}, not a list",
                                todo="Name a column for each choice")  # fmt: skip
        return found
    found = tuple(_text(values, name, columns) for name in columns.choices)
    while found and not found[-1]:
        found = found[:-1]  # questions may have fewer choices than there are columns
    return found


def _golds(values: Mapping[str, Any], columns: Columns, choices: Sequence[str]) -> tuple[str, ...]:
    found = [answer for name in columns.answer for answer in _list(values, name, columns)]
    golds = tuple(answer for answer in found if answer.strip())
    if not golds:
        raise CptBenchError(f"no gold answer in {', '.join(columns.answer)}")
    return golds


def _as_letter(answer: str, columns: Columns, choices: Sequence[str]) -> str:
    """The letter of the choice that ``answer`` names.

    Raises:
        CptBenchError: It names none, or more than one.
    """
    given, how = answer.strip(), columns.gold or "text"
    if how in ("index", "number"):
        place = int(given) - (how == "number") if given.lstrip("-").isdigit() else -1
        if 0 <= place < min(len(choices), len(LETTERS)):
            return LETTERS[place]
    elif how == "letter":
        if len(given) == 1 and given.upper() in LETTERS[: len(choices)]:
            return given.upper()
    else:
        folded = [choice.strip().casefold() for choice in choices]
        if folded.count(given.casefold()) == 1:
            return LETTERS[folded.index(given.casefold())]
    raise CptBenchError(
        f"the answer {shown(answer)} is the {how} of none of its {len(choices)} choices"
        if how != "text" or given.casefold() not in [c.strip().casefold() for c in choices]
        else f"the answer {shown(answer)} is the text of several choices",
        todo="Set map.gold to text, letter, index (from 0) or number (from 1)",
    )


def _kind(
    values: Mapping[str, Any],
    columns: Columns,
    kinds: Sequence[str],
    answer: str,
    has_choices: bool,
) -> str:
    if columns.kind:
        return fill(columns.kind, values, columns)
    if len(kinds) == 1:
        return kinds[0]
    return told_kind(answer, kinds, has_choices)


def told_kind(answer: str, kinds: Sequence[str], has_choices: bool) -> str:
    """Which of ``kinds`` an answer looks like."""
    if has_choices and "letter" in kinds:
        return "letter"
    if "yesno" in kinds and answer.strip().lower() in ("yes", "no"):
        return "yesno"
    if "number" in kinds and is_number(answer):
        return "number"
    rest = [kind for kind in kinds if kind not in ("letter", "yesno", "number")]
    return rest[0] if rest else kinds[0]


def is_number(text: str) -> bool:
    """Whether ``text`` is a plain number: ``12``, ``-0.5``, ``1,200``, ``3/4``."""
    plain = text.strip().replace(",", "")
    try:
        return all(abs(float(part)) < 1e300 for part in plain.split("/", 1))
    except ValueError:
        return False


# ------------------------------------------------------------------------------------- pictures


def pictures_of(values: Mapping[str, Any], columns: Columns) -> list[bytes | str]:
    """A row's pictures in order: their bytes, or the path of each.

    Raises:
        CptBenchError: A column holds neither.
    """
    found: list[bytes | str] = []
    for name in columns.images:
        value = fill(name, values, columns) if names_in(name) else lookup(values, name)
        items = value if isinstance(value, list | tuple) else [value]
        found += [part for item in items if (part := _picture(item, name)) is not None]
    return found


def _picture(value: Any, name: str) -> bytes | str | None:
    if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
        value = value.get("bytes") or value.get("path")
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise CptBenchError(f"column {name!r} is {shown(value)}, neither a picture nor its path")
    if value.startswith("data:"):
        try:
            return base64.b64decode(value.partition(",")[2], validate=True)
        except (binascii.Error, ValueError):
            raise CptBenchError(f"column {name!r} is no picture in base64") from None
    if "://" in value:
        raise CptBenchError(
            f"column {name!r} is an address ({value[:80]})",
            todo="Fetch the pictures once, and name the files: an address may show another "
            "picture tomorrow",
        )
    return value


# -------------------------------------------------------------------------------------- filters


def fits(values: Mapping[str, Any], where: Mapping[str, Condition]) -> bool:
    """Whether a row meets every condition.

    Raises:
        CptBenchError: It has no such column, or a number is needed and it has none.
    """
    return all(_meets(lookup(values, name), name, wanted) for name, wanted in where.items())


def _meets(value: Any, name: str, wanted: Condition) -> bool:
    if isinstance(wanted, Among):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise CptBenchError(f"column {name!r} is {shown(value)}, not a number") from None
        low = wanted.at_least is None or number >= wanted.at_least
        return low and (wanted.at_most is None or number <= wanted.at_most)
    if isinstance(wanted, tuple):
        return any(_equals(value, one) for one in wanted)
    return _equals(value, wanted)


def _equals(value: Any, wanted: Any) -> bool:
    """As a reader of the table would say: in CSV everything is text."""
    if value is None or wanted is None or (isinstance(value, bool) and isinstance(wanted, bool)):
        return value is wanted
    if isinstance(wanted, bool):
        return str(value).strip().casefold() == str(wanted).casefold()
    if isinstance(wanted, int | float) and not isinstance(value, bool):
        try:
            return float(value) == wanted
        except (TypeError, ValueError):
            return False
    return str(value) == str(wanted)
