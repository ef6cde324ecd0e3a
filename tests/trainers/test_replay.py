"""Replay: its budget holds, and what it brings back is learned and rewarded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.errors import PrivilegeError
from cpt_bench.stage.memory import ReplayStore
from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.parts import replay
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.selfsft import IterativeSFT, Pool
from cpt_bench.trainers.sft import SFT
from tests.support.stages import RL, SUP, TINY, chained


def sample(task: str, number: int) -> TrainSample:
    return TrainSample(f"{task}-{number}", task, "?", (), "!")


@settings(max_examples=40, deadline=None)
@given(
    budget=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    share=st.floats(0.05, 0.95),
)
def test_replay_never_exceeds_its_budget(
    budget: int, sizes: list[int], share: float, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("memory")
    trainer = SimpleNamespace(args=SimpleNamespace(should_save=True))
    config = SFT.Config(learning_rate=1, replay=budget, replay_share=share)
    for t, size in enumerate(sizes):
        new = [sample(f"t{t}", i) for i in range(size)]
        rows = {(s.task, s.id): {"id": s.id, "task": s.task, "prompt": "?", "images": [],
                                 "target": "!", "rationale": None} for s in new}  # fmt: skip
        memory = ReplayStore(folder, budget, rows)
        part = replay.Replay(config, SimpleNamespace(samples=new, memory=memory, seed=t))  # type: ignore[arg-type]
        mixed = part.mix(new)
        old = [s for s in mixed if s.task != f"t{t}"]
        assert mixed[:size] == new and len(old) == (round(size * share / (1 - share)) if t else 0)
        counts = [sum(s == o for o in old) for s in memory.samples()]
        assert not counts or max(counts) - min(counts) <= 1
        part.finish(trainer)
        assert memory.tasks() == [f"t{i}" for i in range(t + 1)]
        for i, earlier in enumerate(sizes[: t + 1]):
            kept = memory.samples(f"t{i}")
            assert len({s.id for s in kept}) == len(kept) == min(budget, earlier) <= budget
        with pytest.raises(PrivilegeError):  # and one more is refused, whoever asks
            memory.add((new * (budget + 1))[: budget + 1])


def test_later_rounds_write_replies_to_old_prompts_too(tiny_model: Path, tmp_path: Path) -> None:
    asked: list[set[str]] = []

    class Watched(IterativeSFT):
        def own(self, stage: Stage, samples: Any, model: Any, log: Any) -> Any:
            asked.append({s.task for s in samples})
            return list(samples)

    later = Watched(Watched.Config(**SUP, rounds=2, replay=5))
    chained([SFT(SFT.Config(**SUP, replay=5)), later], tiny_model, tmp_path)
    assert asked == [set(TINY.sequence[:2])] * 2


def test_replayed_prompts_are_learned_under_sft_and_rewarded_under_rft(
    tiny_model: Path, tmp_path: Path
) -> None:
    for trainer in (SFT(SFT.Config(**SUP, replay=5)), RFT(RFT.Config(**RL, replay=5))):
        folder = tmp_path / type(trainer).__name__
        stages, logs = chained([trainer, trainer], tiny_model, folder)
        assert {len(stages[1].memory.samples(t)) for t in TINY.sequence[:2]} == {5}
        first, rows = stages[1].memory.samples("science")[0], logs[1]
        assert stages[1].reward(first, first.target).total == 1.0
        assert rows[-1]["samples"] == (8 if isinstance(trainer, SFT) else 2)


def test_the_pool_gives_each_once_before_any_twice() -> None:
    pool = Pool([sample("a", i) for i in range(5)], seed=1)
    taken = [s.id for _ in range(4) for s in pool.take(3)]
    assert sorted(taken[:5]) == sorted(taken[5:10]) == [f"a-{i}" for i in range(5)]
