"""The process in which reasoning-gym makes questions and scores answers.

Some of its tasks draw letters from a set, so that their questions differ from process to process
with Python's seed of hashes. Here that seed is always 0: the parent starts it so. It reads
``[what, call, arguments]`` as JSON lines and writes JSON lines, until its input ends: ``entries``
of a data set from one index to another as (question, answer), or the ``score`` of an answer to one.
"""

from __future__ import annotations

import ast
import json
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

LARGEST = 200_000
"""The size of a data set as the package sees it; its questions do not depend on it."""


@lru_cache(maxsize=256)
def dataset(call: str) -> Any:
    """The data set that ``call`` describes: a name and keyword arguments, never run as code."""
    import reasoning_gym

    parsed = ast.parse(call, mode="eval").body
    assert isinstance(parsed, ast.Call) and isinstance(parsed.func, ast.Name)
    given = {str(k.arg): ast.literal_eval(k.value) for k in parsed.keywords}
    return reasoning_gym.create_dataset(parsed.func.id, size=LARGEST, **given)


@lru_cache(maxsize=100_000)  # a trainer grades the same questions again and again
def entry(call: str, index: int) -> Any:
    """One entry, with its metadata."""
    return dataset(call)[index]


def entries(call: str, first: int, last: int) -> list[list[str]]:
    """Questions and answers from ``first`` up to, not including, ``last``."""
    made = [entry(call, index) for index in range(first, last)]
    return [[str(e["question"]), gold(e)] for e in made]


def gold(made: Any) -> str:
    """An entry's answer as text; empty where it has none."""
    return "" if made["answer"] is None else str(made["answer"])


def score(call: str, index: int, answer: str) -> list[Any]:
    """The package's score of ``answer``, and the entry's own answer."""
    made = entry(call, index)
    return [float(dataset(call).score_answer(answer, made)), gold(made)]


DOES: dict[str, Callable[..., list[Any]]] = {"entries": entries, "score": score}


def main() -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    out, sys.stdout = sys.stdout, sys.stderr  # libraries that print must not answer
    for line in sys.stdin:
        what, call, arguments = json.loads(line)
        try:
            answer: dict[str, Any] = {"found": DOES[what](call, *arguments)}
        except Exception as error:  # whatever the package refuses, the parent says in a line
            answer = {"refused": " ".join(str(error).split()) or type(error).__name__}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
