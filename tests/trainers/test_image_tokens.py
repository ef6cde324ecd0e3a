"""Rollouts have no image token: it would stand for a picture that is not there.

With vLLM: tests/peers/test_rft.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cpt_bench.engines import GREEDY, Request
from cpt_bench.models import quick
from cpt_bench.models.continuing import sampler
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.rollouts import Rollouts
from cpt_bench.trainers.shared import SharedPrompts
from tests.support.peers import PLACES, transformers, writing
from tests.support.stages import RL, make_stage

METHODS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "rloo": {"algorithm": "rloo"},
    "remax": {"algorithm": "remax"},
    "kl": {"kl": 0.05},
    "lwf": {"lwf": 0.1},  # its loss reads prompt and reply in one forward pass, picture included
}


@pytest.fixture(scope="module")
def policy(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writing(tiny_model, tmp_path_factory.mktemp("policy") / "places")


@pytest.fixture(scope="module")
def ids(policy: Path) -> list[int]:
    """Of the image token, and of what stands around pictures."""
    found: list[int] = transformers(policy).processor.tokenizer.convert_tokens_to_ids([*PLACES])
    return found


@pytest.fixture(params=["quick", "stock"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "stock":
        monkeypatch.setattr(quick, "package_for", lambda kind: None)
    yield


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_training(
    method: str, path: None, policy: Path, ids: list[int], tmp_path: Path, monkeypatch: Any
) -> None:
    generate: Callable[..., Any] = SharedPrompts._generate_single_turn
    written: set[int] = set()

    def watched(self: Any, *args: Any, **more: Any) -> Any:
        out = generate(self, *args, **more)
        for reply in out[0] if isinstance(out, tuple) else out:
            written.update(reply)
        return out

    monkeypatch.setattr(SharedPrompts, "_generate_single_turn", watched)
    rows: list[dict[str, Any]] = []
    stage = make_stage("counting", policy, tmp_path, rows)
    RFT(RFT.Config(**{**RL, "self_check": 2, "rollouts": 8, **METHODS[method]})).train(stage)
    assert ids[0] not in written and written >= {*ids[1:]}
    assert next(row for row in rows if row["step"])["self_check"] < 1e-5


def test_replies_that_a_method_learns_from(
    path: None, policy: Path, ids: list[int], tmp_path: Path
) -> None:
    """Their text would not have it, so that what is learned would not be what was drawn."""
    stage = make_stage("counting", policy, tmp_path)
    engine = transformers(policy)
    config = RFT.Config(**RL)
    rollouts = Rollouts(engine.model, stage, config)
    drawn: list[Any] = []
    decode = rollouts.processor.batch_decode
    rollouts.processor.batch_decode = lambda new, **more: [drawn.append(new), decode(new, **more)][
        1
    ]
    rollouts.draw(stage.samples[:4], 8, seed=1)
    written = {token for new in drawn for token in new.flatten().tolist()}
    assert ids[0] not in written and written >= {*ids[1:]}


def test_evaluation_has_no_such_rule(path: None, policy: Path, ids: list[int]) -> None:
    """Nothing reads a reply again that was written to be graded; the words are what is left of it."""
    engine = transformers(policy)
    asked = [Request("q", "2 + 2?", ())]
    only = writing_only(engine, ids[0])
    new = only.write(only.encode(asked), 3, GREEDY)
    assert new.tolist() == [[ids[0]] * 3]
    assert [(r.text, r.tokens) for r in only.generate(asked, 3)] == [("", 3)]


def writing_only(engine: Any, token: int) -> Any:
    """The engine, with a model that writes nothing else."""
    head = engine.model.lm_head
    with torch.no_grad():
        head.weight.zero_()

    def always(module: Any, args: Any, logits: Any) -> Any:
        return logits.index_fill(-1, torch.tensor([token]), 9.0)

    head.register_forward_hook(always)
    return engine


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_draws_change_only_where_the_token_is_drawn(top_p: float) -> None:
    """Token 0 has half of all: its draws fall to the others in proportion, and no other draw moves."""
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    draws = {}
    for never in ((), (0,)):
        torch.manual_seed(0)
        draws[never] = sampler(1.0, top_p, never)(logits)
    free, without = draws.values()
    assert torch.equal(without[free != 0], free[free != 0])
    assert float((without == 1).float().mean()) == pytest.approx(0.6, abs=0.01)
    assert not (without == 0).any() and (free == 0).float().mean() > 0.4
    assert sampler(0, never=(0,))(logits[:2]).tolist() == [1, 1]
    assert sampler(0)(logits[:2]).tolist() == [0, 0]
