"""Another checkpoint in the engine that is loaded: a fresh engine's replies, or none at all.

Of vLLM the same is in tests/peers/test_engine.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from safetensors.torch import load_file, save_file

from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.engines.swapping import difference, frame
from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest
from cpt_bench.models.checkpoint import weights_digest
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
def engine(tiny_model: Path) -> Any:
    """An engine that has answered."""
    opened = TransformersEngine(tiny_model, device="cpu")
    opened.generate(questions(2), 12)
    return opened


def refuses(engine: Any) -> None:
    assert engine.weights == ""
    with pytest.raises(CptBenchError, match="holds no checkpoint: its last swap failed"):
        engine.generate(questions(1)[:1], 4)


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


def test_a_truncated_file_is_refused(engine: Any, tiny_model: Path, tmp_path: Path) -> None:
    file = other(tiny_model, tmp_path / "new") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(CptBenchError, match="the checkpoint cannot be loaded"):
        engine.swap(file.parent)
    refuses(engine)


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("config.json", {"image_token_id": 1}, "its config.json differs from that of the loaded"),
        ("config.json", {"dtype": "bfloat16"}, "its dtype differs from that of the loaded"),
        (
            "tokenizer_config.json",
            {"eos_token": "a"},
            "its tokenizer_config.json differs from that of",
        ),
        ("generation_config.json", {"eos_token_id": 1}, "its generation_config.json differs from"),
        ("chat_template.jinja", "\n", "its chat_template.jinja differs from that of the loaded"),
        ("added_tokens.json", "{}", "its added_tokens.json differs from that of the loaded"),
        ("adapter_config.json", "{}", "an adapter is merged when it is loaded"),
    ],
)
def test_more_than_weights_is_not_swapped(
    file: str, change: Any, complaint: str, engine: Any, tiny_model: Path, tmp_path: Path
) -> None:
    place = other(tiny_model, tmp_path / "new") / file
    if isinstance(change, dict):
        place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    else:
        place.write_text((place.read_text() if place.exists() else "") + change)
    with pytest.raises(CptBenchError, match=complaint):
        engine.swap(place.parent)
    refuses(engine)


def test_what_trainers_write_beside_the_same_settings_is_no_difference(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Where a model was loaded from, how its tokenizer was last called, the trainer's own logs."""
    folder = other(tiny_model, tmp_path / "new")

    def edit(name: str, **values: Any) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    text = json.loads((folder / "config.json").read_text())["text_config"]
    text |= {"dtype": "float32", "use_cache": False}
    edit("config.json", text_config=text, _name_or_path="x", transformers_version="5.0", dtype=None)
    called: dict[str, Any] = {"max_length": None, "pad_to_multiple_of": None, "stride": 0}
    edit(
        "tokenizer_config.json",
        is_local=True,
        local_files_only=False,
        padding_side="right",
        **called,
    )
    edit("processor_config.json", video_processor={"fps": 2})
    (folder / "video_preprocessor_config.json").unlink()
    edit("tokenizer.json", padding={"strategy": "BatchLongest"}, truncation={"max_length": 9})
    edit("generation_config.json", transformers_version="5.0", _from_model_config=True)
    for name in ("trainer_state.json", "all_results.json", "requirements.txt"):
        (folder / name).write_text("{}")
    assert difference(frame(tiny_model), frame(folder)) is None
    # A word of the vocabulary that is called as such a key is none.
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"]["padding"] = 1
    edit("tokenizer.json", **words)
    assert "tokenizer.json" in str(difference(frame(tiny_model), frame(folder)))
