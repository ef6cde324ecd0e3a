"""How gym's tasks and probes were chosen: candidates asked of its base model, before any training.

Fixed before anything was trained: a task is taken if the base model is right on 10 to 70 % of its
questions by the grader that ranks, if among four sampled replies some are right and some wrong for
at least 15 % of its questions, and if no answer is the gold of more than half of them. A probe is
taken if the base model is at least 40 points above chance. Of several of one kind, the one with the
shorter prompts is taken.

    python -m benchmarks.gym_choice --out benchmarks/results/gym-choice.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt_bench import environment
from cpt_bench.documents import read_mapping
from cpt_bench.engines import GREEDY, Request, Sampling
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.files import read_json, write_text
from cpt_bench.grading import find_matcher, grade
from cpt_bench.models.packaged import unpacked
from cpt_bench.sources.loading import with_instruction
from cpt_bench.sources.reasoning_gym import make
from cpt_bench.suite import AnswerForm, Sample, TaskCard, open_suite
from cpt_bench.suite.origins import ReasoningGym, Split
from cpt_bench.tasks.gym import probes

SUITE = open_suite("gym")
FORM = AnswerForm(kind="natural", open="The answer is ", close=".")
ASKS = {
    "sentence": '\nReply with one sentence: "The answer is ...".',
    "only": "\nReply with the answer only.",
    "end": "\nEnd with: The answer is",
}
"""The wordings that were tried for each candidate, on 60 questions of another seed."""
VERSION, SEED, SAMPLES = "0.1.25", 91_000_000, 4
"""The seed is none of gym's: what is chosen by is not what is measured later."""
MOST = SUITE.protocol.decoding.max_new_tokens

CANDIDATES = Path(__file__).with_name("gym_candidates.yaml")


def card(
    name: str, task: str, kind: str, settings: dict[str, Any], n: int, ask: str = "only"
) -> TaskCard:
    """A card for a candidate."""
    source = ReasoningGym(
        kind="reasoning-gym", version=VERSION, task=task, settings=settings, seeds={"test": SEED}
    )
    return TaskCard(
        name=name, title=name, description=name, version=1, source=source, licence="Apache-2.0",
        splits={"test": Split(n=n, sha256=None)}, grader="reasoning-gym", answer_kinds=(kind,),
        instruction=ASKS[ask],
    )  # fmt: skip


def measured(
    engine: TransformersEngine, samples: Sequence[Sample], grader: str, most: int, groups: int
) -> dict[str, Any]:
    """What the base model does with a candidate's questions."""
    start, matcher = time.monotonic(), find_matcher(grader)
    asked = [Request(s.id, SUITE.protocol.prompt(s.question), ()) for s in samples]
    replies = engine.generate(asked, most, lambda done: None, GREEDY)
    graded = [grade(r.text, s, FORM, matcher) for r, s in zip(replies, samples, strict=True)]
    golds = Counter(s.answers[0] for s in samples)
    said = Counter(g.read for g in graded)
    out: dict[str, Any] = {
        "n": len(samples),
        "right": _percent(g.score for g in graded),
        "best reading": _percent(g.lenient for g in graded),
        "has the form": _percent(float(g.format_ok) for g in graded),
        "most frequent gold": [golds.most_common(1)[0][0], _percent(_same(golds, samples))],
        "most frequent answer": [said.most_common(1)[0][0], _percent(_same(said, samples))],
        "words in a question": round(sum(len(s.question.split()) for s in samples) / len(samples)),
        "tokens in a reply": round(sum(r.tokens or 0 for r in replies) / len(replies), 1),
        "seconds": round(time.monotonic() - start, 1),
        "for example": [samples[0].question, samples[0].answers[0], replies[0].text],
    }
    if groups and 5 <= out["right"] <= 75:
        again = [request for request in asked[:groups] for _ in range(SAMPLES)]
        drawn = engine.generate(again, most, lambda done: None, Sampling(1.0, 1.0))
        scores = [
            grade(reply.text, samples[i // SAMPLES], FORM, matcher).score
            for i, reply in enumerate(drawn)
        ]
        of_four = [sum(scores[i : i + SAMPLES]) for i in range(0, len(scores), SAMPLES)]
        out["sampled right"] = _percent(scores)
        out["groups that differ"] = _percent(float(0 < s < SAMPLES) for s in of_four)
    return out


def _same(counts: Counter[Any], samples: Sequence[Sample]) -> list[float]:
    top = counts.most_common(1)[0][1]
    return [1.0] * top + [0.0] * (len(samples) - top)


def _percent(values: Any) -> float:
    values = [*values]
    return round(100 * sum(values) / len(values), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("--only", nargs="*")
    asked = parser.parse_args()
    assert SUITE.base_package is not None
    engine = TransformersEngine(unpacked(SUITE.base_package), batch_size=50)
    found: dict[str, Any] = read_json(asked.out) if asked.out and asked.out.is_file() else {}
    tasks, general = found.get("tasks", {}), found.get("probes", {})
    for name, given in read_mapping(CANDIDATES).items():
        if asked.only and name not in asked.only:
            continue
        declared = card(name, **given, n=asked.n)
        samples = [with_instruction(s, declared) for s in make(declared, "test")]
        row = measured(engine, samples, "reasoning-gym", MOST, asked.groups)
        tasks[name] = {**given, **row}
        print(name, json.dumps(row, ensure_ascii=False), flush=True)
    for name in probes.PROBES:
        if asked.only and name not in asked.only:
            continue
        general[name] = measured(engine, probes.make("test", 100, name, 1), "exact", MOST, 0)
        print(name, json.dumps(general[name], ensure_ascii=False), flush=True)
    if asked.out:
        versions = {"reasoning-gym": VERSION, **environment.versions()}
        whole = {"versions": versions, "seed": SEED, "tasks": tasks, "probes": general}
        write_text(asked.out, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
