"""What a benchmark is: suites, tasks, samples and the protocol, as declared data.

A suite is a folder: ``suite.yaml`` and one card a task. Everything that makes two numbers
comparable stands there and nowhere else: order, splits with their hashes, prompts, decoding,
grader, version. Nothing here knows torch or a task by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from cpt_bench.errors import CptBenchError, did_you_mean
from cpt_bench.files import digest_json
from cpt_bench.origins import Declared, Generator, Source, Split
from cpt_bench.plugins import resolve
from cpt_bench.variants import Variant, card_data, choose, split_spec, suite_data

# libyaml where PyYAML has it: ten times as quick, and every command reads cards.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

M = TypeVar("M", bound=BaseModel)

Style = str
"""A way of asking, by name: ``neutral``, ``direct`` or ``reasoning``."""


class Sample(Declared):
    """One question.

    Attributes:
        id: Unique within its task, stable for a suite version.
        question: The words of the question, options included.
        images: Encoded image files (any format Pillow reads), in the order they are shown.
        answers: Gold answers; the first one is what supervised training writes.
        kind: The answer's kind: ``letter``, ``yesno``, ``number``, ``word`` …
        rationale: A chain of thought that leads to the answer, where the data set has one.
        choices: The options' words, in the order of their letters.
        annotators: What each annotator answered, where a soft score needs them all.
        category: The data set's own group of questions, for scores by group.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"choices", "annotators", "category"})

    id: str
    question: str
    images: Sequence[bytes] = ()
    answers: tuple[str, ...] = Field(min_length=1)
    kind: str
    rationale: str | None = None
    choices: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    category: str = ""


class TaskCard(Declared):
    """One data set with its splits and grader.

    Attributes:
        instruction: What follows every question of this task, before the protocol's own words.
        notes: What is not known about this data set, or differs from the publication.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"instruction", "notes"})

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    title: str
    role: str = ""
    description: str
    version: int = Field(ge=1)
    source: Source
    splits: dict[str, Split]
    grader: str
    answer_kinds: tuple[str, ...]
    licence: str
    citation: str = ""
    instruction: str = ""
    notes: tuple[str, ...] = ()


class AnswerForm(Declared):
    """How a reply must be written: patterns for the whole reply and for the answer in it.

    ``open`` and ``close`` surround the final answer; ``thought`` (open, close) may come before it.

    Attributes:
        kind: ``tags``: the strict form, nothing but an optional thought and one answer. ``boxed``:
            the publication's: the last balanced box anywhere is the answer, the form is judged
            apart. ``whole``: all of the reply is the answer.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"kind"})

    open: str = ""
    close: str = ""
    thought: tuple[str, str] = ("", "")
    kind: Literal["", "boxed", "whole"] = ""


class Decoding(Declared):
    """Greedy decoding: no sampling, the same reply every time.

    Attributes:
        max_new_tokens: The longest reply.
        temperature: Above 0 the reply is sampled, one a question; 0 is greedy.
        top_p: Nucleus of the sampling, in (0, 1]; 0 leaves it whole.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"temperature", "top_p"})

    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=0.0, ge=0, le=1)


class RewardWeights(Declared):
    """The reward of a reply: ``accuracy`` x strict score + ``format`` x whether the form is met."""

    accuracy: float = Field(ge=0, le=1)
    format: float = Field(ge=0, le=1)


class Protocol(Declared):
    """What is the same for every method: prompts, the form of an answer, decoding, reward.

    Attributes:
        prompts: Style to template; ``{question}`` is replaced.
        style: The style whose scores rank.
        form: The form of a reply.
        decoding: How replies are made.
        reward: What reinforcement trainers are given.
        general: When general benchmarks are measured.
    """

    name: str
    prompts: dict[Style, str]
    style: Style
    form: AnswerForm
    decoding: Decoding
    reward: RewardWeights
    general: Literal["every-stage", "first-and-last"] = "every-stage"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.style not in self.prompts:
            raise ValueError(f"style {self.style!r} is not among prompts {sorted(self.prompts)}")
        for style, template in self.prompts.items():
            if "{question}" not in template:
                raise ValueError(f"prompts.{style} has no {{question}}")
        return self

    def prompt(self, question: str, style: Style | None = None) -> str:
        """The user's turn for ``question``, as text."""
        # Not str.format: a question may hold braces.
        return self.prompts[style or self.style].replace("{question}", question)

    def target(self, answer: str) -> str:
        """What supervised training writes for ``answer``: the bare answer in its form."""
        return f"{self.form.open}{answer}{self.form.close}"


class Suite(Declared):
    """A versioned benchmark: an ordered list of tasks, general benchmarks, protocol, base model."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    title: str
    version: str
    description: str
    base_model: str
    sequence: tuple[str, ...] = Field(min_length=1)
    general: tuple[str, ...] = ()
    protocol: Protocol
    cards: dict[str, TaskCard]
    tier: str = ""
    folder: Path = Field(exclude=True)
    variant: Variant = Field(default=Variant(), exclude=True)

    ADDED: ClassVar[frozenset[str]] = frozenset({"tier"})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in (*self.sequence, *self.general):
            if name not in self.cards:
                raise ValueError(f"no card for {name!r}")
        repeated = {n for n in self.sequence if self.sequence.count(n) > 1}
        if repeated:
            raise ValueError(f"sequence names {sorted(repeated)} more than once")
        for name in self.sequence:
            for split in ("train", "test"):
                if split not in self.cards[name].splits:
                    raise ValueError(f"task {name!r} has no {split} split")
        return self

    @property
    def place(self) -> Path:
        """What :func:`load_suite` reads this very suite from, variant included."""
        tag = self.variant.tag
        return self.folder.with_name(f"{self.folder.name}@{tag}") if tag else self.folder

    @property
    def label(self) -> str:
        """``cpt7-paper-direct-mini``: the name with whatever is not the default."""
        return "-".join(filter(None, [self.name, *self.variant.tag.replace("+", ".").split(".")]))

    def card(self, name: str) -> TaskCard:
        if name not in self.cards:
            raise CptBenchError(
                f"suite {self.name} has no task {name!r}", todo=did_you_mean(name, [*self.cards])
            )
        return self.cards[name]

    def base_path(self) -> Path:
        """The base model's folder, for suites that ship it; a hub id is returned as it is."""
        shipped = self.folder / self.base_model
        return shipped if shipped.is_dir() else Path(self.base_model)

    def reordered(self, order: tuple[str, ...]) -> Self:
        """The same suite in another task order."""
        if sorted(order) != sorted(self.sequence):
            raise CptBenchError(
                f"--order {','.join(order)} is not a permutation of {','.join(self.sequence)}"
            )
        return self.model_copy(update={"sequence": order})

    def fingerprint(self) -> str:
        """SHA-256 of all that the suite fixes, data hashes included."""
        return digest_json(self.model_dump(mode="json", exclude={"sequence"}))


def open_suite(spec: str) -> Suite:
    """A suite by its plug-in name (``nano``), or a folder that holds a ``suite.yaml``.

    ``@`` names a variant: ``cpt7@mini``, ``cpt7@paper``, ``cpt7@paper.direct+mini``.
    """
    name, tag = split_spec(spec)
    folder = Path(name)
    if not (folder / "suite.yaml").is_file():
        folder = Path(resolve("suites", name).value)
    return _load(folder, tag)


def load_suite(folder: Path) -> Suite:
    """Read ``suite.yaml`` and its cards from ``folder``, which may end in ``@variant``.

    Raises:
        CptBenchError: A file is missing, is not YAML, or has a wrong type; the line says which key.
    """
    name, tag = split_spec(str(folder))
    return _load(Path(name), tag)


def _load(folder: Path, tag: str) -> Suite:
    main = folder / "suite.yaml"
    declared = _read_yaml(main)
    variant = choose(tag, declared, main)
    data = suite_data(declared, variant, main)
    protocol = data.get("protocol") or {}
    ruler = (str(protocol.get("name")), str(protocol.get("style")), data.get("tier"))
    cards = {}
    for name in (*data.get("sequence", ()), *data.get("general", ())):
        file = folder / f"{name}.yaml"
        card = _validate(TaskCard, card_data(_read_yaml(file), *ruler), file)
        cards[str(name)] = pinned(card)
    return _validate(Suite, {**data, "cards": cards, "folder": folder, "variant": variant}, main)


def pinned(card: TaskCard) -> TaskCard:
    """``card`` with the hashes of its prepared splits, where it publishes none.

    So that ledger keys and fingerprints hold the data that was really used.
    """
    if isinstance(card.source, Generator) or all(s.sha256 for s in card.splits.values()):
        return card
    from cpt_bench.sources.cache import recorded

    splits = {
        name: split if split.sha256 else split.model_copy(update={"sha256": recorded(card, name)})
        for name, split in card.splits.items()
    }
    return card.model_copy(update={"splits": splits})


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        raise CptBenchError("no such file", where=file) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise CptBenchError(f"not valid YAML ({problem})", where=f"{file}{line}") from None
    if not isinstance(data, dict):
        raise CptBenchError("not a mapping of keys to values", where=file)
    return data


def _validate(model: type[M], data: dict[str, Any], file: Path) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise CptBenchError(explain(error), where=file, todo="Correct the file") from None


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: each key, what was wrong, what was given."""
    parts = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(k) for k in problem["loc"])
        given = (
            "" if problem["type"] in ("missing", "value_error") else f", not {problem['input']!r}"
        )
        message = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{key}: {message}{given}" if key else message)
    return "; ".join(parts)
