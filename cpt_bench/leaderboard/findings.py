"""The results of a verification: findings (what is wrong) and claims (how far each is proven)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError


class Level(StrEnum):
    """``error``: not an entry for the board; ``warning``: a person should look; ``note``."""

    error = "error"
    warning = "warning"
    note = "note"


class Status(StrEnum):
    """How far a claim is proven."""

    verified = "verified"
    self_reported = "self-reported"
    unverifiable = "unverifiable"
    refuted = "refuted"


class Finding(NamedTuple):
    """Something that is wrong: a stable code, where it was found, and what it is."""

    level: Level
    code: str
    where: str
    what: str

    def line(self) -> str:
        return f"{self.level}: {self.code}: {self.where}: {self.what}"


class Claim(NamedTuple):
    """One number or fact an entry states, and how far it is proven.

    Attributes:
        name: ``seed-0: AvgAcc``, ``privileges`` and so on.
        value: As stated.
        status: How far it is proven.
        how: By what, or why not.
    """

    name: str
    value: Any
    status: Status
    how: str


class Refused(CptBenchError):  # noqa: N818 - a refusal
    """Data that a strict reader refuses, with the code for a finding."""

    def __init__(self, code: str, what: str, *, where: object = "") -> None:
        self.code = code
        super().__init__(what, where=where)


class Report:
    """Collects findings and claims while an entry is verified."""

    LIMIT = 20
    """Findings of one code beyond this number are counted, not listed."""

    def __init__(self, entry: str) -> None:
        self.entry = entry
        self.claims: list[Claim] = []
        self._findings: dict[tuple[Level, str], list[Finding]] = {}
        self._more: dict[tuple[Level, str], int] = {}

    def add(self, level: Level, code: str, where: object, what: str) -> None:
        """Note a finding; control characters of the data do not reach a terminal."""
        key = level, code
        listed = self._findings.setdefault(key, [])
        if len(listed) >= self.LIMIT:
            self._more[key] = self._more.get(key, 0) + 1
            return
        listed.append(Finding(level, code, printable(where), printable(what)))

    def error(self, code: str, where: object, what: str) -> None:
        self.add(Level.error, code, where, what)

    def warn(self, code: str, where: object, what: str) -> None:
        self.add(Level.warning, code, where, what)

    def note(self, code: str, where: object, what: str) -> None:
        self.add(Level.note, code, where, what)

    def refused(self, error: Refused, where: object) -> None:
        self.error(error.code, error.where or where, error.what)

    def claim(self, name: str, value: Any, status: Status, how: str) -> None:
        self.claims.append(Claim(name, value, status, how))

    def findings(self) -> Iterator[Finding]:
        """Errors first, in the order they were found."""
        for level in Level:
            for (found, code), listed in self._findings.items():
                if found is level:
                    yield from listed
                    if more := self._more.get((found, code)):
                        yield Finding(level, code, self.entry, f"… and {more} more of this kind")

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings() if finding.level is Level.error]

    @property
    def unverifiable(self) -> list[Claim]:
        return [claim for claim in self.claims if claim.status is Status.unverifiable]

    @property
    def verdict(self) -> str:
        """``refuted`` with any error, ``unverifiable`` where gold is absent, else ``verified``."""
        if self.errors:
            return "refuted"
        scores = [claim for claim in self.claims if claim.name.endswith(": matrix")]
        if not scores or any(claim.status is Status.unverifiable for claim in scores):
            return "unverifiable"
        return "verified"

    def counts(self) -> dict[str, int]:
        return {str(s): sum(claim.status is s for claim in self.claims) for s in Status}

    def as_json(self) -> dict[str, Any]:
        return {
            "entry": self.entry,
            "verdict": self.verdict,
            "findings": [
                {"level": str(f.level), "code": f.code, "where": f.where, "what": f.what}
                for f in self.findings()
            ],
            "claims": [
                {"name": c.name, "value": c.value, "status": str(c.status), "how": c.how}
                for c in self.claims
            ],
            "counts": self.counts(),
        }


def printable(value: object, width: int = 300) -> str:
    """Text that cannot move a cursor or hide itself: control and format characters are escaped."""
    text = str(value)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= width else shown[: width - 1] + "…"
