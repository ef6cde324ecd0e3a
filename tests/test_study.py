"""The study: stored runs that verify, curves and laws by hand, verdicts that follow from the runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.metrics import Interval, quadratic
from cpt_bench.study import laws, pareto
from cpt_bench.study.build import Study, build, open_study, stale
from cpt_bench.study.claims import Claim, holds, judge, read_claims, write_claims
from cpt_bench.study.evidence import Evidence, find
from cpt_bench.study.points import Point, Points, Stage, points
from cpt_bench.study.store import ENDING, read, store
from cpt_bench.study.verify import Seen, verify
from cpt_bench.suite import open_suite
from tests.simulated import splits, write_run
from tests.test_cli import LIGHT

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/study"
RESULTS = FOLDER / "results"
FILES = sorted(RESULTS.glob(f"*{ENDING}"))


@pytest.fixture(scope="module")
def study() -> Study:
    return open_study(FOLDER)


# ---------------------------------------------------------------------------- what is published


def test_the_verdicts_follow_from_the_stored_runs(study: Study) -> None:
    written = read_claims(FOLDER / "claims.yaml")
    assert [c.id for c in written] == [c.id for c in study.claims]
    for old, new in zip(written, study.claims, strict=True):
        assert old.verdict == new.verdict, old.id
        assert old.figures.keys() == new.figures.keys(), old.id
        for key, value in new.figures.items():
            numeric = isinstance(value, int | float | list)
            assert old.figures[key] == (pytest.approx(value, rel=0.01) if numeric else value)
        assert (new.verdict == "undecided") or "value" in new.figures


def test_what_is_written_is_what_the_stored_runs_give(study: Study) -> None:
    assert stale(study) == []


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
    assert "rft-grpo: 2 of 3 seeds with FM" in lacking.because
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


@pytest.mark.parametrize("file", FILES[:: max(1, len(FILES) // 4)], ids=lambda f: f.name[:40])
def test_stored_runs_verify(file: Path) -> None:
    report = verify(file, seen=SEEN).report
    assert report.verdict == "verified", [f.line() for f in report.errors]
    # Of a joint run most numbers are not defined.
    assert report.counts()["verified"] > (3 if "joint" in file.name else 20)


SEEN: Seen = {}


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


# ----------------------------------------------------------------------------------- stored runs


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "nano-sft-seed0"
    config = {"learning_rate": 3e-4, "warmup_steps": 5, "max_steps": 100, "batch_size": 16}
    run = write_run(
        folder, trainer="sft", config={**config, "device": "cpu"}, limit=None, formless=0.1
    )
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, "base": {"weights": "0" * 64}}))
    return run


@pytest.fixture(scope="module")
def stored(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(simulated, tmp_path_factory.mktemp("stored"))


def test_a_stored_run_has_the_run_s_numbers(simulated: Path, stored: Path) -> None:
    from cpt_bench.results.scoring import score

    scores = score(simulated, splits())
    found = read(stored)
    numbers = found.claims["numbers"]
    for key, passport in scores.metrics.items():
        assert numbers[key] == pytest.approx(passport["value"], abs=1e-9), key
    assert numbers["Lost_mode"] > 0 and numbers["KL_new"] > 0
    assert found.claims["matrix"] == scores.matrix_json()["accuracy"]
    again = store(simulated, stored.parent / "again")
    assert again.read_bytes() == stored.read_bytes()
    assert verify(stored).report.verdict == "verified"


def spoiled(file: Path, target: Path, spoil: Any) -> Path:
    """The stored run with its lines changed by ``spoil``."""
    from cpt_bench.leaderboard.pack import zst
    from cpt_bench.leaderboard.strict import lines

    rows = [json.loads(line) for line in lines(file)]
    spoil(rows)
    name = target / file.name
    zst(name, (f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows))
    return name


def first(rows: list[Any], kind: str) -> Any:
    return next(row for row in rows if row["kind"] == kind)


def a_reply(rows: list[Any]) -> None:
    row = first(rows, "answers")
    at = row["strict"].index(1)
    row["replies"][at] = "<answer>nothing</answer>"


def a_grade(rows: list[Any]) -> None:
    row = first(rows, "answers")
    row["strict"][row["strict"].index(0)] = 1


def a_number(rows: list[Any]) -> None:
    first(rows, "claims")["numbers"]["FM"] += 1


def a_cell(rows: list[Any]) -> None:
    first(rows, "claims")["matrix"][3][2] += 1


def a_gap(rows: list[Any]) -> None:
    rows.remove(first(rows, "answers"))


def a_benchmark(rows: list[Any]) -> None:
    """Of which nothing is left at all."""
    rows[:] = [r for r in rows if (r["kind"], r.get("name")) != ("answers", "exam")]


def a_sample(rows: list[Any]) -> None:
    for values in first(rows, "answers").values():
        if isinstance(values, list):
            values.pop()


def a_suite(rows: list[Any]) -> None:
    rows[0]["suite"]["fingerprint"] = "0" * 64


def a_forced_reply(rows: list[Any]) -> None:
    row = first(rows, "forced")
    row["lenient"][row["lenient"].index(0)] = 1


def a_type(rows: list[Any]) -> None:
    first(rows, "answers")["strict"] = "yes"


def a_kind(rows: list[Any]) -> None:
    first(rows, "kl")["kind"] = "kll"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (a_reply, "grade"), (a_grade, "grade"), (a_number, "metric"), (a_cell, "matrix"),
        (a_gap, "incomplete"), (a_sample, "missing-id"), (a_suite, "suite-version"),
        (a_forced_reply, "grade"), (a_benchmark, "incomplete"), (a_type, "missing-id"), (a_kind, "schema"),
    ],
)  # fmt: skip
def test_a_changed_stored_run_is_refuted(
    spoil: Any, code: str, stored: Path, tmp_path: Path
) -> None:
    report = verify(spoiled(stored, tmp_path, spoil), seen=SEEN_SIMULATED).report
    assert report.verdict == "refuted"
    assert code in {finding.code for finding in report.errors}


SEEN_SIMULATED: Seen = {}


def test_what_is_no_finished_run_is_not_stored(simulated: Path, tmp_path: Path) -> None:
    limited = write_run(tmp_path / "limited", limit=5)
    with pytest.raises(CptBenchError, match="was limited to 5 samples"):
        store(limited, tmp_path)


@pytest.mark.slow
def test_what_an_older_run_lacks_is_measured_from_its_weights(
    run_copy: Path, tiny_model: Path
) -> None:
    pytest.importorskip("torch")
    from cpt_bench.study.measure import measure

    measured = [*run_copy.glob("stages/*/kl.jsonl"), *run_copy.glob("stages/*/forced/*/*.jsonl")]
    before = {path: path.read_bytes() for path in (*measured, run_copy / "metrics.json")}
    records = [*run_copy.glob("ledger/*.kl.json"), *run_copy.glob("ledger/*.diagnose.*")]
    assert len(measured) == len(records) == 3  # a random model knows nothing to lose
    for path in (*measured, *records, run_copy / "metrics.json"):
        path.unlink()
    with pytest.raises(CptBenchError, match="began from another base model"):
        measure(run_copy, ROOT / "tasks/nano/checkpoint")
    assert measure(run_copy, tiny_model) == len(records)
    assert {path: path.read_bytes() for path in before} == before
    assert measure(run_copy, tiny_model) == 0
    last = run_copy / "ledger/stage-3.train.json"
    kept = last.rename(run_copy / "kept.json")
    with pytest.raises(CptBenchError, match="is not finished"):
        measure(run_copy, tiny_model)
    kept.rename(last)
    # Weights that are not those that were evaluated are refused.
    (weights,) = run_copy.glob("stages/1-*/checkpoint/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (run_copy / "ledger/stage-1.kl.json").unlink()
    with pytest.raises(CptBenchError, match="is not the checkpoint that was evaluated"):
        measure(run_copy, tiny_model)


# --------------------------------------------------------------------------------- curves and laws


def point(
    method: str, rate: float, seed: int, learned: float, kept: float, stages: tuple[Stage, ...] = ()
) -> Point:
    numbers = {"LearnGain": learned, "FM": kept}
    return Point(
        f"{method}-{rate}-{seed}", method, rate, False, seed, ("a", "b"), False, numbers, stages
    )


def test_a_curve_is_the_upper_edge_from_the_base_on() -> None:
    means = np.array([[4.0, -1.0], [8.0, -3.0], [6.0, -5.0], [-1.0, 2.0]])
    # (6, -5) learned less than (8, -3) and kept less; what learned nothing is no point.
    assert pareto.curve(means).tolist() == [[0, 0], [4, -1], [8, -3]]
    assert pareto.curve(np.array([[-1.0, -9.0]])).tolist() == [[0, 0]]


def test_methods_at_matched_learning_by_hand() -> None:
    def settings(slope: float, rates: tuple[float, ...]) -> list[pareto.Setting]:
        runs = [point("m", r, s, r, slope * r) for r in rates for s in (0, 1)]
        return pareto.settings(runs, "FM")

    # Kept: -0.5 a point learned against -1; both reach 10: mean over [5, 10] of 0.5 x.
    found = pareto.matched(settings(-0.5, (4, 10, 20)), settings(-1, (3, 5, 10)))
    assert found is not None
    assert found.value == pytest.approx(3.75) and found.level == 10 and found.runs == 12
    assert found.interval.low == pytest.approx(3.75)  # its runs do not differ from each other
    assert pareto.matched(settings(-1, (4,)), settings(-1, (-4,))) is None
    assert pareto.missing("m", settings(-1, (4, 5))) == "m: 2 of 3 learning rates with two seeds"
    assert pareto.missing("m", settings(-1, (4, 5, 6))) == ""


def test_one_sign_at_every_level_or_no_verdict() -> None:
    def side(method: str, kept: tuple[float, ...]) -> list[Point]:
        rates = zip((6.0, 8.0, 10.0), kept, strict=True)
        return [point(method, r, s, r, k + 0.01 * s) for r, k in rates for s in (0, 1, 2)]

    claim = Claim(
        id="x", claim="c", source="s", supports="low > 0 and least > 0",
        evidence={"kind": "matched", "key": "FM", "first": "a", "second": "b"},
        refutes="high < 0 and most < 0",
    )  # fmt: skip
    suite = open_suite("nano").model_copy(update={"sequence": ("a", "b")})

    def judged(a: tuple[float, ...]) -> Claim:
        used = (*side("a", a), *side("b", (-1, -2, -20)))
        return judge(claim, Points(suite, used, {}))

    # Ahead by 16 at the end alone, and behind by 1 up to there.
    hanging = judged((-2, -3, -4))
    assert hanging.figures["interval"][0] > 0 > hanging.figures["least"]
    assert hanging.verdict == "undecided"
    assert judged((-0.5, -1, -1)).verdict == "supported"
    assert judged((-3, -4, -25)).verdict == "refuted"


def test_an_interval_at_matched_learning_holds_the_truth(monkeypatch: Any) -> None:
    """From two runs a setting; resampling them holds it two times in three."""
    monkeypatch.setattr(pareto, "DRAWS", 200)
    rng, means = np.random.default_rng(0), np.array([[4.0, -1], [8.0, -3], [10.0, -6]])

    def side(apart: float) -> list[pareto.Setting]:
        runs = rng.standard_normal((3, 2, 2)) * 0.5 + (means + np.array([0, apart]))[:, None]
        return [pareto.Setting(float(i), run) for i, run in enumerate(runs)]

    held = 0
    for _ in range(60):
        found = pareto.matched(side(1), side(0))
        assert found is not None
        held += found.interval.low <= 1 <= found.interval.high
    assert held >= 54


def test_a_setting_of_one_run_is_on_no_curve() -> None:
    often = [point("m", r, s, r, -r) for r in (4, 6, 8) for s in (0, 1)]
    once = [*often, point("m", 20, 0, 20, -1)]
    other = pareto.settings([p._replace(numbers={"LearnGain": p.rate, "FM": -2 * p.rate}) for p in often], "FM")  # fmt: skip
    both = [pareto.matched(pareto.settings(runs, "FM"), other) for runs in (often, once)]
    assert both[0] == both[1] and both[0] is not None and both[0].runs == 12


def test_a_stage_that_runs_share_counts_once() -> None:
    rng = np.random.default_rng(2)
    runs = [point("m", 1.0, seed, 1, -1, stages(*rng.random((2, 7)).tolist())) for seed in range(7)]
    again = runs[0]._replace(name="late", stages=runs[0].stages[:3])
    found = [laws.fit(all_, "kl_new", "general") for all_ in (runs, [*runs, again])]
    assert found[0] is not None and found[1] is not None
    assert found[0].interval == found[1].interval and found[1].points.shape == (49, 2)


def test_runs_of_other_settings_are_left_out(study: Study) -> None:
    runs = [read(file) for file in FILES if file.name.startswith("nano-rft-")]
    suite = study.points.suite

    def changed(**facts: Any) -> Points:
        odd = runs[0]._replace(name="odd", facts={**runs[0].facts, "seed": 99, **facts})
        return points([*runs, odd], suite, study.points.about)

    assert not changed().left_out
    config = {**runs[0].facts["config"], "kl": 0.5}
    assert changed(config=config).left_out == {"odd": "kl 0.5, not 0.0"}
    assert "another base" in changed(base={"weights": "0" * 64}).left_out["odd"]


def stages(xs: list[float], ys: list[float], **more: Any) -> tuple[Stage, ...]:
    empty = Stage(1, "", None, None, None, None, None, None, None, None)
    return tuple(
        empty._replace(
            stage=t,
            weights=f"{xs} {ys} {t}",
            kl_new=x,
            general=y,
            **{k: v[t - 1] for k, v in more.items()},
        )
        for t, (x, y) in enumerate(zip(xs, ys, strict=True), 1)
    )


def test_a_law_that_holds_has_r_squared_1_and_noise_has_none() -> None:
    rng = np.random.default_rng(1)
    runs = []
    for seed in range(8):
        xs = rng.random(7)
        runs.append(point("m", 1.0, seed, 1, -1, stages(
            xs.tolist(), (1 - 2 * xs - 3 * xs**2).tolist(), varied=rng.random(7).tolist(),
        )))  # fmt: skip
    law = laws.fit(runs, "kl_new", "general")
    assert law is not None
    assert law.r2 == pytest.approx(1) and law.coefficients == pytest.approx((1, -2, -3))
    assert law.runs == 8 and law.points.shape == (56, 2)
    noise = laws.fit(runs, "varied", "general")
    assert noise is not None and noise.r2 < 0.3
    gap = laws.gap(runs, "kl_new", "varied", "general")
    assert gap is not None and gap[0] == pytest.approx(1 - noise.r2) and gap[1].low > 0.5
    assert laws.fit(runs[:5], "kl_new", "general") is None
    assert laws.fit(runs, "kl_general", "general") is None
    assert quadratic(np.ones(5), np.arange(5.0))[0] == 0


# ------------------------------------------------------------------------------------------ claims

CLAIM: dict[str, Any] = {
    "id": "one", "claim": "A.", "source": "B",
    "evidence": {"kind": "level", "key": "FM", "method": "sft"},
    "supports": "low > 0", "refutes": "high < 0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"supports": "low is big"}, "claims.0: supports: 'low is big' is no comparison"),
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
