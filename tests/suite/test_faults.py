"""What a newcomer's suite gets wrong, each in one line and as early as it can be known."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.grading import MATCHERS, grade
from cpt_bench.sources import load_split
from cpt_bench.sources.loading import require_prepared
from cpt_bench.sources.opened import opened_files
from cpt_bench.stage.recipes import configure, of_suite, other_recipes, recipes
from cpt_bench.suite import AnswerForm, Sample, Suite, load_suite
from cpt_bench.suite.reading import absolute_spec
from cpt_bench.trainer import Trainer, TrainerConfig
from tests.support.commands import here
from tests.support.places import ROOT


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "examples/suite", tmp_path / "mine/tri"))


def edit(folder: Path, file: str, old: str, new: str) -> Suite:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    return load_suite(folder)


# ---------------------------------------------------------------------------------------- forms

PLAIN = AnswerForm(open="<answer>", close="</answer>")


@pytest.mark.parametrize(
    ("reply", "score", "format_ok", "lenient"),
    [
        ("<answer>4</answer>", 1, True, 1),
        ("4", 0, False, 1),
        ("so <answer>4</answer>", 0, False, 1),
        ("<answer>5</answer>", 0, True, 0),
        ("<answer>**4**</answer>", 0, True, 1),
        ("<think>4</think><answer>4</answer>", 0, False, 1),  # the form has no thought
        ("", 0, False, 0),
    ],
)
def test_a_form_without_a_thought(reply: str, score: int, format_ok: bool, lenient: int) -> None:
    sample = Sample(id="1", question="2+2", answers=("4",), kind="number")
    got = grade(reply, sample, PLAIN, MATCHERS["number"])
    assert (got.score, got.format_ok, got.lenient) == (score, format_ok, lenient)


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ({"open": "<a>", "close": "</a>", "thought": ("<t>", "")}, "thought has one tag"),
        ({"open": "<a>", "close": "</a>", "thought": ("", "</t>")}, "thought has one tag"),
        ({"open": "<a>"}, "open and close are needed"),
        ({}, "open and close are needed"),
        ({"kind": "boxed"}, "open and close are needed"),
    ],
)
def test_half_a_form_is_refused(form: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AnswerForm(**form)


# -------------------------------------------------------------------------------------- samples


def test_a_split_without_a_hash_names_the_command_that_writes_it(own: Path) -> None:
    suite = edit(own, "sums.yaml", "sha256: d1d3ba1491b82476a67843c2eaa842f67ec727564ae308906567f57fdb011f43", "sha256: null")  # fmt: skip
    for refused in (
        lambda: load_split(suite.card("sums"), "test"),
        lambda: require_prepared(suite, str(own)),
    ):
        with pytest.raises(CptBenchError, match="the test split has no sha256") as caught:
            refused()
        assert f"cptbench suite check {own} --pin" in str(caught.value)
    assert len(load_split(suite.card("sums"), "test", check=False)) == 50
    shown = here(own.parent, "show", "tri/sums", "--samples", 1)
    assert shown.returncode == 0 and "suite check --pin" in shown.stdout
    assert "-> 51" in shown.stdout


def test_changed_samples_of_ones_own_suite_do_not_ask_for_another_cptbench(own: Path) -> None:
    suite = edit(own, "samples.py", "randrange(10, 50)", "randrange(10, 51)")
    with pytest.raises(CptBenchError, match="differs from the published one") as caught:
        load_split(suite.card("sums"), "test")
    assert "Reinstall" not in str(caught.value) and "raise the card's version" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("import random", "import randum", "ModuleNotFoundError: No module named 'randum'"),
        ("def make(", "def mace(", "has no 'make'. Did you mean 'mace'?"),
        ("task: str", "tasc: str", "samples.py:make failed (TypeError"),
        ("return list(samples.values())", "return list(samples)", "returned str, not cpt_bench.suite.Sample"),
        ("return list(samples.values())", "return None", "failed (TypeError: 'NoneType'"),
        ('answers=(answer,)', 'answers=()', "failed (ValidationError"),
    ],
)  # fmt: skip
def test_a_generator_that_fails_is_one_line(own: Path, old: str, new: str, complaint: str) -> None:
    edit(own, "samples.py", old, new)
    done = here(own, "show", f"{own}/sums", "--samples", 1)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert complaint in done.stderr


def test_what_a_generator_opens_is_found(tmp_path: Path) -> None:
    """Read by open, by Path and by os.open; not what is written, nor code, nor fonts."""
    for name in ("a.json", "b.csv", "c.bin", "font.ttf", "code.py"):
        (tmp_path / name).write_text("{}")
    with opened_files("./samples.py:make") as found:
        (tmp_path / "a.json").open().close()
        (tmp_path / "b.csv").read_text()
        os.close(os.open(tmp_path / "c.bin", os.O_RDONLY))
        (tmp_path / "font.ttf").read_bytes()
        (tmp_path / "code.py").read_bytes()
        (tmp_path / "written").write_text("")
        Path("/etc/passwd").read_text()
    (tmp_path / "a.json").read_text()
    assert found == {tmp_path / name for name in ("a.json", "b.csv", "c.bin")}


def test_what_a_card_names_is_closed_to_trainers(own: Path) -> None:
    bank = own.parent / "bank"
    bank.mkdir()
    (bank / "gold.h5").touch()
    (own / "table.parquet").touch()
    assert load_suite(own).card("sums").places() == []  # 'sums' is an option, and no file
    edit(own, "sums.yaml", "{task: sums}}", "{task: sums, from: table.parquet, at: .}, files: [../bank]}")  # fmt: skip
    assert load_suite(own).card("sums").places() == [bank, own / "table.parquet"]


# --------------------------------------------------------------------------------------- names


def test_show_understands_every_way_to_name_a_suite_or_its_task(own: Path) -> None:
    for name in ("mine/tri", "./mine/tri", "mine/tri/", str(own)):
        done = here(own.parent.parent, "show", name)
        assert done.returncode == 0 and done.stdout.startswith("mysuite 1.0"), done.stderr
    done = here(own.parent.parent, "show", "mine/tri/sums")
    assert done.returncode == 0 and done.stdout.startswith("mysuite/sums v1")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("mine/tri/sumz", "suite mysuite has no task 'sumz'. Did you mean 'sums'?"),
        ("mine", "mine: has no suite.yaml. There is: mine/tri"),
        ("mine/empty", "mine/empty: has no suite.yaml. Name the folder that holds one"),
        ("nowhere/tri", "'nowhere/tri' is neither a suite nor a task of one"),
        ("nanoo", "no suite is called 'nanoo'. Did you mean 'nano'?"),
    ],
)
def test_a_name_that_is_not_one_is_explained(own: Path, name: str, complaint: str) -> None:
    (own.parent / "empty").mkdir()
    done = here(own.parent.parent, "show", name)
    assert done.returncode == 2 and complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("grader", "complaint"),
    [
        ("numbr", "task sums: no grader is called 'numbr'. Did you mean 'number'?"),
        ("./grading.py:score", "grading.py: no such file"),
        ("./samples.py:score", "has no 'score'"),
        ("./samples.py:random", "is not a function"),
        ("other/score", "no grader is called 'other/score'"),
    ],
)
def test_an_unknown_grader_is_found_before_anything_is_trained(
    own: Path, grader: str, complaint: str
) -> None:
    edit(own, "sums.yaml", "grader: number", f"grader: {grader}")
    for command in (
        ("show", f"{own}/sums"),
        ("run", "--suite", own, "--base", own, "--trainer", "sft", "--set", "learning_rate=1"),
    ):
        done = here(own.parent, *command)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert complaint in done.stderr


def test_a_grader_next_to_the_card_is_found_from_anywhere(own: Path) -> None:
    (own / "grading.py").write_text("def score(answer, sample):\n    return 0.25\n")
    suite = edit(own, "sums.yaml", "grader: number", "grader: ./grading.py:score")
    assert suite.card("sums").model_dump()["grader"] == "./grading.py:score"
    assert suite.card("sums").located().grader == f"{own}/grading.py:score"
    assert (
        matcher_of(suite.card("sums"))("7", Sample(id="1", question="?", answers=("8",), kind="n"))
        == 0.25
    )


def test_a_suite_given_as_a_folder_is_stored_with_its_absolute_path(
    own: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(own.parent)
    assert absolute_spec("tri") == absolute_spec("./tri") == str(own)
    assert absolute_spec("tri@mini") == f"{own}@mini"
    assert absolute_spec("nano") == "nano" and absolute_spec("cpt7@mini") == "cpt7@mini"


# -------------------------------------------------------------------------------------- recipes


class Mine(Trainer):
    class Config(TrainerConfig):
        learning_rate: float


def test_a_missing_setting_names_the_suites_that_have_a_recipe(own: Path) -> None:
    with pytest.raises(CptBenchError, match="learning_rate: Field required") as caught:
        configure(Mine, {}, [], other_recipes("mysuite", "sft"))
    known = recipes()
    assert "nano/sft" in known
    first = next(name for name in known if name.endswith("/sft"))
    assert str(caught.value).endswith(
        f"Give --set learning_rate=VALUE or --recipe {first}: suite mysuite has no recipe of sft"
    )


def test_a_suite_may_bring_recipes_of_its_own(own: Path) -> None:
    assert of_suite(own, "sft") is None and of_suite(None, "sft") is None
    (own / "recipes").mkdir()
    (own / "recipes/sft.yaml").write_text("learning_rate: 1e-3\n")
    assert of_suite(own, "sft") == {"learning_rate": 1e-3}
