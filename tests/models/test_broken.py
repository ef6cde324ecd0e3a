"""A checkpoint that cannot be opened: the real reason, and nothing is deleted that is not ours."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import broken, load_model, load_processor
from cpt_bench.suite import load_suite
from tests.support.commands import Cli
from tests.support.picture_families import maker
from tests.support.places import TINY, WORDS
from tests.support.stages import SUP, make_stage

SHARD = "model-00002-of-00002.safetensors"


def without(pattern: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in folder.glob(pattern):
            file.unlink()

    return change


def half(folder: Path) -> None:
    first = SHARD.replace("2-of", "1-of")
    (folder / "model.safetensors").rename(folder / first)
    index = {"metadata": {}, "weight_map": {"a": first, "b": SHARD}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a shard": (half, f"{SHARD} is missing, which model.safetensors.index.json names"),
    "the tokenizer": (without("token*"), "the tokenizer is missing (tokenizer.json, tokenizer_config.json)"),
    "the weights": (without("*.safetensors"), "*.safetensors are missing"),
    "the settings": (without("config.json"), "config.json is missing"),
    "the chat template": (without("chat_template*"), "has no chat template"),
}  # fmt: skip


def settings(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file; None removes one."""

    def change(folder: Path) -> None:
        known = {**json.loads((folder / name).read_text()), **changes}
        (folder / name).write_text(json.dumps({k: v for k, v in known.items() if v is not None}))

    return change


def words(name: str, text: str) -> Callable[[Path], None]:
    """Another content for a file."""
    return lambda folder: (folder / name).write_text(text) and None


def weights(how: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        save_file(how(load_file(file)), file, {"format": "pt"})

    return change


def linked(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "gone")


def indexed(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / SHARD)
        (folder / "model.safetensors.index.json").write_text(text)

    return change


def mine(folder: Path) -> None:
    """Weights of eight bits, by a method of somebody's own."""
    settings("config.json", quantization_config={"quant_method": "mine"})(folder)
    weights(lambda s: {k: v.to(torch.float8_e4m3fn) for k, v in s.items()})(folder)


def headed(header: bytes) -> Callable[[Path], None]:
    """Weights with another header."""
    data = len(header).to_bytes(8, "little") + header
    return lambda folder: (folder / "model.safetensors").write_bytes(data) and None


DEEP = '{"a":' * 5000
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"
TEXT_CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pointers of git LFS": (words("model.safetensors", POINTER), "model.safetensors is a pointer of git LFS, in place of the file: run git lfs pull"),
    "a pointer for the tokenizer": (words("tokenizer.json", POINTER), "tokenizer.json is a pointer of git LFS"),
    "a link that leads nowhere": (linked, "*.safetensors are missing"),
    "an index of nothing": (indexed("{}"), "model.safetensors.index.json: names no files (weight_map)"),
    "an index that is a list": (indexed("[]"), "model.safetensors.index.json: holds no settings (a JSON object)"),
    "settings that are a list": (words("config.json", "[]"), "config.json: holds no settings (a JSON object)"),
    "settings for generation that are cut off": (words("generation_config.json", "{"), "generation_config.json: not valid JSON"),
    "settings that are nested too deeply": (words("config.json", DEEP), "config.json: not valid JSON (nested too deeply)"),
    "settings for generation that are": (words("generation_config.json", "[" * 5000), "generation_config.json: not valid JSON (nested too deeply)"),
    "an index that is": (indexed(DEEP), "model.safetensors.index.json: not valid JSON (nested too deeply)"),
    "a tokenizer's settings that are": (words("tokenizer_config.json", DEEP), "tokenizer_config.json: not valid JSON (nested too deeply)"),
    "a header that is": (headed(DEEP.encode()), "Error while deserializing header"),
    "a header that is a list": (headed(b"[1]"), "Error while deserializing header"),
    "a header of things that are no tensors": (headed(b'{"a": 1}'), "Error while deserializing header"),
    "a head that is said to be its own, and is not there": (settings("config.json", tie_word_embeddings=False), "1 weights are missing, among them lm_head.weight"),
    "a layer too few": (settings("config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3), "11 weights are missing, among them model.layers.2."),
    "a layer too many": (settings("config.json", num_hidden_layers=1, layer_types=["full_attention"]), "there are weights of layers that config.json does not have, such as model.layers.1."),
    "another size": (settings("config.json", hidden_size=128), "weights have another shape than config.json says, among them model."),
    "eight bits": (weights(lambda s: {k: (v * 50).to(torch.int8) for k, v in s.items()}), "its weights are quantised (model.embed_tokens.weight is I8), and config.json does not say how"),
    "eight bits by nobody knows whom": (mine, "is F8_E4M3) by 'mine', which transformers does not know"),
    "four bits": (settings("config.json", quantization_config={"quant_method": "gptq", "bits": 4}), "transformers cannot open it here (Loading a GPTQ quantized model requires"),
    "a template that is cut off": (words("chat_template.jinja", "{% for m in messages %}{{ m.content "), "its chat template cannot write the question (TemplateSyntaxError: "),
    "a template that refuses": (words("chat_template.jinja", "{{ raise_exception('no system turn') }}"), "(TemplateError: no system turn)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maker(tmp_path_factory.mktemp("text"))("Qwen3")


@pytest.mark.parametrize("name", TEXT_CASES)
def test_what_transformers_does_not_notice_or_explain_is_one_line(
    name: str, text_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(text_model, tmp_path / "mine"))
    change, reason = TEXT_CASES[name]
    change(folder)
    with pytest.raises(CptBenchError) as caught:
        load_processor(folder)
        load_model(folder, device="cpu", attention="eager")
    text = str(caught.value)
    assert text.startswith(str(folder)) and reason in text and "\n" not in text, text


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_part_that_is_not_described_is_not_taken_from_another_model(
    part: str, tmp_path: Path
) -> None:
    """transformers lays out a part of its own default size: a model of billions of weights."""
    folder = maker(tmp_path)("Gemma 3")
    settings("config.json", **{part: None})(folder)
    with pytest.raises(CptBenchError, match=f"config.json: has no {part}, which a model of model_"):
        load_model(folder, device="cpu", attention="eager")


ASKED = [Request(str(i), f"which letter is larger, {i}?", []) for i in range(3)]


@pytest.mark.parametrize(
    "own",
    [
        {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05},
        {"do_sample": False, "temperature": 0.7},
        {"num_beams": 3, "length_penalty": 2.0},
        {"min_new_tokens": 12, "suppress_tokens": [*range(200)], "typical_p": 0.5},
        {"max_length": 20},
    ],
)  # fmt: skip
def test_a_model_s_own_way_to_write_changes_no_reply_and_stays_in_its_checkpoints(
    own: dict[str, Any], text_model: Path, tmp_path: Path
) -> None:
    from cpt_bench.trainers.sft import SFT

    folder = Path(shutil.copytree(text_model, tmp_path / "mine"))
    settings("generation_config.json", **own)(folder)
    plain, mine = (TransformersEngine(p, device="cpu") for p in (text_model, folder))
    assert mine.generate(ASKED, 12) == plain.generate(ASKED, 12)
    stage = make_stage("letters", folder, tmp_path / "stage", suite=load_suite(WORDS))
    SFT(SFT.Config(**{**SUP, "max_steps": 1})).train(stage)
    name = "generation_config.json"
    assert (stage.output / name).read_bytes() == (folder / name).read_bytes()


def test_a_token_that_the_model_does_not_have_is_named(text_model: Path, tmp_path: Path) -> None:
    """The last one of the tokenizer ends every turn."""
    folder = Path(shutil.copytree(text_model, tmp_path / "mine"))
    fewer = json.loads((folder / "config.json").read_text())["vocab_size"] - 1
    settings("config.json", vocab_size=fewer)(folder)
    weights(lambda s: {k: v[:fewer].clone() if "embed" in k else v for k, v in s.items()})(folder)
    with pytest.raises(
        CptBenchError, match=rf"its tokenizer writes token {fewer} \(<\|im_end\|>\)"
    ):
        TransformersEngine(folder, device="cpu").generate(ASKED, 4)
    settings("generation_config.json", eos_token_id=99999)(folder)
    with pytest.raises(CptBenchError, match=r"ends its replies with \[99999\], of "):
        TransformersEngine(folder, device="cpu")


@pytest.mark.parametrize("name", CASES)
def test_the_real_reason_is_given(name: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "mine"))
    change, reason = CASES[name]
    change(folder)
    with pytest.raises(CptBenchError) as caught:
        load_processor(folder)
        load_model(folder, device="cpu", attention="eager")
    text = str(caught.value)
    assert text.startswith(f"{folder}: ") and reason in text and "\n" not in text
    assert "Delete" not in text, "it is the user's"
    assert folder.is_dir()


def test_a_reason_is_not_cut_off(tmp_path: Path, tiny_model: Path) -> None:
    assert "the end" in str(broken(tiny_model, "why " * 200 + "the end"))


def test_what_to_do_depends_on_who_wrote_it(tmp_path: Path) -> None:
    """Only a run's own checkpoint is made again by running the same command again."""
    ours = tmp_path / "run/stages/1-science/checkpoint"
    cached = tmp_path / "hub/models--Org--Name/snapshots" / ("0" * 40)
    for folder in (ours, cached):
        folder.mkdir(parents=True)
    (tmp_path / "run/run.json").write_text("{}")
    assert broken(ours, "x").todo.startswith("Delete it and run the same command again")
    assert broken(cached, "x").todo.startswith(
        "Remove it from the cache (hf cache rm model/Org/Name)"
    )
    assert broken(tmp_path / "mine", "x").todo.startswith("Give a whole checkpoint")


def test_one_model_s_row_stands_alone(cli: Cli, tiny_model: Path) -> None:
    done = cli("eval", tiny_model, "--suite", TINY, "--limit", "2", "--out", "row")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^base ", done.stdout, re.M)
    assert not re.search(r"^\d (science|lowvision|counting)\b", done.stdout, re.M)
    assert "needs" not in done.stdout, "no metric that takes a stage"
