"""What the quick path computes of a language model is what transformers computes, up to rounding."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.models import quick, text_cpu
from tests.support.families import TEXT

HEAD = "one of the things that you see is the answer: "
WORDS = ("which?", "how many things are there beside the red one?", "what is it?", "why not, then?")


@pytest.fixture(scope="module", params=["Qwen3", "SmolLM2"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    TEXT[request.param](folder)
    return TransformersEngine(folder, device="cpu", attention="sdpa")


def asked(engine: Any, head: str, words: tuple[str, ...] = WORDS) -> Any:
    inputs = engine.encode([Request(str(i), head + text, ()) for i, text in enumerate(words)])
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def test_a_common_beginning_is_found(engine: Any) -> None:
    inputs = asked(engine, HEAD)
    rows = [t[m == 1].tolist() for t, m in zip(*inputs.values(), strict=True)]
    same = 0
    while len({tuple(row[: same + 1]) for row in rows}) == 1:
        same += 1
    assert text_cpu.common(*inputs.values()) == same >= text_cpu.WORTH
    assert text_cpu.common(*asked(engine, HEAD, WORDS[:1]).values()) == 0
    # Each row keeps a token of its own, from which its reply goes on.
    twice = asked(engine, HEAD, (WORDS[0],) * 2)
    assert text_cpu.common(*twice.values()) == int(twice["attention_mask"].sum(1)[0]) - 1
    tokens = torch.tensor([[0, 0, 5, 6, 7], [5, 6, 8, 9, 4]])
    assert text_cpu.common(tokens, (tokens > 0).long()) == 0  # two tokens are not worth a pass


@pytest.mark.parametrize("head", [HEAD, ""])
def test_replies_are_those_of_generate(engine: Any, head: str) -> None:
    inputs = asked(engine, head)
    assert not bool(inputs["attention_mask"].all())  # some are padded
    # Without an end, so that an untrained model's replies are long; then ended at its choice.
    engine.model.generation_config.eos_token_id = None
    with torch.inference_mode():
        free = engine.model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=0)[
            :, inputs["input_ids"].shape[1] :
        ]
        model = quick.of(engine.model)
        assert isinstance(model, text_cpu.QuickText)
        for stops in ([-1], [int(free[0, 3]), int(free[1, 7])]):
            got = model.read(inputs).write(12, temperature=0, ends=stops, padding=0)
            for ours, theirs in zip(got.tolist(), free.tolist(), strict=True):
                until = next((i + 1 for i, t in enumerate(theirs) if t in stops), 12)
                assert ours == theirs[:until] + [0] * (12 - until)


@pytest.mark.parametrize("head", [HEAD, ""])
def test_scores_and_gradients_are_those_of_whole_rows(engine: Any, head: str) -> None:
    """Two replies to each prompt, of different lengths; the prompt is read once."""
    inputs, model = asked(engine, head), engine.model
    which = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    drawn = torch.Generator().manual_seed(0)
    replies = torch.randint(5, 90, (8, 6), generator=drawn)
    mask = (torch.arange(6) < torch.tensor([6, 3, 1, 5, 2, 6, 4, 6])[:, None]).long()
    weight = torch.rand(8, 6, generator=drawn) * mask

    path = quick.of(model)
    assert path is not None
    ours = path.read(inputs).rows(which).score(replies, mask, 0.7)
    model.zero_grad()
    (ours.logps * weight).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    whole = {
        "input_ids": torch.cat([inputs["input_ids"][which], replies], 1),
        "attention_mask": torch.cat([inputs["attention_mask"][which], mask], 1),
    }
    places = (whole["attention_mask"].cumsum(1) - 1).clamp(min=0)
    logits = model(**whole, position_ids=places).logits[:, -7:-1] / 0.7
    logps = logits.log_softmax(-1)
    chosen = logps.gather(-1, replies[..., None])[..., 0]
    model.zero_grad()
    (chosen * weight).sum().backward()

    seen = mask == 1
    assert torch.allclose(ours.logps[seen], chosen[seen], atol=1e-4)
    assert torch.allclose(ours.entropies[seen], -(logps.exp() * logps).sum(-1)[seen], atol=1e-4)
    assert torch.equal(ours.likeliest[seen], (logps.argmax(-1) == replies)[seen])
    assert not ours.logps[~seen].any() and not ours.entropies[~seen].any()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4), name

    answers = path.score_answers(whole, 6)
    plain = path.read(inputs).rows(which).score(replies, mask, 1.0)
    assert torch.allclose(answers.logps, plain.logps, atol=1e-4)


def test_it_serves_float32_on_a_cpu_without_adapters_or_windows(engine: Any) -> None:
    assert quick.of(engine.model) is not None
    config = engine.model.config
    before = config.layer_types if hasattr(config, "layer_types") else None
    config.layer_types = ["full_attention", "sliding_attention"]
    assert quick.of(engine.model) is None
    config.layer_types = before
    engine.model.bfloat16()
    assert quick.of(engine.model) is None
    engine.model.float()
