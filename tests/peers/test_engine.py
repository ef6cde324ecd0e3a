"""vLLM itself as an engine: the transformers engine's replies, and never stale or partial weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cpt_bench.engines import Request, Sampling, open_engine
from cpt_bench.engines.swapping import difference, frame
from cpt_bench.engines.vllm_open import cache_bytes
from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.suite import Suite
from tests.support.peers import SMALL, Change, changed, replies, transformers


def refuses(engine: Any) -> None:
    assert engine.weights == ""
    with pytest.raises(CptBenchError, match="holds no checkpoint: its last swap failed"):
        engine.generate([Request("q", "2 + 2?", ())], 4)


def edit(file: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


# ------------------------------------------------------------------------------------- replies


def test_replies_are_those_of_transformers(engine: Any, base: Path, nano: Suite) -> None:
    """The words and the number of tokens, and the weights' digest."""
    told = replies(engine, nano, 40)
    assert told == replies(transformers(base), nano, 40)
    assert len({reply for rows in told.values() for reply, _ in rows}) > 30
    assert engine.weights == weights_digest(base)


def test_a_limit_that_cuts_a_character_in_two(base: Path, tmp_path: Path) -> None:
    """vLLM's own text leaves out what is left of the character; ours is transformers'."""
    asked = [Request("q", "2 + 2?", ())]
    plain = transformers(base)
    half = plain.processor.tokenizer("é").input_ids[-2]  # the first of its two bytes
    with torch.no_grad():
        seen = plain.model(**plain.encode(asked), output_hidden_states=True).hidden_states[-1]

    def says_half(state: dict[str, Any]) -> None:
        """The head points where the prompt ends, for that token alone."""
        state["lm_head.weight"] = torch.zeros_like(state["model.embed_tokens.weight"])
        state["lm_head.weight"][half] = seen[0, -1]

    folder = tmp_path / "half"
    shutil.copytree(base, folder)
    write(folder, says_half)
    edit(folder / "config.json", tie_word_embeddings=False)
    engine: Any = open_engine("vllm", folder, **SMALL)
    told = engine.generate(asked, 1)
    assert told == transformers(folder).generate(asked, 1) and told[0].text == "\ufffd"


def write(folder: Path, change: Change) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_sampled_replies_depend_on_the_seed_alone(engine: Any) -> None:
    """Another seed's replies are others, not the same ones moved by a place."""
    asked = [Request(f"q{i}", "2 + 2?", ()) for i in range(12)]
    draw = {seed: engine.generate(asked, 8, sampling=Sampling(1.0, 1.0, seed)) for seed in (5, 6)}
    assert engine.generate(asked, 8, sampling=Sampling(1.0, 1.0, 5)) == draw[5]
    assert len(set(draw[5])) > 1
    assert draw[5][1:] != draw[6][:-1] and draw[5] != draw[6]


def test_a_reply_that_the_engine_s_own_limit_cuts_is_an_error(base: Path) -> None:
    short: Any = open_engine("vllm", base, eager=True, max_model_len=48)
    for words, complaint in ((range(9, 60), r"cut after \d+ of 40 tokens"), ((99,), "could not")):
        with pytest.raises(CptBenchError, match=complaint) as caught:
            for n in words:  # each a token
                short.generate([Request("q7", "a " * n, ())], 40)
        said = str(caught.value)
        assert "--engine-set max_model_len" in said and len(said.splitlines()) == 1


def test_more_pictures_than_the_engine_takes(engine: Any, nano: Suite) -> None:
    from cpt_bench.sources import load_split

    sample = next(s for s in load_split(nano.card("counting"), "test") if s.images)
    with pytest.raises(CptBenchError, match="--engine-set max_images") as caught:
        engine.generate([Request("q", "?", sample.images * 9)], 4)
    assert len(str(caught.value).splitlines()) == 1


# --------------------------------------------------------------------------------------- dtype


def test_a_checkpoint_is_computed_in_its_own_dtype(engine: Any, base: Path, tmp_path: Path) -> None:
    """Not in bfloat16, which vLLM makes of float32; and other bits are not the same numbers."""
    assert engine.dtype == "float32" and held(engine) == {torch.float32}
    folder = tmp_path / "half"
    shutil.copytree(base, folder)

    def narrow(state: dict[str, Any]) -> None:
        state |= {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}

    write(folder, narrow)
    edit(folder / "config.json", dtype="bfloat16")
    assert difference(frame(base), frame(folder)) == (
        "its dtype differs from that of the loaded checkpoint"
    )
    narrowed: Any = open_engine("vllm", folder, **SMALL)
    assert narrowed.dtype == "bfloat16" and held(narrowed) == {torch.bfloat16}
    narrowed.dtype = (
        "float32"  # were the numbers cast before they are compared, they would be equal
    )
    with pytest.raises(CptBenchError, match="tensors differ"):
        narrowed._compare()
    asked: Any = open_engine("vllm", base, dtype="bfloat16", **SMALL)
    assert held(asked) == {torch.bfloat16}, "where somebody asks for it"


def held(engine: Any) -> set[Any]:
    """The dtypes of the parameters in vLLM."""

    def look(model: Any) -> set[Any]:
        return {parameter.dtype for parameter in model.parameters()}

    return set.union(*engine._llm.apply_model(look))


# --------------------------------------------------------------------------------------- swaps


def test_after_a_swap_a_fresh_engine_s_replies(
    on_base: Any, base: Path, other: Path, nano: Suite, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    shutil.copytree(other, folder)
    before, fresh = replies(on_base, nano), replies(transformers(folder), nano)
    on_base.swap(folder)
    shutil.rmtree(folder)  # weights are dropped once their stage is evaluated
    assert on_base.weights == weights_digest(other)
    assert replies(on_base, nano) == fresh != before
    on_base.swap(base)  # and back: nothing of the other one is left
    assert on_base.weights == weights_digest(base)
    assert replies(on_base, nano) == before


def test_pictures_seen_before_are_looked_at_again(
    on_base: Any, other: Path, nano: Suite, monkeypatch: Any
) -> None:
    """Without vLLM's memory of pictures being emptied, half of the old checkpoint would answer."""
    fresh = replies(transformers(other), nano)
    replies(on_base, nano)
    monkeypatch.setattr(on_base._llm.llm_engine, "reset_encoder_cache", lambda: None)
    on_base.swap(other)
    assert replies(on_base, nano) != fresh, "vLLM's memory of pictures would not be noticed"
    monkeypatch.undo()
    on_base.swap(other)
    assert replies(on_base, nano) == fresh


@pytest.mark.parametrize(
    "parameter",
    [
        "visual.blocks.0.norm1.weight",
        "visual.merger.mlp.2.bias",
        "language_model.model.layers.1.mlp.gate_up_proj.weight",
        "language_model.model.layers.0.self_attn.qkv_proj.bias",
    ],
)
def test_weights_changed_in_the_engine_are_never_scored(parameter: str, on_base: Any) -> None:
    def spoil(model: Any) -> None:
        dict(model.named_parameters())[parameter].data.view(-1)[-1] += 1e-6

    on_base._llm.apply_model(spoil)
    with pytest.raises(CptBenchError, match="weights changed after they were compared"):
        on_base.generate([Request("q", "2 + 2?", ())], 4)


def test_a_loader_that_keeps_the_old_weights_is_noticed(
    on_base: Any, other: Path, monkeypatch: Any
) -> None:
    """What ``reload_weights`` did (vllm issue 32718): all said to be loaded, nothing changed."""
    model = on_base._llm.llm_engine.model_executor.driver_worker.model_runner.model
    monkeypatch.setattr(model, "load_weights", lambda weights: {name for name, _ in weights})
    with pytest.raises(CptBenchError, match=r"does not hold the checkpoint's weights: \d+ tensors"):
        on_base.swap(other)
    refuses(on_base)
    monkeypatch.undo()


def lacking(*names: str) -> Change:
    def change(state: dict[str, Any]) -> None:
        for name in [n for n in state if n.endswith(names)]:
            del state[name]

    return change


WITHOUT = {
    "q": lacking("layers.1.self_attn.q_proj.weight"),
    "k": lacking("layers.1.self_attn.k_proj.weight"),
    "v's bias": lacking("layers.2.self_attn.v_proj.bias"),
    "gate": lacking("layers.0.mlp.gate_proj.weight"),
    "up": lacking("layers.3.mlp.up_proj.weight"),
    "the pictures' up": lacking("visual.blocks.1.mlp.up_proj.weight"),
    "the pictures' qkv": lacking("visual.blocks.0.attn.qkv.bias"),
    "a norm": lacking("layers.3.input_layernorm.weight"),
    "the vocabulary": lacking("embed_tokens.weight"),
    "a layer's mlp": lacking("layers.2.mlp.up_proj.weight", "layers.2.mlp.gate_proj.weight"),
}


@pytest.mark.parametrize("what", WITHOUT)
def test_a_checkpoint_that_lacks_a_tensor_is_not_swapped_in(
    what: str, on_base: Any, base: Path, tmp_path: Path
) -> None:
    """The loaded one's would answer in its place."""
    with pytest.raises(CptBenchError, match=r"no tensor|no parameter|cannot be loaded") as caught:
        on_base.swap(changed(base, tmp_path / "new", WITHOUT[what]))
    assert len(str(caught.value).splitlines()) == 1
    refuses(on_base)


@pytest.mark.parametrize("what", ["k", "gate"])
def test_a_checkpoint_that_lacks_a_tensor_is_not_opened(
    what: str, base: Path, tmp_path: Path
) -> None:
    """Uninitialised memory would answer in its place."""
    with pytest.raises(CptBenchError, match="come from no tensor"):
        open_engine("vllm", changed(base, tmp_path / "new", WITHOUT[what]), **SMALL)


def add(state: dict[str, Any]) -> None:
    state["model.layers.9.mlp.up_proj.weight"] = torch.zeros(2, 2)


def untie(state: dict[str, Any]) -> None:
    state["lm_head.weight"] = torch.zeros_like(state["model.embed_tokens.weight"])


def fewer_rows(state: dict[str, Any]) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    state[name] = state[name][:16].contiguous()


def turned(state: dict[str, Any]) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    state[name] = state[name].T.contiguous()


@pytest.mark.parametrize("change", [add, untie, fewer_rows, turned])
def test_a_checkpoint_with_tensors_that_do_not_fit_is_refused(
    change: Change, on_base: Any, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(CptBenchError) as caught:
        on_base.swap(changed(base, tmp_path / "new", change))
    assert len(str(caught.value).splitlines()) == 1
    refuses(on_base)


def test_a_truncated_file_is_refused(on_base: Any, base: Path, tmp_path: Path) -> None:
    file = changed(base, tmp_path / "new") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(CptBenchError, match="the checkpoint cannot be loaded"):
        on_base.swap(file.parent)
    refuses(on_base)


def test_a_tied_head_that_is_saved_twice_is_the_same_checkpoint(
    on_base: Any, base: Path, tmp_path: Path
) -> None:
    def twice(state: dict[str, Any]) -> None:
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()

    folder = changed(base, tmp_path / "new", twice)
    on_base.swap(folder)
    asked = [Request("q", "2 + 2?", ())]
    assert on_base.generate(asked, 8) == transformers(folder).generate(asked, 8)


def test_settings_that_mean_the_same_are_swapped(on_base: Any, other: Path, tmp_path: Path) -> None:
    """Between the base, whose files are its makers', and what a trainer writes; and its logs."""
    folder = tmp_path / "new"
    shutil.copytree(other, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"dtype": "float32", "use_cache": False}
    del config["dtype"]  # the tensors have one
    config |= {"_name_or_path": "elsewhere", "transformers_version": "5.0"}
    (folder / "config.json").write_text(json.dumps(config))
    edit(folder / "tokenizer_config.json", is_local=True, padding_side="right")
    padding = {"strategy": "BatchLongest", "direction": "Left", "pad_id": 734, "pad_type_id": 0,
               "pad_to_multiple_of": None, "pad_token": "<|endoftext|>"}  # fmt: skip
    edit(folder / "tokenizer.json", padding=padding)
    (folder / "trainer_state.json").write_text('{"global_step": 7}')
    on_base.swap(folder)
    assert on_base.weights == weights_digest(other)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"image_token_id": 740}),
        ("config.json", {"dtype": "bfloat16"}),
        ("generation_config.json", {"eos_token_id": 1}),
        ("tokenizer_config.json", {"add_bos_token": True}),
        ("processor_config.json", {"chat_template": "x"}),
    ],
)
def test_settings_that_change_replies_are_not(
    file: str, values: dict[str, Any], on_base: Any, other: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    shutil.copytree(other, folder)
    edit(folder / file, **values)
    with pytest.raises(CptBenchError, match=r"cannot be swapped in: its .* differs from"):
        on_base.swap(folder)
    refuses(on_base)


# ------------------------------------------------------------------------------------- opening


def test_what_vllm_raises_is_one_line(base: Path, tmp_path: Path) -> None:
    for settings, cure in (
        ({"memory": 1.0}, "--engine-set memory"),  # all of it: more than any machine has free
        ({"max_model_len": 100_000}, "--engine-set max_model_len"),
        ({"dtype": "float99"}, ""),
    ):
        with pytest.raises(CptBenchError, match="vLLM could not open the checkpoint") as caught:
            open_engine("vllm", base, **{**SMALL, **settings})
        assert len(str(caught.value).splitlines()) == 1 and cure in str(caught.value)
    folder = tmp_path / "new"
    shutil.copytree(base, folder)
    edit(folder / "config.json", architectures=["NoSuchModel"], model_type="none")
    with pytest.raises(CptBenchError) as caught:
        open_engine("vllm", folder, **SMALL)
    assert len(str(caught.value).splitlines()) == 1


def test_the_cache_on_a_cpu_has_the_size_that_is_needed(engine: Any, base: Path) -> None:
    """Not half of the machine's memory: nano's 64 sequences take 84 MB."""
    needed = 64 * 512 * 2 * 4 * 1 * 32 * 4  # tokens; k and v, layers, heads, width, bytes
    assert cache_bytes(base, "float32", None, 512) == needed
    held = engine._llm.llm_engine.vllm_config.cache_config
    assert held.num_gpu_blocks * held.block_size == 64 * 512
    assert cache_bytes(base, "bfloat16", None, 512) == needed // 2
