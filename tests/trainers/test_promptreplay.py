"""Replay by pass rate: which prompts come back, when, and within which budget."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.trainer import RewardParts, TrainSample
from cpt_bench.trainers.methods import PromptReplayRFT
from cpt_bench.trainers.parts import promptreplay
from cpt_bench.trainers.parts.promptreplay import PromptReplay, Seen, nearest_half
from cpt_bench.trainers.rft import RFT
from tests.support.stages import RL, TINY, chained

RATES = st.sampled_from([k / 8 for k in range(9)])


def sample(task: str, number: int) -> TrainSample:
    return TrainSample(f"{task}-{number}", task, "?", (), "!")


class Memory:
    """A store that counts what it is given."""

    def __init__(self, samples: list[TrainSample]) -> None:
        self.stored = samples

    def samples(self) -> list[TrainSample]:
        return self.stored

    def add(self, samples: list[TrainSample]) -> None:
        self.stored = [*self.stored, *samples]


def part_of(folder: Path, old: list[TrainSample], new: list[TrainSample], **changes: Any) -> Any:
    config = RFT.Config(learning_rate=1, replay=3, replay_choice="pass_rate", **changes)
    stage: Any = SimpleNamespace(samples=new, memory=Memory(old), state=folder, seed=1, index=2)
    return PromptReplay(config, stage)


@given(st.dictionaries(st.integers(0, 30), RATES, min_size=1))
def test_the_nearest_to_one_half_come_first_and_none_from_outside(rates: dict[int, float]) -> None:
    seen = {("a", str(i)): Seen(rate, 0) for i, rate in rates.items()}
    chosen = nearest_half(seen, (0.24, 0.7))
    distances = [abs(seen[key].rate - 0.5) for key in chosen]
    assert distances == sorted(distances)
    assert {*chosen} == {k for k, s in seen.items() if 0.24 <= s.rate <= 0.7}
    assert all(seen[key].rate > 0 for key in nearest_half(seen, (0.0, 1.0)))


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(st.lists(RATES, min_size=4, max_size=4), min_size=1, max_size=12),
    cooldown=st.integers(0, 6),
    share=st.sampled_from([0.25, 0.5]),
)
def test_a_prompt_rests_and_a_batch_keeps_new_prompts(
    batches: list[list[float]], cooldown: int, share: float, tmp_path_factory: Any
) -> None:
    """A whole stage, with rollouts made up: four prompts a batch, eight replies each."""
    old, new = [sample("old", i) for i in range(6)], [sample("new", i) for i in range(20)]
    part = part_of(tmp_path_factory.mktemp("state"), old, new, replay_share=share,
                   replay_cooldown=cooldown)  # fmt: skip
    part.seen = {("old", s.id): Seen(0.5, -99) for s in old}
    samples = part.mix(new)
    assert samples == [*new, *old]
    rows = SimpleNamespace(select=lambda wanted: wanted)
    made: list[list[str]] = []
    answers = iter(batches)

    def generate(inputs: list[dict[str, Any]]) -> None:
        asked = [samples[row["sample"]] for row in inputs]
        made.append([s.id for s in asked[::8]])
        rates = next(answers)
        replies = [float(k < 8 * rate) for rate in rates for k in range(8)]
        part.graded(asked, replies)
        part.graded(asked, [1.0] * len(asked))  # a baseline's: it is not the rollouts'

    class Rows(list[Any]):
        def select(self, wanted: list[int]) -> list[int]:
            return wanted

    rows = Rows({"sample": i} for i in range(len(samples)))
    trainer = SimpleNamespace(
        train_dataset=rows, drawn_from=samples, num_generations=8,
        args=SimpleNamespace(generation_batch_size=32, should_save=True),
        _generate_and_score_completions=generate, _metrics={"train": {"replayed": []}},
    )  # fmt: skip
    part.attach(trainer)
    assert trainer.train_dataset == [*range(20)]  # TRL draws new prompts alone
    for number in range(len(batches)):
        wanted = [{"sample": (4 * number + i) % 20} for i in range(4) for _ in range(8)]
        trainer._generate_and_score_completions(wanted)
    allowed = int(4 * share)
    last: dict[str, int] = {}
    for number, (asked, rates) in enumerate(zip(made, batches, strict=True)):
        back = [name for name in asked if name.startswith("old")]
        assert len(back) <= allowed and asked[: len(back)] == back and len({*asked}) == 4
        for name in back:
            assert number - last.get(name, -99) >= max(cooldown, 1)
            last[name] = number
        for name, rate in zip(asked, rates, strict=True):
            if name.startswith("old"):
                seen = part.seen[("old", name)]
                assert seen.batch >= number
                if seen.batch == number:
                    assert seen.rate == rate
    part.finish(trainer)
    kept = [s for s in part.stage.memory.samples() if s.task == "new"]
    assert len(kept) <= 3 and all(0.24 <= part.seen[("new", s.id)].rate <= 0.7 for s in kept)
    assert read_json(part.state)["batches"] == len(batches)


def test_pass_rates_go_from_stage_to_stage(tiny_model: Path, tmp_path: Path) -> None:
    trainer = PromptReplayRFT(
        PromptReplayRFT.Config(**{**RL, "max_steps": 3}, replay=5, replay_cooldown=1)
    )
    rewarded = PromptReplayRFT.train

    def train(self: Any, stage: Any) -> None:
        from dataclasses import replace

        turns = iter(range(10_000))
        rewarded(
            self,
            replace(
                stage,
                reward=lambda s, r: RewardParts(
                    float(next(turns) % 2), 1.0 * (next(turns) % 4 < 2), True
                ),
            ),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptReplayRFT, "train", train)
        stages, logs = chained([trainer, trainer], tiny_model, tmp_path)
    first = stages[1].memory.samples(TINY.sequence[0])
    assert 1 <= len(first) <= 5
    # Of two prompts a batch one is old, from the first batch of the second stage on.
    assert [row["replayed"] for row in logs[0]] == [0, 0, 0]
    assert [row["replayed"] for row in logs[1]] == [1, 1, 1]
    assert read_json(stages[1].state / promptreplay.STORE)["batches"] == 6


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CptBenchError, match="in one process"):
        part_of(tmp_path, [], [])
