"""KL between policies, and replies that are made to begin as asked."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow
def test_kl_of_a_policy_with_itself_is_zero_and_of_another_is_by_hand(
    tiny_model: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    import shutil

    from safetensors.torch import load_file, save_file

    from cpt_bench.engines import Request
    from cpt_bench.engines.hf import TransformersEngine
    from cpt_bench.evaluation.divergence import divergence
    from tests.support.simulated import split

    other = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    torch.manual_seed(0)
    moved = {k: v + 0.05 * torch.randn_like(v) for k, v in weights.items()}
    save_file(moved, other / "model.safetensors", metadata={"format": "pt"})
    base, policy = TransformersEngine(tiny_model), TransformersEngine(other)
    samples = [*split("nano", "text")[:3], *split("nano", "knowledge")[:2]]
    replies = [
        "<answer> a</answer>",
        "",
        "<think> none</think><answer> b</answer>",
        "what",
        "<answer>",
    ]
    requests = [
        Request(s.id, s.question, s.images, r) for s, r in zip(samples, replies, strict=True)
    ]
    same = divergence(base, base, requests)
    assert [row["kl"] for row in same] == [0.0] * 5
    assert all(row["entropy"] == row["base_entropy"] > 0 for row in same)
    rows = divergence(base, policy, requests)
    assert [row["id"] for row in rows] == [s.id for s in samples]
    for request, row in zip(
        requests, rows, strict=True
    ):  # one at a time, no padding, by the formula
        whole, asked = base.encode([request]), base.encode([request._replace(prefix="")])
        n = whole["input_ids"].shape[1] - asked["input_ids"].shape[1] + 1
        assert row["tokens"] == n
        with torch.no_grad():
            p, q = (e.model(**whole).logits[0, -n:].double().softmax(-1) for e in (base, policy))
        assert row["kl"] == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-3)
        assert row["entropy"] == pytest.approx(float(-(q * q.log()).sum(-1).mean()), rel=1e-3)
        assert row["kl"] > 0


@pytest.mark.slow
def test_a_forced_reply_begins_as_it_must(tiny_model: Path) -> None:
    pytest.importorskip("torch")
    from cpt_bench.engines import Request
    from cpt_bench.engines.hf import TransformersEngine
    from tests.support.simulated import split

    engine = TransformersEngine(tiny_model)
    samples = split("nano", "text")[:4]
    free = [Request(s.id, s.question, s.images) for s in samples]
    forced = [r._replace(prefix="<answer>") for r in free]
    assert all(r.text.startswith("<answer>") for r in engine.generate(forced, 4))
    # A prefix that the model would have written anyway changes nothing.
    said = engine.generate(free, 6)
    ids = engine.encode(free[:1])["input_ids"]
    assert (
        engine.encode([free[0]._replace(prefix="<think>")])["input_ids"].shape[1]
        == ids.shape[1] + 1
    )
    assert len(said) == 4
