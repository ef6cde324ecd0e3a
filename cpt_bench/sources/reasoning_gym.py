"""Questions of the package ``reasoning-gym``: made from a seed, and scored by their ids.

The package's scorers need an entry's metadata, which a sample does not have. So a sample's id is
the call that makes its entry, ``chain_sum(max_digits=2,seed=7)[12]``. All that the package does is
done in a process of its own, :mod:`cpt_bench.sources.gym_helper`, for the reason given there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import parsed
from cpt_bench.processes import HelperProcess
from cpt_bench.suite import Sample, TaskCard
from cpt_bench.suite.origins import ReasoningGym

PACKAGE = "reasoning-gym"

TRIES = 50
"""So many questions are drawn for each that is wanted, at most, before a split is given up."""

BLOCK = 50
"""Questions that are asked for at once."""


def make(card: TaskCard, split: str) -> list[Sample]:
    """The samples of a split: the first that its seed gives and its rules admit.

    No question of the test split, by its words, is in another split.

    Raises:
        CptBenchError: The package is missing or another version, it has no such task or setting,
            or it has too few different questions.
    """
    source = card.source
    assert isinstance(source, ReasoningGym)
    require(source.version)
    taken = {words(q) for _, q, _ in _chosen(card, "test")} if split != "test" else set()
    kind = card.answer_kinds[0]
    return [
        Sample(id=i, question=question.strip(), answers=(gold,), kind=kind)
        for i, question, gold in _chosen(card, split, frozenset(taken))
    ]


def words(question: str) -> str:
    """A question's words alone: two that differ in case or spaces are the same question."""
    return " ".join(question.casefold().split())


def _chosen(
    card: TaskCard, split: str, taken: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str, str]]:
    """Id, question and gold of a split's samples, without the questions in ``taken``."""
    source, n = card.source, card.splits[split].n
    assert isinstance(source, ReasoningGym)
    if split not in source.seeds:
        raise CptBenchError(f"no seed for the {split} split", where=f"task {card.name}")
    call = call_of(source.task, source.settings, source.seeds[split])
    most = source.most_alike * n or n
    golds, seen, found = Counter[str](), set[str](), 0
    for index, (question, gold) in _drawn(call, TRIES * n):
        asked = words(question)
        if asked in taken or (asked in seen and not source.repeats) or golds[gold] + 1 > most:
            continue
        seen.add(asked)
        golds[gold] += 1
        yield f"{call}[{index}]", question, gold
        if (found := found + 1) == n:
            return
    raise CptBenchError(
        f"{source.task} has {found} questions for the {split} split under these settings, not {n}",
        where=f"task {card.name}",
        todo="Ask for fewer, or choose settings with more different questions",
    )


def _drawn(call: str, most: int) -> Iterator[tuple[int, tuple[str, str]]]:
    for first in range(0, most, BLOCK):
        block = _HELPER.ask("entries", call, first, min(first + BLOCK, most))
        for index, (question, gold) in enumerate(block, first):
            yield index, (str(question), str(gold))


def call_of(task: str, settings: dict[str, Any], seed: int) -> str:
    """The call that makes a data set: its name, its settings sorted, its seed."""
    given = {**dict(sorted(settings.items())), "seed": seed}
    return f"{task}({','.join(f'{key}={_literal(value)}' for key, value in given.items())})"


def _literal(value: Any) -> str:
    """A setting as Python writes it, without spaces."""
    plain = parsed(json.dumps(value))  # tuples as lists, whatever a card's reader made of them
    return repr(plain).replace(", ", ",").replace(": ", ":")


@lru_cache(maxsize=65536)
def score(answer: str, id: str, gold: str) -> float:
    """The package's own score of ``answer``, in [0, 1].

    Args:
        answer: The answer, as it was read from a reply.
        id: The sample's id.
        gold: The sample's gold answer, which must be the entry's.

    Raises:
        CptBenchError: The package is missing, or makes another question of this id.
    """
    call, index = _parsed(id)
    found, own = _HELPER.ask("score", call, index, answer)
    if own != gold:
        raise CptBenchError(
            f"reasoning-gym {version(PACKAGE)} makes another question of {id}",
            todo="Install the version that the task's card names",
        )
    return float(found)


def _parsed(id: str) -> tuple[str, int]:
    call, bracket, index = id.removesuffix("]").rpartition("[")
    if not bracket or not index.isdecimal() or not call.endswith(")"):
        raise CptBenchError(
            f"{id!r} is not the id of a question of reasoning-gym",
            todo="This grader is for tasks whose source is reasoning-gym",
        )
    return call, int(index)


def require(wanted: str = "") -> None:
    """Check that the package is installed, in the version that is wanted if one is given.

    Raises:
        CptBenchError: It is not; the line names the command that installs it.
    """
    found = installed()
    if found is None:
        raise CptBenchError(
            f"the package {PACKAGE} is not installed", todo="Install it with: " + _command(wanted)
        )
    if wanted and found != wanted:
        raise CptBenchError(
            f"{PACKAGE} {found} is installed, and the questions are those of {wanted}",
            todo="Install it with: " + _command(wanted),
        )


def installed() -> str | None:
    """The version of the package that is installed; None if it is not."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return None


def _command(wanted: str) -> str:
    return f"pip install {PACKAGE}=={wanted}" if wanted else "pip install 'cptbench[gym]'"


class Helper(HelperProcess):
    """The process of :mod:`cpt_bench.sources.gym_helper`, started when it is first asked."""

    def __init__(self) -> None:
        super().__init__("cpt_bench.sources.gym_helper", PYTHONHASHSEED="0")

    def ask(self, what: str, call: str, *arguments: Any) -> Any:
        """What the helper finds.

        Raises:
            CptBenchError: The package is missing or refuses, or the process has ended.
        """
        with self.lock:
            if not self.owned():
                require()
                self.start()
            process = self.process
            assert process is not None and process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps([what, call, arguments]).encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = b""
            if not line:
                self.process = None
                raise CptBenchError(
                    f"the process that asks {PACKAGE} has ended (status {process.poll()})",
                    todo="Its output is above",
                )
        answer = parsed(line)
        if "refused" in answer:
            raise CptBenchError(
                f"reasoning-gym refuses {call} ({answer['refused']})",
                todo="Correct the card's task and settings",
            )
        return answer["found"]


_HELPER = Helper()
