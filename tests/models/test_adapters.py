"""An adapter that does not fit its base is refused, and so are weights that are not numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from cpt_bench.errors import CptBenchError
from cpt_bench.models.checkpoint import load_model
from cpt_bench.suite import load_suite

TINY = Path(__file__).parents[1] / "support/tiny"
State = dict[str, torch.Tensor]


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    """A LoRA adapter of the tiny model's attention, with B matrices that change something."""
    model = load_model(tiny_model, device="cpu", attention="eager")
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(tiny_model)})
    )
    return tmp_path / "adapter"


def change(folder: Path, how: Callable[[State], State]) -> None:
    file = next(folder.glob("*.safetensors"))
    save_file(how(load_file(file)), file, metadata={"format": "pt"})


def renamed(old: str, new: str) -> Callable[[State], State]:
    return lambda state: {name.replace(old, new): tensor for name, tensor in state.items()}


def test_an_adapter_that_fits_changes_the_model(adapter: Path, tiny_model: Path) -> None:
    base = load_model(tiny_model, device="cpu", attention="eager").state_dict()
    merged = load_model(adapter, device="cpu", attention="eager").state_dict()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)


MISFITS: dict[str, tuple[Callable[[State], State], str]] = {
    "another model's keys": (renamed("language_model.", ""), r"^.*: (\d+) of the adapter's \1 tensors"),
    "no prefix": (renamed("base_model.model.", ""), "tensors have no place in the model"),
    "a layer too many": (
        lambda s: {**s, **{k.replace("layers.0", "layers.99"): v.clone() for k, v in s.items() if "layers.0" in k}},
        "tensors have no place in the model, among them .*layers.99",
    ),
    "half of it": (
        lambda s: {k: v for k, v in s.items() if "v_proj" not in k},
        "places of the adapter have no tensor among its",
    ),
    "one matrix of a pair": (
        lambda s: {k: v for k, v in s.items() if "lora_B" not in k},
        "places of the adapter have no tensor among its",
    ),
    "nothing": (lambda s: {}, "places of the adapter have no tensor among its 0"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISFITS)
def test_an_adapter_that_does_not_fit_is_refused(what: str, adapter: Path) -> None:
    how, complaint = MISFITS[what]
    change(adapter, how)
    with pytest.raises(CptBenchError, match=complaint) as caught:
        load_model(adapter, device="cpu", attention="eager")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(
    value: float, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)

    def spoiled(state: State) -> State:
        name = sorted(state)[3]
        state[name].view(-1)[0] = value
        return state

    change(folder, spoiled)
    with pytest.raises(CptBenchError, match="holds NaN or infinite weights"):
        load_model(folder, device="cpu", attention="eager")


def test_an_adapter_that_is_not_finite_is_refused(adapter: Path) -> None:
    def spoiled(state: State) -> State:
        return {name: torch.full_like(tensor, torch.nan) for name, tensor in state.items()}

    change(adapter, spoiled)
    with pytest.raises(CptBenchError, match="holds NaN or infinite weights"):
        load_model(adapter, device="cpu", attention="eager")


@pytest.mark.slow
def test_eval_says_so_in_one_line(adapter: Path, cli: Any) -> None:
    """Without this the base's predictions came out: 'no forgetting'."""
    change(adapter, renamed("language_model.", ""))
    done = cli("eval", str(adapter), "--limit", "2", "--out", str(adapter.parent / "run"))
    assert done.returncode == 2
    assert "have no place in the model" in done.stderr and "Traceback" not in done.stderr


def poison(folder: Path, value: float) -> None:
    def spoiled(state: State) -> State:
        state[sorted(state)[3]].view(-1)[0] = value
        return state

    change(folder, spoiled)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_eval_of_weights_that_are_no_numbers_is_one_line(
    value: float, tiny_model: Path, tmp_path: Path, cli: Any
) -> None:
    """0 %, replies of '!', and exit status 0 before."""
    shutil.copytree(tiny_model, tmp_path / "model")
    poison(tmp_path / "model", value)
    done = cli(
        "eval", str(tmp_path / "model"), "--suite", str(TINY), "--limit", "2", "--out", "run"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [x for x in done.stderr.splitlines() if "NaN or infinite" in x]
    assert str(tmp_path / "model") in line
    assert not [*(tmp_path / "run").rglob("*.jsonl")], "no predictions"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["an adapter that does not fit", "a NaN"])
def test_stages_of_a_broken_model_are_refused(
    what: str, adapter: Path, tiny_model: Path, tmp_path: Path, cli: Any
) -> None:
    """The base's own replies after each stage looked like no forgetting."""
    stages = tmp_path / "stages"
    for number in range(1, len(load_suite(TINY).sequence) + 1):
        last = stages / f"stage-{number}"
        shutil.copytree(tiny_model if what == "a NaN" else adapter, last)
    if what == "a NaN":
        poison(last, float("nan"))
    else:
        change(last, renamed("language_model.", ""))
    done = cli(
        "eval", "--base", str(tiny_model), "--stages", f"{stages}/stage-*", "--suite", str(TINY),
        "--limit", "2", "--out", "run",
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    wanted = "NaN or infinite" if what == "a NaN" else "have no place in the model"
    (line,) = [x for x in done.stderr.splitlines() if wanted in x]
    assert str(last) in line
    matrix = tmp_path / "run/metrics.json"
    assert not matrix.exists() or json.loads(matrix.read_text())["matrix"]["accuracy"][-1].count(
        None
    )
