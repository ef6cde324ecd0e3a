"""Trainers given as classes: of a module, of a notebook cell, of nowhere. Nothing is trained here."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import resolve
from cpt_bench.stage.defined import global_names, module_of, spec_of
from cpt_bench.trainer import Privileges, Stage, Trainer, TrainerConfig

IMPORTS = "from cpt_bench.trainer import Privileges, Stage, Trainer, TrainerConfig\n"

MINE = """
class Mine(Trainer):
    class Config(TrainerConfig):
        rate: float = 0.5

    privileges = Privileges(replay_samples_per_task=2)

    def train(self, stage):
        return RATE * helper(stage)
"""


class Notebook:
    """Cells that are run one after the other, as IPython runs them: each a file of linecache's."""

    def __init__(self) -> None:
        self.module = ModuleType("notebook_in_a_test")
        self.module.__dict__["In"] = self.cells = [""]

    def run(self, source: str) -> dict[str, Any]:
        name = f"<cell {len(self.cells)} of {id(self)}>"
        self.cells.append(source)
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(compile(source, name, "exec"), vars(self.module))
        return vars(self.module)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    made = Notebook()
    monkeypatch.setitem(sys.modules, made.module.__name__, made.module)
    monkeypatch.setitem(sys.modules, "__main__", made.module)
    yield made


def remade(trainer: type[Trainer], folder: Path) -> Any:
    """The class as another process gets it: from its spec alone."""
    return resolve("trainers", spec_of(trainer, folder)).value


def test_a_spec_stays_what_it_is(tmp_path: Path) -> None:
    assert spec_of("sft", tmp_path) == "sft"
    assert spec_of("./mine.py:Mine", tmp_path) == "./mine.py:Mine"
    assert not any(tmp_path.iterdir())


class Here(Trainer):
    def train(self, stage: Stage) -> None: ...


def test_a_class_of_a_module_is_found_by_its_name(tmp_path: Path) -> None:
    assert spec_of(Here, tmp_path) == f"{__name__}:Here"
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_class_that_ships_has_the_name_under_which_its_recipes_are(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from cpt_bench.trainers.methods import EWC
    from cpt_bench.trainers.sft import SFT

    assert spec_of(SFT, tmp_path) == "sft" and spec_of(EWC, tmp_path) == "ewc"


def test_a_class_of_a_cell_is_written_with_all_it_uses(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run(IMPORTS + "import math as m, os.path\nfrom functools import partial")
    notebook.run("RATE = 3\nWORDS = {'a': [1, 2.5, None]}\nunused = object()")
    notebook.run("def other(x):\n    return m.floor(x) + len(WORDS)\n\nalias = other")
    notebook.run(
        "def helper(stage, unused=1):\n    return partial(alias, stage)() + [m for m in (1,)][0]"
    )
    found = notebook.run(MINE)["Mine"]
    text = module_of(found)
    assert "unused" not in text.replace("unused=1", "") and "os.path" not in text
    made = remade(found, tmp_path)
    assert made is not found and made.train(None, 2.5) == found.train(None, 2.5) == 3 * (2 + 1 + 1)
    assert made.Config().rate == 0.5 and made.privileges == Privileges(replay_samples_per_task=2)
    # The same source has the same name; another one has another, and another digest.
    spec = spec_of(found, tmp_path)
    assert spec == spec_of(found, tmp_path)
    notebook.run("RATE = 4")
    assert spec_of(found, tmp_path) != spec
    assert (
        len({resolve("trainers", s).origin["sha256"] for s in (spec, spec_of(found, tmp_path))})
        == 2
    )


def test_the_class_as_it_was_run_last(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run(IMPORTS + "RATE, helper = 1, abs")
    first = notebook.run(MINE)["Mine"]
    second = notebook.run(MINE.replace("0.5", "0.25"))["Mine"]
    assert remade(second, tmp_path).Config().rate == 0.25
    assert remade(first, tmp_path).Config().rate == 0.5  # somebody kept it


INHERITING = [
    ("class Mine(Base):\n    pass\n", "no body"),
    ("class Mine(Base):\n    class Config(TrainerConfig):\n        rate: float = 1.5\n", "settings alone"),
    ("@mark\nclass Mine(Base):\n    @property\n    def x(self):\n        return 1\n", "decorated"),
    ("class Mine(Base):\n    @staticmethod\n    def x():\n        return 1\n", "static"),
    ("if True:\n    class Mine(Base):\n        def x(self):\n            return 1\n", "indented"),
    ("class Mine(cpt_bench.Trainer):\n    train = lambda self, stage: 1\n", "lambda"),
    ("class Mine(Base):\n    x = FUNCTION\n", "a lambda of the notebook"),
    ("class Mine(Base):\n    @kept\n    def x(self):\n        return 1\n", "a wrapped method"),
]  # fmt: skip


@pytest.mark.parametrize("source", [s for s, _ in INHERITING], ids=[n for _, n in INHERITING])
def test_classes_of_every_shape(source: str, notebook: Notebook, tmp_path: Path) -> None:
    notebook.run(
        IMPORTS + "import cpt_bench, functools\n"
        "FUNCTION = lambda x: x + 1\n"
        "def mark(cls):\n    cls.marked = True\n    return cls\n"
        "def kept(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return f(*a)\n    return inner\n"
        "class Base(Trainer):\n    def train(self, stage): ...\n"
    )
    found = notebook.run(source)["Mine"]
    made = remade(found, tmp_path)
    assert (
        made.__name__ == "Mine"
        and made.Config.model_json_schema() == found.Config.model_json_schema()
    )
    assert {k for k in vars(made) if k[0] != "_"} == {k for k in vars(found) if k[0] != "_"}


REFUSED = [
    ("RATE = object()", "uses 'RATE' of the notebook, a value of type object, which cannot be written to a file"),
    ("RATE = [object()]", "uses 'RATE' of the notebook, a value of type list"),
    ("RATE = float('nan')", "uses 'RATE' of the notebook, a value of type float"),
    ("def outer():\n    y = 1\n    def inner(x):\n        return y\n    return inner\nhelper = outer()", "is inside another function"),
    ("exec('def helper(x): return x')", "the source of helper cannot be found"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "line"), REFUSED)
def test_what_cannot_be_written_is_one_line(
    source: str, line: str, notebook: Notebook, tmp_path: Path
) -> None:
    notebook.run(IMPORTS + "RATE, helper = 1, abs")
    found = notebook.run(MINE)["Mine"]
    notebook.run(source)
    with pytest.raises(CptBenchError, match="trainer Mine: ") as caught:
        spec_of(found, tmp_path)
    assert line in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_a_class_of_nowhere_is_one_line(notebook: Notebook, tmp_path: Path) -> None:
    space = notebook.run(IMPORTS)
    exec(MINE, space)
    with pytest.raises(CptBenchError, match="trainer Mine: the source of Mine cannot be found"):
        spec_of(space["Mine"], tmp_path)


def test_a_class_inside_a_function_is_one_line(notebook: Notebook, tmp_path: Path) -> None:
    space = notebook.run(
        IMPORTS
        + "def make():\n    class Mine(Trainer):\n        def train(self, s): ...\n    return Mine"
    )
    with pytest.raises(CptBenchError, match="is defined inside a function"):
        spec_of(space["make"](), tmp_path)


def test_a_cell_that_failed_after_an_edit_is_not_taken_for_the_class(
    notebook: Notebook, tmp_path: Path
) -> None:
    """A class without a function is looked for in the cells: the newest one may not be what it was made from."""
    notebook.run(IMPORTS + "class Base(Trainer):\n    def train(self, stage): ...")
    cell = "{}class Mine(Base):\n    class Config(TrainerConfig):\n        rate: float = {}\n"
    found = notebook.run(cell.format("", 1.0))["Mine"]
    with pytest.raises(ZeroDivisionError):
        notebook.run(cell.format("1 / 0\n", 2.0))
    with pytest.raises(CptBenchError, match="its source has changed since the class was defined"):
        spec_of(found, tmp_path)


@pytest.mark.parametrize("value", [3, TrainerConfig, None, object()])
def test_what_is_no_trainer_is_one_line(value: Any, tmp_path: Path) -> None:
    with pytest.raises(CptBenchError, match="is not a trainer"):
        spec_of(value, tmp_path)


def test_names_of_a_source() -> None:
    source = (
        "@deco(flag)\nclass A(Base, metaclass=meta):\n    x: kind = default\n    y = x\n"
        "    def f(self, a=first, *rest):\n        import local\n        b = [c for c in a]\n"
        "        def g():\n            return b, used\n        lambda d: d + also\n        return g, local, A, len\n"
    )
    wanted = {"deco", "flag", "Base", "meta", "kind", "default", "first", "used", "also", "len"}
    assert set(global_names(source)) - {"A"} == wanted
