"""The study that is published: its stored runs verify, and its verdicts follow from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.metrics import Interval
from cpt_bench.study import pareto
from cpt_bench.study.build import build, stale
from cpt_bench.study.claims import Claim, holds, judge, read_claims, write_claims
from cpt_bench.study.evidence import Evidence, find
from cpt_bench.study.opening import Study, open_study, with_base
from cpt_bench.study.page import held, others_table, power_table
from cpt_bench.study.points import Points, other_bases, points
from cpt_bench.study.stored import ENDING, read
from cpt_bench.study.verify import Seen, verify
from tests.support.commands import LIGHT
from tests.support.places import ROOT

FOLDER = ROOT / "docs/study"
ON_GYM = ROOT / "docs/gym-study"

FILES = sorted((FOLDER / "results").glob(f"*{ENDING}"))
GYM_FILES = sorted((ON_GYM / "results").glob(f"*{ENDING}"))


SEEN: Seen = {}
"""What the first verification has read of the suite."""


pytestmark = pytest.mark.slow  # opens all stored runs


@pytest.fixture(scope="module")
def study() -> Study:
    return open_study(FOLDER)


@pytest.fixture(scope="module")
def on_gym() -> Study:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    return open_study(ON_GYM)


@pytest.fixture(params=["study", "on_gym"])
def published(request: pytest.FixtureRequest) -> Study:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------- what is published


def test_the_verdicts_follow_from_the_stored_runs(published: Study) -> None:
    study = published
    written = read_claims(study.folder / "claims.yaml")
    assert [c.id for c in written] == [c.id for c in study.claims]
    for old, new in zip(written, study.claims, strict=True):
        assert old.verdict == new.verdict, old.id
        assert old.corrected == new.corrected and old.before == new.before, old.id
        for was, now in ((old.p, new.p), (old.p_holm, new.p_holm)):
            assert (was is None) == (now is None) and (
                was is None or was == pytest.approx(now, rel=0.02)
            )
        assert old.figures.keys() == new.figures.keys(), old.id
        for key, value in new.figures.items():
            numeric = isinstance(value, int | float | list)
            assert old.figures[key] == (pytest.approx(value, rel=0.01) if numeric else value)
        assert (new.verdict == "undecided") or "value" in new.figures


def test_what_is_written_is_what_the_stored_runs_give(published: Study) -> None:
    assert stale(published) == []


def test_both_studies_ask_the_same(study: Study, on_gym: Study) -> None:
    """A claim in both studies has one measure and one rule, and the page shows both verdicts."""
    asked = {claim.id: claim for claim in study.claims}
    page = on_gym.page.read_text(encoding="utf-8")
    assert "on nano, alone" in page and "on nano, alone" not in study.page.read_text(
        encoding="utf-8"
    )
    for claim in on_gym.claims:
        other = asked[claim.id]
        assert (claim.evidence, claim.supports, claim.refutes) == (
            other.evidence, other.supports, other.refutes,
        )  # fmt: skip
        assert on_gym.beside is not None and on_gym.beside.found[claim.id] == other.verdict


def test_a_correction_takes_verdicts_away_and_adds_none(study: Study) -> None:
    """Nothing is decided by a changed rule: the raw verdicts stand beside the corrected ones."""
    for claim in study.claims:
        assert claim.corrected in (claim.verdict, "undecided")
        if claim.p is not None and claim.p_holm is not None:
            assert claim.p <= claim.p_holm <= 1
            assert (claim.verdict == "undecided") == (claim.p >= 0.05), claim.id
            assert (claim.corrected == "undecided") == (claim.p_holm >= 0.05), claim.id
    decided = [c.id for c in study.claims if c.verdict != "undecided"]
    assert 0 < len([c for c in study.claims if c.corrected != "undecided"]) < len(decided)


def test_the_page_says_what_would_decide_each_undecided_claim(study: Study) -> None:
    table = power_table(study.claims, study.evidence)
    undecided = [c.id for c in study.claims if c.verdict == "undecided" and "value" in c.figures]
    assert [row.split(" | ")[0][2:] for row in table.splitlines()[2:]] == undecided
    assert table in study.page.read_text(encoding="utf-8")


def test_other_runs_give_other_verdicts(study: Study) -> None:
    claim = next(c for c in study.claims if c.id == "rft-forgets-less")

    def judged(shift: float) -> str:
        moved = [
            p._replace(numbers={**p.numbers, "FM": p.numbers["FM"] + shift})
            if p.method == "rft-grpo"
            else p
            for p in study.points.used
        ]  # type: ignore[operator]
        return judge(claim, study.points._replace(used=tuple(moved))).verdict

    assert judged(20) == "supported" and judged(-20) == "refuted"
    fewer = study.points._replace(used=tuple(p for p in study.points.used if p.seed < 2))
    lacking = judge(claim, fewer)
    assert lacking.verdict == "undecided"
    assert "rft-grpo has 2 of 3 seeds with FM" in lacking.because
    assert "value" not in lacking.figures


def test_every_claim_can_be_decided_by_the_planned_runs(study: Study) -> None:
    """A claim that no run of the sweep could decide would stay undecided for ever."""
    from cpt_bench.sweep.spec import cells, read_sweep

    planned: dict[str, dict[str, set[int]]] = {}
    for cell in cells(read_sweep(FOLDER / "sweep.yaml")):
        settings = dict(s.split("=") for s in cell.settings)
        name = cell.trainer if cell.trainer != "rft" else f"rft-{settings.get('algorithm', 'grpo')}"
        if cell.order is None:
            planned.setdefault(name, {}).setdefault(settings["learning_rate"], set()).add(cell.seed)
    for claim in study.claims:
        asked = claim.evidence
        names = [asked[k] for k in ("first", "second", "method") if k in asked]
        for name in names if asked["kind"] not in ("law", "law_gap") else []:
            method, _, rate = name.partition("@")
            if asked["kind"] == "matched":
                enough = [seeds for seeds in planned[method].values() if len(seeds) >= 2]
                assert len(enough) >= pareto.RATES, claim.id
            elif rate:
                assert len(planned[method][rate]) >= 3, claim.id
            else:
                assert any(len(seeds) >= 3 for seeds in planned[method].values()), claim.id


def test_stored_runs_are_small(study: Study) -> None:
    assert FILES
    mean = sum(file.stat().st_size for file in FILES) / len(FILES)
    assert mean * study.planned < 20e6


@pytest.mark.parametrize(
    "file", [*FILES[:: max(1, len(FILES) // 4)], *GYM_FILES[:2]], ids=lambda f: f.name[:40]
)
def test_stored_runs_verify(file: Path) -> None:
    if file in GYM_FILES:
        pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    report = verify(file, seen=SEEN).report
    assert report.verdict == "verified", [f.line() for f in report.errors]
    # Of a joint run most numbers are not defined.
    assert report.counts()["verified"] > (3 if "joint" in file.name else 20)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of a study of six of the stored runs, and nothing built."""
    folder = tmp_path / "study"
    (folder / "results").mkdir(parents=True)
    for file in FILES[:6]:
        (folder / "results" / file.name).write_bytes(file.read_bytes())
    for name in ("sweep.yaml", "claims.yaml"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    return folder


def without_torch(*args: str) -> str:
    """What the command says where torch cannot be imported."""
    command = [sys.executable, "-c", LIGHT, *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_verify_takes_stored_runs_without_torch() -> None:
    assert f"verified: {FILES[0].name}" in without_torch("verify", str(FILES[0]))


@pytest.mark.slow
def test_building_needs_no_torch(small: Path) -> None:
    pytest.importorskip("matplotlib")
    without_torch("study", "build", "--study", str(small))
    assert "up to date" in without_torch("study", "build", "--study", str(small), "--check")


def test_building_twice_gives_the_same_bytes(small: Path) -> None:
    pytest.importorskip("matplotlib")
    first = {path: path.read_bytes() for path in build(open_study(small))}
    assert {path.suffix for path in first} == {".md", ".yaml", ".svg"}
    assert {path: path.read_bytes() for path in build(open_study(small))} == first
    assert stale(open_study(small)) == []
    # A run more, and what is written is out of date.
    (small / "results" / FILES[7].name).write_bytes(FILES[7].read_bytes())
    assert stale(open_study(small))


def test_runs_of_other_settings_are_left_out(study: Study) -> None:
    runs = [read(file) for file in [f for f in FILES if f.name.startswith("nano-rft-")][:6]]
    suite = study.points.suite

    def changed(**facts: Any) -> Points:
        odd = runs[0]._replace(name="odd", facts={**runs[0].facts, "seed": 99, **facts})
        return points([*runs, odd], suite, study.points.about)

    assert not changed().left_out
    config = {**runs[0].facts["config"], "kl": 0.5}
    assert changed(config=config).left_out == {"odd": "kl 0.5, not 0.0"}
    elsewhere = changed(base={"weights": "0" * 64})
    assert not elsewhere.left_out and "odd" not in {point.name for point in elsewhere.used}


def test_a_verdict_says_on_how_many_bases_it_holds(study: Study) -> None:
    """Runs from a sister of the base: the same numbers, and then others."""
    names = ("nano-joint-seed", "nano-sft-seed", "nano-rft-seed")
    files = [f for f in FILES if f.name.startswith(names) and "-learning" not in f.name]
    runs = [read(file) for file in files]
    sister = "5" * 64

    def elsewhere(run: Any, shift: float) -> Any:
        answers = {
            place: {**row, "strict": [min(1.0, v + shift) for v in row["strict"]]}
            for place, row in run.answers.items()
        }
        facts = {**run.facts, "base": {"weights": sister}}
        return run._replace(name=f"{run.name}-sister", facts=facts, answers=answers)

    claim = next(c for c in study.claims if c.id == "joint-bounds")
    claim = claim.model_copy(update={"bases": {}})
    suite, about = study.points.suite, study.points.about
    both = [*runs, *(elsewhere(r, 0.0) for r in runs)]
    assert other_bases(both, suite) == [sister] and other_bases(runs, suite) == []
    assert {p.name for p in points(both, suite, about).used} == {
        p.name for p in points(runs, suite, about).used
    }
    same = with_base(claim, points(both, suite, about, sister), "sister")
    assert same.bases["sister"].verdict == "supported" and same.holds_on == "2 of 2 base models"
    # A sister on which every method ends at the same place tells nothing apart.
    ceiling = [*runs, *(elsewhere(r, 1.0) for r in runs)]
    other = with_base(claim, points(ceiling, suite, about, sister), "sister")
    assert other.bases["sister"].verdict == "undecided" and other.holds_on == "1 of 2 base models"
    opposite = other.model_copy(
        update={
            "bases": {"sister": other.bases["sister"].model_copy(update={"verdict": "refuted"})}
        }
    )
    assert held([claim, same, other, opposite]) == {
        "asked": 3, "decided": 3, "same": 1, "opposite": 1,
    }  # fmt: skip
    table = others_table([other], "sister", points(ceiling, suite, about, sister))
    assert "7.11 [6.13, 8.1]: supported" in table["claims"] and "undecided" in table["claims"]
    assert table["runs"] == str(len(runs)) and "joint" in table["methods"]
    # One that lacks the runs does not count.
    few = [*runs, elsewhere(runs[0], 0.0)]
    assert with_base(claim, points(few, suite, about, sister), "sister").holds_on == "only one"


# ------------------------------------------------------------------------------------------ claims


CLAIM: dict[str, Any] = {
    "id": "one", "claim": "A.", "source": "B",
    "evidence": {"kind": "level", "key": "FM", "method": "sft"},
    "supports": "low > 0", "refutes": "high < 0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"supports": "low is big"}, "claims.0: supports: 'low is big' is not a comparison"),
        ({"verdict": "true"}, "claims.0: verdict: "),
        ({"evidense": 1}, "claims.0: evidense: "),
        ({"id": "One!"}, "claims.0: id: "),
    ],
)  # fmt: skip
def test_a_broken_claim_is_one_line(change: dict[str, Any], line: str, tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump({"claims": [{**CLAIM, **change}]}))
    with pytest.raises(CptBenchError) as found:
        read_claims(file)
    assert line in str(found.value) and "\n" not in str(found.value)


def test_rules_and_evidence(study: Study, tmp_path: Path) -> None:
    found = Evidence(1.0, Interval(0.5, 1.5), 6)
    assert holds("low > 0", found) and holds("low > -2 and high < 2", found)
    assert not holds("low > 0 and high < 1.5", found) and holds("high <= 1.5", found)
    assert holds("low > 9 or high < 9", found) and not holds("low > 9 or high < -9", found)
    with pytest.raises(CptBenchError, match="such evidence has no least"):
        holds("least > 0", found)
    for evidence, line in (
        ({"kind": "leval"}, "Did you mean 'level'?"),
        ({"kind": "level", "kay": 1}, "kay"),
    ):
        with pytest.raises(CptBenchError, match=line):
            find(study.points, evidence, "one")
    both = Claim.model_validate({**CLAIM, "supports": "value < 100", "refutes": "value < 200"})
    with pytest.raises(CptBenchError, match="both"):
        judge(both, study.points)
    claims = [Claim.model_validate(CLAIM)]
    write_claims(tmp_path / "c.yaml", claims)
    assert read_claims(tmp_path / "c.yaml") == claims
