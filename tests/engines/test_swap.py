"""Another checkpoint in the engine that is loaded: a fresh engine's replies, or none at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from safetensors.torch import load_file, save_file

from cpt_bench.engines import open_engine
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest
from cpt_bench.models.checkpoint import weights_digest
from tests.support import fake_vllm
from tests.support.questions import questions

Change = Callable[[dict[str, Any]], Any]


def other(model: Path, folder: Path, change: Change | None = None) -> Path:
    """A copy of ``model`` whose weights all differ, and beyond that as ``change`` has it."""
    shutil.copytree(model, folder)
    make = torch.Generator().manual_seed(7)
    state = load_file(folder / "model.safetensors")
    for tensor in state.values():
        tensor += 0.02 * torch.randn(tensor.shape, generator=make)
    if change is not None:
        change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def engine(request: Any, tiny_model: Path, monkeypatch: Any) -> Any:
    """An engine that has answered."""
    if request.param == "vllm":
        fake_vllm.install(monkeypatch)
        opened: Any = open_engine("vllm", tiny_model)
    else:
        opened = TransformersEngine(tiny_model, device="cpu")
    opened.generate(questions(2), 12)
    return opened


both = pytest.mark.parametrize("engine", ["transformers", "vllm"], indirect=True)
hf = pytest.mark.parametrize("engine", ["transformers"], indirect=True)
vllm = pytest.mark.parametrize("engine", ["vllm"], indirect=True)


def refuses(engine: Any) -> None:
    assert engine.weights == ""
    with pytest.raises(CptBenchError, match="holds no checkpoint: its last swap failed"):
        engine.generate(questions(1)[:1], 4)


@both
def test_after_a_swap_a_fresh_engine_s_replies(
    engine: Any, tiny_model: Path, tmp_path: Path
) -> None:
    folder, before = other(tiny_model, tmp_path / "new"), digest(tiny_model)
    old, new = engine.generate(questions(2), 12), TransformersEngine(folder, device="cpu")
    engine.swap(folder)
    shutil.rmtree(folder)  # weights are dropped once their stage is evaluated
    assert engine.weights == new.weights
    assert engine.generate(questions(2), 12) == new.generate(questions(2), 12) != old
    assert digest(tiny_model) == before, "the first checkpoint's file was written to"
    engine.swap(tiny_model)  # and back: nothing of the other one is left
    assert engine.weights == weights_digest(tiny_model)
    assert engine.generate(questions(2), 12) == old


@hf
def test_the_tensors_are_the_file_s(engine: Any, tiny_model: Path, tmp_path: Path) -> None:
    """To the last bit, under the names of before transformers 5 as under its own."""
    folder = other(tiny_model, tmp_path / "new")
    fresh = TransformersEngine(folder, device="cpu").model.state_dict()
    named = tmp_path / "named"
    shutil.copytree(folder, named)
    own = {name: tensor.clone() for name, tensor in fresh.items() if name != "lm_head.weight"}
    save_file(own, named / "model.safetensors", metadata={"format": "pt"})
    for place in (folder, named):
        engine.swap(tiny_model)
        engine.swap(place)
        held = engine.model.state_dict()
        assert held.keys() == fresh.keys()
        assert all(torch.equal(held[name], fresh[name]) for name in fresh)


def cut(state: dict[str, Any]) -> None:
    del state[next(name for name in state if name.endswith("layers.1.mlp.up_proj.weight"))]


def reshape(state: dict[str, Any]) -> None:
    name = next(name for name in state if name.endswith("layers.0.mlp.down_proj.weight"))
    state[name] = state[name].T.contiguous()


def add(state: dict[str, Any]) -> None:
    state["model.layers.9.mlp.up_proj.weight"] = torch.zeros(2, 2)


def untie(state: dict[str, Any]) -> None:
    state["lm_head.weight"] = torch.zeros_like(
        next(t for n, t in state.items() if n.endswith("embed_tokens.weight"))
    )


@hf
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (cut, r"1 weights are missing, among them model\.layers\.1\.mlp\.up_proj\.weight"),
        (reshape, r"layers\.0\.mlp\.down_proj\.weight is \[.*\] there and \[.*\] here"),
        (add, r"the model has no model\.layers\.9\.mlp\.up_proj\.weight"),
        (untie, "is not in the model as it is in the file"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(
    change: Change, complaint: str, engine: Any, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(CptBenchError, match=f"cannot be loaded .*{complaint}"):
        engine.swap(other(tiny_model, tmp_path / "new", change))
    refuses(engine)
    engine.swap(tiny_model)  # a whole one mends it
    assert engine.generate(questions(1)[:1], 4)


@both
def test_a_truncated_file_is_refused(engine: Any, tiny_model: Path, tmp_path: Path) -> None:
    file = other(tiny_model, tmp_path / "new") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(CptBenchError, match="the checkpoint cannot be loaded"):
        engine.swap(file.parent)
    refuses(engine)


@both
@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("config.json", "its config.json is not that of the checkpoint which is loaded"),
        ("chat_template.jinja", "its chat_template.jinja is not that of the checkpoint"),
        ("adapter_config.json", "an adapter is merged when it is loaded"),
    ],
)
def test_more_than_weights_is_not_swapped(
    file: str, complaint: str, engine: Any, tiny_model: Path, tmp_path: Path
) -> None:
    folder = other(tiny_model, tmp_path / "new")
    with (folder / file).open("a") as stream:
        stream.write("\n")
    with pytest.raises(CptBenchError, match=complaint):
        engine.swap(folder)
    refuses(engine)


@vllm
def test_a_loader_that_keeps_the_old_weights_is_refused(
    engine: Any, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """What ``reload_weights`` did (vllm issue 32718): all said to be loaded, nothing changed."""
    folder = other(tiny_model, tmp_path / "new")
    monkeypatch.setattr(fake_vllm.Model, "load_weights", lambda self, weights: {*self.held})
    with pytest.raises(CptBenchError, match=r"does not hold the checkpoint's weights: \d+ tensors"):
        engine.swap(folder)
    refuses(engine)


@vllm
def test_a_loader_that_leaves_something_out_is_refused(
    engine: Any, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    folder, load = other(tiny_model, tmp_path / "new"), fake_vllm.Model.load_weights
    left = "language_model.model.norm.weight"
    monkeypatch.setattr(
        fake_vllm.Model, "load_weights",
        lambda self, weights: load(self, ((n, t) for n, t in weights if vllm_norm(n) != left)),
    )  # fmt: skip
    with pytest.raises(CptBenchError, match=f"kept 1 old parameters, first {left}"):
        engine.swap(folder)
    refuses(engine)


def vllm_norm(name: str) -> str:
    from cpt_bench.engines.vllm_worker import vllm_name

    return vllm_name(name)[0]


@vllm
def test_pictures_seen_before_are_looked_at_again(
    engine: Any, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Without the encoder cache being emptied, half of the old checkpoint would answer."""
    folder = other(tiny_model, tmp_path / "new")
    fresh = TransformersEngine(folder, device="cpu").generate(questions(2), 12)
    engine.swap(folder)
    assert engine.generate(questions(2), 12) == fresh
    engine.swap(tiny_model)
    engine.generate(questions(2), 12)
    monkeypatch.setattr(engine._llm.llm_engine, "reset_encoder_cache", lambda: None)
    engine.swap(folder)
    assert engine.generate(questions(2), 12) != fresh, "the stand-in would not notice"
