"""Which stages runs share, when each run starts, and what is retried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.sweep.spec import read_sweep
from tests.support.sweeps import write

SHARING = """
orders:
  late: [science, text, lowvision, scene, geometry, counting, pathology]
  first: [counting, science, text, lowvision, scene, geometry, pathology]
seeds: [0]
runs:
  - trainers: [sft]
    orders: [default, late, first]
    learning_rates: [3e-4, 1e-4]
  - trainers: [sft]
    seeds: [0, 1]
"""


def planned(tmp_path: Path, text: str = SHARING) -> list[Any]:
    pytest.importorskip("torch")
    from cpt_bench.sweep.jobs import jobs_of

    file = write(tmp_path, text)
    return jobs_of(read_sweep(file), tmp_path / "runs", file)


def test_an_engine_is_every_run_s(tmp_path: Path) -> None:
    from cpt_bench.sweep.jobs import finished

    head = "engine_set: {batch_size: 8}\n"
    plain, chosen = planned(tmp_path), planned(tmp_path, head + SHARING)
    assert all("--engine-set batch_size=8" in " ".join(job.arguments) for job in chosen)
    assert not {job.name for job in plain} & {job.name for job in chosen}
    # A finished run is another one's only when all that was asked for is the same.
    job = chosen[0]
    job.folder.mkdir(parents=True)
    (job.folder / "metrics.json").write_text("{}")
    asked = {**job.plan.choices(), "versions": {}, "sessions": [{}]}
    for record, same in ((asked, True), ({**asked, "general": ["lm-eval:x"]}, False),
                         ({**asked, "engine": None}, False), ({**asked, "seed": 9}, False)):  # fmt: skip
        (job.folder / "run.json").write_text(json.dumps(record))
        assert finished(job) == same


def test_runs_are_named_as_by_hand_and_count_once(tmp_path: Path) -> None:
    from cpt_bench.sweep.loop import shared

    jobs = planned(tmp_path)
    names = [job.name for job in jobs]
    # 3e-4 is the recipe's own: the run is the plain one, and the second block repeats it.
    assert names[:2] == ["nano-sft-seed0", "nano-sft-seed0-learning_rate_1e-4"]
    assert len(names) == 7 and names[-1] == "nano-sft-seed1"
    late = next(j for j in jobs if j.plan.suite.sequence[5] == "counting" and j.plan.method.config["learning_rate"] == 3e-4)  # fmt: skip
    taken = shared(jobs)
    assert taken[late.name] == (5, "nano-sft-seed0")
    # Another first task, seed or learning rate shares the base row alone.
    assert len(taken) == 2
    assert "--order" in late.arguments and "--set" not in late.arguments
    assert len({job.chain[0] for job in jobs}) == 1


MINE = (
    "from cpt_bench.trainer import Trainer\nclass Mine(Trainer):\n    def train(self, stage): ...\n"
)


@pytest.mark.parametrize(
    "runs",
    [
        "[{trainers: ['cmd:sh train.sh a', 'cmd:sh train.sh b']}]",
        "[{trainers: ['cmd:sh train.sh']}, {trainers: ['cmd:sh train.sh'], privileges: [joint]}]",
        "[{trainers: [a/x.py:Mine, b/x.py:Mine]}]",
        f"[{{trainers: [cmd:sh train.sh], variants: [{{x: {130 * 'a'}b}}, {{x: {130 * 'a'}c}}]}}]",
    ],
)  # fmt: skip
def test_runs_that_differ_have_folders_of_their_own(
    runs: str, tmp_path: Path, monkeypatch: Any
) -> None:
    for place in ("a/x.py", "b/x.py", "train.sh"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(MINE)
    monkeypatch.chdir(tmp_path)
    assert len({job.folder for job in planned(tmp_path, f"runs: {runs}")}) == 2


def test_two_runs_of_one_name_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rate in (("a+b.yaml", "1e-5"), ("a_b.yaml", "1e-4")):
        (tmp_path / name).write_text(f"learning_rate: {rate}\n")
    with pytest.raises(CptBenchError, match=r"runs\.0: two different runs would both be called"):
        planned(tmp_path, "runs: [{trainers: [sft], recipes: [a+b.yaml, a_b.yaml]}]")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("runs: [{trainers: [stf]}]", "runs.0: no trainer is called 'stf'. Did you mean 'sft'?"),
        ("runs: [{trainers: [sft], set: {learning_rat: 1}}]", "Did you mean 'learning_rate'?"),
        ("runs: [{trainers: [sft], orders: [x]}]\norders: {x: [science]}", "is not a permutation of"),
        ("runs: [{trainers: [sft], privileges: [joint]}]", "privileges are for cmd: trainers"),
        ("runs: [{trainers: [sft], recipes: [nano/stf]}]", "no recipe is called 'nano/stf'"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(CptBenchError) as found:
        planned(tmp_path, text)
    assert line in str(found.value) and "sweep.yaml: runs.0" in str(found.value)


def test_a_stage_of_another_order_is_not_taken_for_one_s_own(tmp_path: Path) -> None:
    """Two orders whose stages changed no weights: the same evaluation, in folders of other names."""
    from cpt_bench.run.ledger import Ledger

    path, step, inputs = "stages/2-b/predictions/a.jsonl", "stage-2/evaluate/a", {"weights": "same"}
    (tmp_path / "one/stages/2-b/predictions").mkdir(parents=True)
    (tmp_path / "one" / path).write_text("{}\n")

    def ledger(name: str, last: str) -> Ledger:
        return Ledger(tmp_path / name, tmp_path / "shared", ["0-base", "1-a", last])

    ledger("one", "2-b").commit(step, inputs, [path], {}, 1.0)
    assert ledger("two", "2-c").find(step, inputs) is None
    assert not (tmp_path / "two").exists()
    assert ledger("three", "2-b").find(step, inputs) is not None
    assert (tmp_path / "three" / path).exists()


# ------------------------------------------------------------------------------------- the loop


class Fake:
    """A backend that writes the ledgers of what it 'trains', a stage a look."""

    def __init__(
        self, slots: float, lose: dict[str, int] | None = None, fail: tuple[str, ...] = ()
    ) -> None:
        self.slots, self.lose, self.fail = slots, dict(lose or {}), fail
        self.running: dict[str, Any] = {}
        self.at: dict[str, int] = {}
        self.trained: list[tuple[str, str]] = []
        self.keeps: dict[str, str] = {}
        self.most = 0

    def start(self, job: Any, keep: str) -> None:
        assert job.name not in self.running
        self.running[job.name] = job
        self.keeps[job.name] = keep
        self.most = max(self.most, len(self.running))

    def wait(self, seconds: float) -> list[Any]:
        from cpt_bench.sweep.loop import Ended

        out = []
        for name, job in list(self.running.items()):
            at = self.at.get(name, 0)
            if at == 3 and self.lose.get(name, 0):
                self.lose[name] -= 1
                out.append(Ended(name, "lost", "killed"))
            elif at == 2 and name in self.fail:
                out.append(Ended(name, "failed", "no idea"))
            elif at == len(job.chain):
                out.append(Ended(name, "done"))
            else:
                self._commit(job, at)
        for ended in out:
            del self.running[ended.name]
        return out

    def _commit(self, job: Any, at: int) -> None:
        stage, key = job.chain[at]
        self.at[job.name] = at + 1
        # As the ledger does: a stage that another run committed is taken, else it is trained.
        if key not in {k for _, k in self.trained}:
            self.trained.append((job.name, key))
        elif at == 0 or (job.name, key) in self.trained:
            pass
        suite, ledger = job.plan.suite, job.folder / "ledger"
        ledger.mkdir(parents=True, exist_ok=True)
        for name in (*suite.sequence, *suite.general):
            (ledger / f"stage-{stage}.evaluate.{name}.json").write_text("{}")
        for step in ("train", "kl") if stage else ():
            (ledger / f"stage-{stage}.{step}.json").write_text("{}")

    def stop(self) -> None:
        self.running.clear()


def looped(jobs: list[Any], backend: Fake, retries: int = 2) -> tuple[dict[str, Any], list[Any]]:
    from cpt_bench.sweep.loop import Loop

    events: list[Any] = []
    return Loop(jobs, backend, retries, "none", events.append).run(), events


def test_a_run_waits_for_the_stage_it_would_share(tmp_path: Path) -> None:
    jobs = planned(tmp_path)
    backend = Fake(slots=4)
    starts: dict[str, int] = {}
    original = backend.start

    def start(job: Any, keep: str) -> None:
        starts[job.name] = backend.at.get(jobs[0].name, 0)
        original(job, keep)

    backend.start = start  # type: ignore[method-assign]
    states, _ = looped(jobs, backend)
    assert {s.status for s in states.values()} == {"done"}
    assert starts[jobs[0].name] == 0
    # Nobody starts before the base's row is there; who shares five stages, not before the sixth.
    assert all(at >= 1 for name, at in starts.items() if name != jobs[0].name)
    late = next(job for job in jobs if job.chain[5] == jobs[0].chain[5] and job is not jobs[0])
    assert starts[late.name] >= 6
    assert backend.most == 4
    # Weights that others take are kept until they have them; the rest goes at once.
    assert backend.keeps[jobs[0].name] == "all" == backend.keeps[late.name]
    assert backend.keeps["nano-sft-seed1"] == "none"


def test_what_was_lost_goes_on_and_what_failed_does_not(tmp_path: Path) -> None:
    jobs = planned(tmp_path)
    lost, failing = jobs[1].name, jobs[0].name
    backend = Fake(slots=2, lose={lost: 2}, fail=(failing,))
    states, events = looped(jobs, backend)
    assert states[lost].status == "done" and states[lost].attempts == 3
    assert states[failing].status == "failed" and states[failing].attempts == 1
    # The run that waited for the failed one's stages trains them itself.
    assert [s.status for n, s in states.items() if n != failing] == ["done"] * (len(jobs) - 1)
    assert sum(e["kind"] == "lost" for e in events) == 2
    states, _ = looped(planned(tmp_path / "again"), Fake(slots=2, lose={lost: 9}))
    assert states[lost].status == "failed" and states[lost].attempts == 3
