"""``claims.yaml``: published claims, the rules to support or refute them, and the verdicts.

A claim's author writes ``id``, ``claim``, ``source``, ``evidence``, ``supports`` and ``refutes``;
``verdict``, ``because`` and ``figures`` are derived from the stored runs by :func:`judge` and
written back. A rule compares the evidence's number (``value``), its 95 % interval (``low``,
``high``) and, for means over levels of learning or task orders, the ``least`` and the ``most`` of
them: ``low > 0``, ``low > -2 and high < 2``, ``high < -2 or low > 2``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cpt_bench.documents import read_yaml
from cpt_bench.errors import CptBenchError, explain
from cpt_bench.files import write_text
from cpt_bench.study.evidence import Evidence, find
from cpt_bench.study.points import Points

Verdict = Literal["supported", "refuted", "undecided"]

_TERM: Final = re.compile(r"(value|low|high|least|most) *(>=|<=|>|<) *(-?[0-9]+(?:\.[0-9]+)?)")

COMPARED: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip

SPARSE: Final = ("bases", "before")
"""Fields that are written only where there is something in them."""

HEADER: Final = """\
# Published claims and what the stored runs say of them.
# verdict, because and figures are derived: `cptbench study build` writes them anew.
"""


class Elsewhere(BaseModel):
    """A verdict on a claim from other runs: an earlier edition's, or another base model's.

    Attributes:
        verdict: Its verdict.
        because: Why, in words.
        runs: The runs that it used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: Verdict
    because: str
    runs: int


class Claim(BaseModel):
    """One claim.

    Attributes:
        id: Its name.
        claim: One sentence that is either true or false for nano.
        source: The publication, with its numbers.
        evidence: What is measured; see :mod:`cpt_bench.study.evidence`.
        supports: The rule that supports it.
        refutes: The rule that refutes it.
        verdict: Derived; ``undecided`` if neither rule holds or there is no number.
        because: Derived: the reason, in words.
        figures: Derived: the number, its interval and its meaning.
        p: Derived: the smallest alpha at which the claim is decided.
        p_holm: Derived: the same, corrected for the number of claims.
        corrected: Derived: the verdict that remains after this correction.
        bases: Derived: the verdict from each other base model that has the runs, by its name.
        before: The verdict of an earlier edition with fewer runs, and why; set by hand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    claim: str
    source: str
    evidence: dict[str, Any]
    supports: str
    refutes: str
    verdict: Verdict = "undecided"
    because: str = ""
    figures: dict[str, Any] = {}
    p: float | None = None
    p_holm: float | None = None
    corrected: Verdict = "undecided"
    bases: dict[str, Elsewhere] = {}
    before: Elsewhere | None = None

    @property
    def holds_on(self) -> str:
        """On how many of the base models that were measured the verdict is this one."""
        same = sum(there.verdict == self.verdict for there in self.bases.values())
        return f"{1 + same} of {1 + len(self.bases)} base models" if self.bases else "only one"

    @field_validator("supports", "refutes")
    @classmethod
    def _a_rule(cls, value: str) -> str:
        for term in re.split(" and | or ", value):
            if not _TERM.fullmatch(term.strip()):
                raise ValueError(f"{term!r} is not a comparison such as 'low > 0'")
        return value


def read_claims(file: Path) -> list[Claim]:
    """Read the claims.

    Raises:
        CptBenchError: The file is not valid; the message names the claim and the key.
    """
    data = read_yaml(file)
    rows = data.get("claims") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise CptBenchError("has no list of claims", where=file)
    out: list[Claim] = []
    for number, row in enumerate(rows):
        try:
            out.append(Claim.model_validate(row))
        except ValidationError as error:
            raise CptBenchError(explain(error), where=f"{file}: claims.{number}") from None
    ids = [claim.id for claim in out]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice:
        raise CptBenchError(f"two claims are called {twice!r}", where=file)
    return out


def write_claims(file: Path, claims: list[Claim]) -> None:
    """Write the claims with their verdicts; the same claims give the same bytes."""
    rows = [
        {k: v for k, v in claim.model_dump(mode="json").items() if k not in SPARSE or v}
        for claim in claims
    ]
    text = yaml.safe_dump({"claims": rows}, sort_keys=False, allow_unicode=True, width=100)
    write_text(file, HEADER + text)


def holds(rule: str, found: Evidence) -> bool:
    """Whether a rule holds for a number with its interval."""
    assert found.value is not None and found.interval is not None
    names = {"value": found.value, "low": found.interval.low, "high": found.interval.high}
    names |= {end: found.details[end] for end in ("least", "most") if end in found.details}
    either = [[_true(term, names) for term in terms.split(" and ")] for terms in rule.split(" or ")]
    return any(map(all, either))


def _true(term: str, names: dict[str, float]) -> bool:
    match = _TERM.fullmatch(term.strip())
    assert match is not None  # read_claims refuses others
    if match[1] not in names:
        raise CptBenchError(f"{term!r}: such evidence has no {match[1]}")
    return COMPARED[match[2]](names[match[1]], float(match[3]))


def judge(claim: Claim, points: Points) -> Claim:
    """The claim with its verdict from the runs, not yet corrected for the number of claims."""
    return judged(claim, find(points, claim.evidence, claim.id))


def judged(claim: Claim, found: Evidence) -> Claim:
    """The claim with its verdict from its evidence."""
    verdict, because = _verdict(claim, found)
    figures: dict[str, Any] = {"runs": found.runs}
    if found.value is not None and found.interval is not None:
        figures |= {
            "value": short(found.value),
            "interval": [short(found.interval.low), short(found.interval.high)],
            "over": found.interval.method,
            "unit": found.unit,
            **{key: _shortened(value) for key, value in found.details.items()},
        }
    return claim.model_copy(update={"verdict": verdict, "because": because, "figures": figures})


def _verdict(claim: Claim, found: Evidence) -> tuple[Verdict, str]:
    if found.value is None or found.interval is None:
        return "undecided", f"not measured yet: {found.missing}"
    low, high = found.interval.low, found.interval.high
    shown = f"{found.value:.3g} [{low:.3g}, {high:.3g}]"
    pro, contra = holds(claim.supports, found), holds(claim.refutes, found)
    if pro and contra:
        raise CptBenchError(f"both {claim.supports!r} and {claim.refutes!r} hold", where=claim.id)
    if pro:
        return "supported", f"{shown}: {claim.supports}"
    if contra:
        return "refuted", f"{shown}: {claim.refutes}"
    return "undecided", f"{shown}: neither {claim.supports} nor {claim.refutes}"


def short(value: float) -> float:
    """Round to four digits, so that stored numbers do not depend on the machine's last bits."""
    return float(f"{value:.4g}") + 0.0


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    return short(value) if isinstance(value, float) else value
