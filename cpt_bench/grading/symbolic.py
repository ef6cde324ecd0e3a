"""Compares formulas with math-verify and mathruler, in a separate process.

Both pass the model's text to sympy, which a hostile or just unusual formula can keep busy for hours
or make use up all memory; their own time limits are signals, which work only in a main thread. So
one helper process with limited memory serves all threads, one comparison at a time; if a comparison
takes more than five seconds of CPU time, the answer is wrong and a new helper is started.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
from functools import lru_cache
from importlib.util import find_spec

from cpt_bench.errors import CptBenchError
from cpt_bench.grading.formulas import Formula, parse_math, readings, same_unit
from cpt_bench.processes import HelperProcess
from cpt_bench.suite import Sample

SECONDS = 300.0
"""Time limit in seconds for one comparison; the helper normally ends itself long before."""

START_SECONDS = 300.0
"""Time limit in seconds for the helper to import sympy, on a busy machine."""

LONGEST = 1000
"""Maximal length of a formula in characters; a longer answer is wrong."""

NO_BOX = "None"
"""mathruler's result if there is no box: a word, which it then grades like any other."""


class Helper(HelperProcess):
    """The helper process: started when first asked, replaced when it hangs or dies."""

    def __init__(self) -> None:
        super().__init__("cpt_bench.grading.symbolic_helper")

    def ask(self, function: str, answer: str, gold: str) -> bool:
        """Whether ``answer`` equals ``gold`` under ``function``; False if it takes too long."""
        with self.lock:
            if not self.owned() or (self.process and self.process.poll() is not None):
                self.start()
            process = self.process
            assert process is not None and process.stdin is not None
            question = json.dumps([function, answer, gold]).encode() + b"\n"
            with contextlib.suppress(BrokenPipeError):  # reading below then also finds the end
                process.stdin.write(question)
                process.stdin.flush()
            line = self._line(SECONDS)
            if line is None:
                self._gone(process)
                return False
            verdict = line.strip().decode()
        if verdict.startswith("!"):
            raise CptBenchError(
                f"comparing formulas needs {verdict[1:]}, which is not installed",
                todo="Install it with: pip install 'cptbench[grade]'",
            )
        return verdict == "1"

    def _gone(self, process: subprocess.Popen[bytes]) -> None:
        """Handle a missing answer: too slow or killed means wrong; our own failure raises."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        code = process.poll()
        self.stop()
        if code is not None and code >= 0:
            raise CptBenchError(
                f"the process that compares formulas ended with status {code}",
                todo="Its output is above",
            )

    def start(self) -> None:
        """Start the helper, and wait until it has imported what it needs.

        Raises:
            CptBenchError: It ends before that, or takes too long.
        """
        super().start()
        if self._line(START_SECONDS) != b"ready\n":
            code = self.process.poll() if self.process else None
            self.stop()
            raise CptBenchError(
                f"the process that compares formulas does not start (status {code})",
                todo="Run: python -m cpt_bench.grading.symbolic_helper",
            )

    def _line(self, seconds: float) -> bytes | None:
        """The helper's next line; None if it takes too long or dies."""
        assert self.process is not None and self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        return self.process.stdout.readline() or None


_HELPER = Helper()


@lru_cache(maxsize=65536)
def _equal(function: str, answer: str, gold: str) -> bool:
    return _HELPER.ask(function, answer, gold)


def _need(module: str, name: str) -> None:
    if find_spec(module) is None:
        raise CptBenchError(
            f"the grader {name!r} needs {module}, which is not installed",
            todo="Install it with: pip install 'cptbench[grade]'",
        )


def mathruler(answer: str, sample: Sample) -> float:
    """The publication's grader: mathruler's grade_answer against one gold ('on' equals 'no')."""
    _need("mathruler", "mathruler")
    answer = answer.strip()
    if len(answer) > LONGEST:
        return 0.0
    return float(_equal("mathruler", answer, sample.answers[0]))


def math(answer: str, sample: Sample) -> float:
    r"""1 for a single formula that math-verify finds equal to a gold one: 48/11, 4\frac{4}{11}.

    A name before it and a unit after it are ignored, unless the gold has another unit.
    """
    _need("math_verify", "math")
    if answer.strip() in sample.answers:  # even if the gold is not a formula
        return 1.0
    if parse_math(answer) is None:
        return 0.0
    # If a gold may end in a variable or in a unit, the first reading is meant.
    golds = [(readings(gold) or (Formula(gold),))[0] for gold in sample.answers]
    return float(any(_same(mine, gold) for gold in golds for mine in readings(answer)))


def _same(mine: Formula, gold: Formula) -> bool:
    return same_unit(mine.unit, gold.unit) and _equal("math", mine.latex, gold.latex)
