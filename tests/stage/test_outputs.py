"""A stage is committed only when its checkpoint opens and answers, on the prompts of the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.engines.swapping import difference, frame
from cpt_bench.errors import TrainerFault
from cpt_bench.files import read_jsonl
from cpt_bench.stage.outputs import set_aside
from tests.support.made_trainers import make_plan, train
from tests.support.questions import questions

LOAD = "import safetensors.torch as st, json; copy(stage); f = stage.output / 'model.safetensors'; w = st.load_file(f); "
SAVE = "; st.save_file(w, f, metadata={'format': 'pt'})"
NAME = "next(n for n in sorted(w) if n.endswith('layers.1.mlp.up_proj.weight'))"
UNUSABLE = {
    "no tokenizer": "copy(stage); [p.unlink() for p in stage.output.glob('tokenizer*')]",
    "no tokenizer.json": "copy(stage); (stage.output / 'tokenizer.json').unlink()",
    "no processor": "copy(stage); (stage.output / 'processor_config.json').unlink()",
    "a tensor less": f"{LOAD}del w[{NAME}]{SAVE}",
    "another shape": f"{LOAD}n = {NAME}; w[n] = w[n][:, :-1].contiguous(){SAVE}",
    "empty settings": "copy(stage); (stage.output / 'config.json').write_text('{}')",
    "no settings": "copy(stage); (stage.output / 'config.json').unlink()",
    "settings that are no JSON": "copy(stage); (stage.output / 'config.json').write_text('{')",
    "an unknown kind of model": "import json; copy(stage); f = stage.output / 'config.json'; f.write_text(json.dumps({**json.loads(f.read_text()), 'model_type': 'none'}))",
    "fewer words than the tokenizer has": f"{LOAD}c = stage.output / 'config.json'; j = json.loads(c.read_text()); j['text_config']['vocab_size'] = 300; c.write_text(json.dumps(j)); n = next(n for n in w if n.endswith('embed_tokens.weight')); w[n] = w[n][:300].contiguous(){SAVE}",
}  # fmt: skip


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_checkpoint_that_does_not_answer_is_a_fault(
    what: str,
    trainer: Callable[..., str],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainerFault) as caught:
        train(make_plan(tmp_path, tiny_model, trainer(UNUSABLE[what])), folder)
    message = str(caught.value)
    assert caught.value.kind == "broken"
    assert "does not open and answer" in message or "wrote a checkpoint without a" in message
    assert len(message.splitlines()) == 1 and "run the same command again" not in message
    row = read_jsonl(folder / "failures.jsonl")[-1]
    assert (row["kind"], row["stage"]) == ("broken", 1)
    assert not (folder / "stages/1-science/checkpoint").exists()
    assert not [*(folder / "ledger").glob("stage-1.train.json")]


def test_what_a_hugging_face_trainer_saves_besides_is_not_the_checkpoint(
    trainer: Callable[..., str],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """Its state, its own checkpoints, pickles among them: by default it leaves all of these."""
    body = (
        "import torch; copy(stage); own = stage.output / 'checkpoint-5'; shutil.copytree(stage.policy, own); "
        "[torch.save({}, place / name) for place in (stage.output, own) "
        "for name in ('training_args.bin', 'optimizer.pt', 'scheduler.pt', 'rng_state_0.pth', 'scaler.pt')]; "
        "(stage.output / 'trainer_state.json').write_text('{}')"
    )
    folder = tmp_path / "run"
    train(make_plan(tmp_path, tiny_model, trainer(body)), folder)
    left = {p.name for p in (folder / "stages/1-science/checkpoint").rglob("*")}
    assert left == {p.name for p in tiny_model.iterdir()} | {"trainer_state.json"}
    assert not [*(folder / "stages/1-science").rglob("*.p*t*")]


def test_a_folder_that_is_already_there_is_no_obstacle(tmp_path: Path) -> None:
    out, place = tmp_path / "out", tmp_path / "aside"
    (out / "checkpoint-1").mkdir(parents=True)
    (out / "training_args.bin").write_bytes(b"x")
    (out / "model.safetensors").write_bytes(b"x")
    set_aside(out, place)
    assert [p.name for p in out.iterdir()] == ["model.safetensors"]
    assert {p.name for p in place.iterdir()} == {"checkpoint-1", "training_args.bin"}
    set_aside(out, tmp_path / "none")
    assert not (tmp_path / "none").exists()


JSON = "import json; copy(stage); f = stage.output / '{file}'; f.write_text(json.dumps({{**json.loads(f.read_text()), **{values}}}))"
PROMPTS = {
    "chat_template.jinja (it fails)": "copy(stage); (stage.output / 'chat_template.jinja').write_text('{{ 1 / 0 }}')",
    "chat_template.jinja": "copy(stage); f = stage.output / 'chat_template.jinja'; f.write_text('<|im_start|>system\\nBe brief.<|im_end|>' + f.read_text())",
    "processor_config.json": "import json; copy(stage); f = stage.output / 'processor_config.json'; j = json.loads(f.read_text()); j['image_processor']['image_mean'] = [0.1] * 3; f.write_text(json.dumps(j))",
    "tokenizer.json": "import json; copy(stage); f = stage.output / 'tokenizer.json'; j = json.loads(f.read_text()); j['pre_tokenizer'] = None; f.write_text(json.dumps(j))",
    "added_tokens.json": "copy(stage); (stage.output / 'added_tokens.json').write_text('{}')",
    "no chat_template.jinja": "copy(stage); f = stage.output / 'chat_template.jinja'; t = f.read_text(); f.unlink(); import json; c = stage.output / 'tokenizer_config.json'; c.write_text(json.dumps({**json.loads(c.read_text()), 'chat_template': t}))",
}  # fmt: skip


@pytest.mark.parametrize("what", PROMPTS)
def test_prompts_and_pictures_are_read_as_by_the_start_checkpoint(
    what: str,
    trainer: Callable[..., str],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """Whatever template, tokenizer or processor a trainer writes; and the run says so."""
    events: list[dict[str, Any]] = []
    folder = tmp_path / "run"
    train(make_plan(tmp_path, tiny_model, trainer(PROMPTS[what])), folder, events=events)
    checkpoint = folder / "stages/1-science/checkpoint"
    assert difference(frame(tiny_model), frame(checkpoint)) is None
    asked = questions(1)
    assert TransformersEngine(checkpoint, device="cpu").generate(asked, 8) == TransformersEngine(
        tiny_model, device="cpu"
    ).generate(asked, 8)
    facts = json.loads((folder / "ledger/stage-1.train.json").read_text())["facts"]
    name = what.removeprefix("no ").split()[0]
    assert name in facts["prompt_files_replaced"]
    lines = [e["line"] for e in events if e["kind"] == "warning"]
    assert len(lines) == 1 and name in lines[0] and "the protocol fixes" in lines[0]


def test_settings_that_change_no_prompt_are_left_alone(
    trainer: Callable[..., str],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    events: list[dict[str, Any]] = []
    body = JSON.format(file="tokenizer_config.json", values="{'is_local': True, 'padding_side': 'right'}")  # fmt: skip
    train(make_plan(tmp_path, tiny_model, trainer(body)), tmp_path / "run", events=events)
    written = tmp_path / "run/stages/1-science/checkpoint/tokenizer_config.json"
    assert json.loads(written.read_text())["is_local"] is True
    assert not [e for e in events if e["kind"] == "warning"]
