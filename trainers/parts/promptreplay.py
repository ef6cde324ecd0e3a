"""CPR: replay the old prompts that the policy answers rightly about half of the time.

"Continual Reasoning Gym" (arXiv 2608.18574), its Continual Prompt Replay, as in the authors' code.
Each prompt has a pass rate, the mean accuracy of its rollouts when they were last drawn. Of a batch
of B prompts, up to floor(``replay_share`` * B) are replaced by old ones, whose replies are drawn
anew from the policy: of earlier tasks, with a pass rate inside ``replay_window``, not drawn in the
last ``replay_cooldown`` batches, the nearest to one half first. Where too few are eligible, the
prompts stay new ones.

The authors keep every prompt that was drawn. Here the memory holds at most ``replay`` of a task:
those inside the window, the nearest to one half first. One outside it would never be drawn again,
since a pass rate changes only when a prompt is drawn. Pass rates and the count of batches are in
``stage.state``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json, write_json
from cpt_bench.trainer import Stage, TrainSample
from cpt_bench.trainers.config import processes
from cpt_bench.trainers.parts.part import Part

STORE = "pass-rates.json"

Key = tuple[str, str]
"""A prompt: its task and its id."""


class Seen(NamedTuple):
    """The last time that a prompt was drawn: its pass rate, and the number of the batch."""

    rate: float
    batch: int


class PromptReplay(Part):
    """Replaces prompts of a batch by old ones, chosen by their pass rates."""

    def __init__(self, config: Any, stage: Stage) -> None:
        super().__init__(config, stage)
        if processes() > 1:
            raise CptBenchError(
                "replay by pass rate chooses a batch's prompts in one process",
                where="replay_choice=pass_rate",
                todo="Run it without --launch, or set replay_choice=uniform",
            )
        self.old = {(s.task, s.id) for s in stage.memory.samples()}
        self.state = stage.state / STORE
        stored: dict[str, Any] = {"batches": 0, "seen": []}
        if self.state.exists():
            stored = read_json(self.state)
        self.batches: int = stored["batches"]
        self.seen = {(task, name): Seen(*rest) for task, name, *rest in stored["seen"]}
        self.awaiting = False

    def mix(self, samples: Sequence[TrainSample]) -> Sequence[TrainSample]:
        return [*samples, *self.stage.memory.samples()]

    def attach(self, trainer: Any) -> None:
        self.samples: Sequence[TrainSample] = trainer.drawn_from
        rows = trainer.train_dataset
        number = {(s.task, s.id): i for i, s in enumerate(self.samples)}
        new = [i for i, s in enumerate(self.samples) if (s.task, s.id) not in self.old]
        while len(new) < trainer.args.generation_batch_size // trainer.num_generations:
            new += new  # TRL drops a batch that is not full
        trainer.train_dataset = rows.select(new)
        generate = trainer._generate_and_score_completions

        def replayed(inputs: list[dict[str, Any]]) -> Any:
            each = trainer.num_generations
            budget = int(len(inputs) // each * self.config.replay_share)
            chosen = self.eligible()[:budget]
            for slot, key in enumerate(chosen):
                inputs[slot * each : (slot + 1) * each] = [dict(rows[number[key]])] * each
            self.awaiting = True
            made = generate(inputs)
            self.batches += 1
            trainer._metrics["train"]["replayed"].append(len(chosen))
            return made

        trainer._generate_and_score_completions = replayed

    def graded(self, samples: Sequence[TrainSample], accuracies: Sequence[float]) -> None:
        if not self.awaiting:  # ReMax's baselines are graded too, after the rollouts
            return
        self.awaiting = False
        rates: dict[Key, list[float]] = {}
        for sample, accuracy in zip(samples, accuracies, strict=True):
            rates.setdefault((sample.task, sample.id), []).append(accuracy)
        self.seen |= {k: Seen(sum(v) / len(v), self.batches) for k, v in rates.items()}

    def eligible(self) -> list[Key]:
        """The old prompts that may be drawn in this batch, the nearest to one half first."""
        rested = {
            key: seen
            for key, seen in self.seen.items()
            if key in self.old and self.batches - seen.batch >= self.config.replay_cooldown
        }
        return nearest_half(rested, self.config.replay_window)

    def finish(self, trainer: Any) -> None:
        if not trainer.args.should_save:
            return
        own = {(s.task, s.id): s for s in self.stage.samples}
        drawn = {key: seen for key, seen in self.seen.items() if key in own}
        kept = nearest_half(drawn, self.config.replay_window)[: self.config.replay]
        self.stage.memory.add([own[key] for key in kept])
        known = [key for key in self.seen if key in self.old or key in {*kept}]
        rows = [[*key, *self.seen[key]] for key in sorted(known)]
        write_json(self.state, {"batches": self.batches, "seen": rows})


def nearest_half(seen: Mapping[Key, Seen], window: tuple[float, float]) -> list[Key]:
    """The prompts with a pass rate inside ``window``, the nearest to one half first.

    A prompt that was never answered rightly is not among them, whatever the window.
    """
    low, high = window
    inside = [(abs(s.rate - 0.5), s.rate, key) for key, s in seen.items()
              if s.rate > 0 and low <= s.rate <= high]  # fmt: skip
    return [key for _, _, key in sorted(inside)]
