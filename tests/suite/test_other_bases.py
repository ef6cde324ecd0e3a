"""``SUITE@NAME`` starts from another base model and is the same suite in everything else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.advice.plan import architecture
from cpt_bench.errors import CptBenchError
from cpt_bench.leaderboard.pack import _division, model_name
from cpt_bench.leaderboard.packable import Run as Packable
from cpt_bench.suite import Suite, load_suite, open_suite

OTHERS = "other_bases: {small: small-model, hub: {id: org/name, revision: abc}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """nano with two further base models, of which one is in its folder."""
    folder = tmp_path / "nano"
    left_out = shutil.ignore_patterns("checkpoint", "sister", "__pycache__", "base_row.json")
    shutil.copytree(open_suite("nano").folder, folder, ignore=left_out)
    file = folder / "suite.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("other_bases")]
    file.write_text("\n".join(lines) + f"\n{OTHERS}")
    (folder / "small-model").mkdir()
    return folder


def test_only_the_base_model_differs(folder: Path) -> None:
    own, small = load_suite(folder), load_suite(folder.with_name("nano@small"))
    assert small.base_path() == folder / "small-model" and own.base_path() != small.base_path()
    assert small.fingerprint() == own.fingerprint() == open_suite("nano").fingerprint()
    assert (small.cards, small.protocol) == (own.cards, own.protocol)
    assert load_suite(small.place) == small  # what a worker opens
    assert small.label == "nano-small"
    assert load_suite(folder.with_name("nano@hub")).base_model.revision == "abc"


def test_a_package_holds_the_suite_s_own_base_model_alone(tmp_path: Path) -> None:
    gym = open_suite("gym")
    copy = Path(shutil.copytree(gym.folder, tmp_path / "gym"))
    with (copy / "suite.yaml").open("a") as file:
        file.write(OTHERS)
    hub = load_suite(copy.with_name("gym@hub"))
    assert gym.base_package is not None and hub.base_package is None
    assert hub.base_path() == Path("org/name")
    assert hub.fingerprint() == gym.fingerprint()


def test_a_plan_does_not_count_the_suite_s_own_base_model(folder: Path) -> None:
    config = open_suite("nano").base_path() / "config.json"
    shutil.copy(config, folder / "base_config.json")
    assert architecture(load_suite(folder)) == architecture(open_suite("nano"))
    with pytest.raises(CptBenchError, match="nothing is known of base model 'small-model'"):
        architecture(load_suite(folder.with_name("nano@small")))


@pytest.mark.parametrize(
    ("tag", "complaint"),
    [
        ("smal", "no protocol, tier or base model is called 'smal'. Did you mean 'small'?"),
        ("small+hub", "names two protocols, two tiers or two base models"),
    ],
)
def test_a_wrong_name_is_one_line(folder: Path, tag: str, complaint: str) -> None:
    with pytest.raises(CptBenchError, match=complaint):
        load_suite(folder.with_name(f"nano@{tag}"))


def test_its_entries_are_open_and_name_it(folder: Path) -> None:
    def packable(suite: Suite) -> Packable:
        facts = {"base": {"path": suite.base_model.id, "weights": "c" * 64}}
        none: Any = None
        return Packable(Path(), suite, facts, none, none, [])

    own, small = load_suite(folder), load_suite(folder.with_name("nano@small"))
    assert (model_name(packable(own)), _division(packable(own))) == ("nano-base", "closed")
    assert (model_name(packable(small)), _division(packable(small))) == ("nano-small", "open")
