"""Text-only models in every place where a model is taken: the trainers' check, adapters, lm-eval."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

import cpt_bench
from cpt_bench.engines import Request
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.models.checkpoint import load_model, weights_digest
from cpt_bench.models.start import start_of
from cpt_bench.sources import load_split
from cpt_bench.suite import load_suite
from tests.support import hub as fake
from tests.support import places
from tests.support.picture_families import maker

WORDS = load_suite(places.WORDS)
NAME, ADAPTER = "Qwen/Qwen3-4B", "Org/Adapter"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return maker(tmp_path_factory.mktemp("text"))


@pytest.mark.parametrize(("family", "trainer"), [("Llama", "sft"), ("SmolLM2", "rft")])
def test_a_trainer_is_checked_on_a_text_model(
    family: str, trainer: str, models: Callable[[str], Path]
) -> None:
    settings: dict[str, Any] = {"learning_rate": 1e-3, "max_steps": 2, "device": "cpu"}
    settings |= {"prompts_per_step": 2, "rollouts": 4} if trainer == "rft" else {"batch_size": 4}
    found = cpt_bench.check_trainer(
        trainer, settings=settings, suite=places.WORDS, base=models(family)
    )
    wrong = {check.what: check.detail for check in found if check.ok is False}
    # Rollouts of a model that knows nothing earn nothing, and teach nothing.
    assert wrong.keys() <= ({"changes the weights"} if trainer == "rft" else set()), wrong
    assert {"resumes", "honours its seed"} <= {check.what for check in found if check.ok}


# ------------------------------------------------------------------------------------ on the hub


@pytest.fixture(scope="module")
def served(
    models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[fake.Hub]:
    """A text model, an adapter of it, and MMLU-Pro, under the names that they have on the hub."""
    from peft import LoraConfig, get_peft_model

    from tests.support.cpt7_fixtures import MMLU_PRO, make, mmlu_pro, write_repo

    folder = tmp_path_factory.mktemp("served")
    place = Path(shutil.copytree(models("Qwen3"), folder / "models" / NAME))
    # Room for lm-eval's 2,048 tokens of a reply, which here ends with most tokens.
    change(place / "config.json", max_position_embeddings=8192)
    change(place / "generation_config.json", eos_token_id=[*range(80, 300)])
    config = LoraConfig(
        r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    torch.manual_seed(5)
    made = get_peft_model(load_model(place, device="cpu", attention="eager"), config)
    made.save_pretrained(folder / "models" / ADAPTER)
    change(folder / "models" / ADAPTER / "adapter_config.json", base_model_name_or_path=NAME)
    shots = [
        {**row, "cot_content": "A: Let's think step by step. The answer is (A)."}
        for row in make(mmlu_pro, "validation", 5)
    ]
    tables = {("default", "test"): make(mmlu_pro, "test", 3), ("default", "validation"): shots}
    write_repo(folder / "datasets", "TIGER-Lab/MMLU-Pro", tables, MMLU_PRO)
    with fake.serving(folder) as server:
        yield server


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture
def home(served: fake.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    served.forget()
    fake.point_at(served.url, tmp_path / "home", monkeypatch)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "tables")
    return tmp_path


def test_an_adapter_of_a_text_model_is_opened_by_its_name(home: Path, served: fake.Hub) -> None:
    """It brings its base from the hub, answers as the merged model, and is keyed by both."""
    adapter, base = (start_of(WORDS, name, lambda line: None) for name in (ADAPTER, NAME))
    assert served.asked(f"/{NAME}/resolve") and served.asked(f"/{ADAPTER}/resolve")
    assert adapter.sha256 != base.sha256 == weights_digest(served.folder / "models" / NAME)
    card = WORDS.card("letters")
    asked = [
        Request(s.id, WORDS.protocol.prompt(s.question), []) for s in load_split(card, "test")[:3]
    ]
    merged = home / "merged"
    load_model(adapter.folder, device="cpu", attention="eager").save_pretrained(merged)
    for file in base.folder.glob("*token*"):
        shutil.copy(file, merged)
    for file in (*base.folder.glob("*.jinja"), base.folder / "generation_config.json"):
        shutil.copy(file, merged)
    own, whole, plain = (
        TransformersEngine(place, device="cpu").generate(asked, 12)
        for place in (adapter.folder, merged, base.folder)
    )
    assert own == whole != plain


def test_mmlu_pro_is_measured_by_lm_eval(home: Path, served: fake.Hub) -> None:
    """lm-eval's own task and prompts, on data from the hub, with a text model and an adapter of it."""
    pytest.importorskip("lm_eval")
    import lm_eval.tasks

    from cpt_bench.general.lm_eval import measure

    tasks = (
        Path(lm_eval.tasks.__file__).parent / "mmlu_pro"
    )  # its own; to look through all takes long
    replies = []
    for name in (NAME, ADAPTER):
        place = start_of(WORDS, name, lambda line: None).folder
        found = measure("mmlu_pro_law", place, include=tasks, dtype="float32", device="cpu")
        assert found.provenance["backend"] == "hf" and found.provenance["task"] == "mmlu_pro_law"
        assert [row["id"] for row in found.rows] == [f"mmlu_pro_law/{i}" for i in range(3)]
        assert [row["target"] for row in found.rows] == ["A", "B", "C"]
        for row in found.rows:
            letter = re.search(r"answer is \(?([A-J])\)?", row["reply"])
            assert row["score"] == float(letter is not None and letter[1] == row["target"])
        replies.append([row["reply"] for row in found.rows])
    assert served.asked("/datasets/TIGER-Lab/MMLU-Pro/resolve")
    assert all(replies[0]) and replies[0] != replies[1], "the adapter is part of what answers"
