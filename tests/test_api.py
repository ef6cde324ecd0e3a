"""``import cpt_bench``: light, typed, the same as the command line; results that show themselves."""

from __future__ import annotations

import doctest
import inspect
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import cpt_bench
from cpt_bench import api
from cpt_bench.errors import CptBenchError
from cpt_bench.report.progress import Lines
from cpt_bench.report.result import Comparison, Result
from tests.support.commands import SFT
from tests.support.places import TINY
from tests.support.simulated import write_run

Cli = Callable[..., subprocess.CompletedProcess[str]]

N = 8
"""Samples of a split in the made-up runs."""

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m[bold]x"


# ------------------------------------------------------------------------------------- the import


def modules_after(code: str) -> set[str]:
    show = "import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {show}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_it_imports_nothing_else() -> None:
    """Modules, not seconds: what is not imported takes no time on any machine."""
    new = modules_after("import cpt_bench") - modules_after("import importlib, typing")
    assert new <= {"cpt_bench", "__future__", "typing", "types"}


def test_no_function_needs_torch_to_be_there() -> None:
    found = modules_after(
        f"import cpt_bench; {', '.join(f'cpt_bench.{n}' for n in cpt_bench.__all__)}"
    )
    assert not found & {"torch", "transformers", "trl", "datasets", "scipy", "pandas", "matplotlib"}


def test_every_name_is_there_and_documented() -> None:
    assert {"run", "evaluate", "compare", "load", "open_suite"} <= set(cpt_bench.__all__)
    assert set(cpt_bench.__all__) <= set(dir(cpt_bench))
    for name in cpt_bench.__all__:
        assert inspect.getdoc(getattr(cpt_bench, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'rum'"):
        _ = cpt_bench.rum  # type: ignore[attr-defined]


def test_functions_are_typed_and_have_an_example() -> None:
    for name in api.__all__:
        function = getattr(cpt_bench, name)
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, name
        assert all(p.annotation is not p.empty for p in signature.parameters.values()), name
        if name != "open_suite":
            assert ">>> " in (inspect.getdoc(function) or ""), name


def test_the_function_run_keeps_its_name_when_the_package_run_is_imported() -> None:
    code = (
        "import cpt_bench; from cpt_bench.run.plan import Plan; import cpt_bench.run.request; "
        "from cpt_bench.run import naming; from cpt_bench import run; "
        "assert callable(cpt_bench.run) and run is cpt_bench.run and naming.run_name"
    )
    modules_after(code)


def test_the_command_line_offers_every_argument_of_run_and_evaluate() -> None:
    """And the other way round: neither can do what the other cannot."""
    from cpt_bench.cli import evaluate, run

    renamed = {"set_": "settings", "privilege": "privileges", "engine_set": "engine_settings",
               "verbose": "progress", "json_": "progress"}  # fmt: skip
    for command, function in ((run.run, cpt_bench.run), (evaluate.evaluate, cpt_bench.evaluate)):
        options = {renamed.get(name, name) for name in inspect.signature(command).parameters}
        assert options | {"progress"} == set(inspect.signature(function).parameters)


# ------------------------------------------------------------------------------- results and tables


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "runs"
    write_run(root / "good", decay=0.02, limit=N)
    write_run(root / "good-1", decay=0.02, seed=1, limit=N)
    write_run(root / "bad", trainer="sft", decay=0.1, limit=N)
    return root


@pytest.fixture(scope="module")
def comparison(runs: Path) -> Comparison:
    return cpt_bench.compare(runs)


@pytest.fixture(scope="module")
def result(runs: Path) -> Result:
    return cpt_bench.load(runs / "good")


def test_a_loaded_run(result: Result, runs: Path) -> None:
    assert result.folder == runs.resolve() / "good" and result.spent is None and result.seed == 0
    assert result.matrix.accuracy.shape == (8, 7) and len(result.matrix.tasks) == 7
    assert result.metrics["AvgAcc"]["value"] == pytest.approx(result.matrix.accuracy[-1].mean())
    assert result.value("AvgAcc") == result.metrics["AvgAcc"]["value"]
    assert result.missing == []


def test_predictions_are_those_that_the_matrix_counts(result: Result) -> None:
    for stage, column in ((0, 0), (3, 2), (7, 6)):
        task = result.matrix.tasks[column]
        rows = result.predictions(stage, task)
        assert len(rows) == N and {"id", "question", "answers", "reply", "score"} <= rows[0].keys()
        share = 100 * sum(row["score"] for row in rows) / len(rows)
        assert share == pytest.approx(result.matrix.accuracy[stage, column])
    right = [row for row in rows if row["score"] == 1]
    assert right and all(row["answers"][0] in row["reply"] for row in right)
    assert result.predictions(7, "knowledge")  # a general benchmark


@pytest.mark.parametrize(
    ("stage", "task", "line"),
    [
        (8, "text", "there is no stage 8. Give 0 (the base model) to 7"),
        (-1, "text", "there is no stage -1"),
        ("text", "text", "there is no stage 'text'"),
        (1, "txt", "has no task 'txt'. Did you mean 'text'?"),
    ],
)
def test_predictions_that_are_not_there(stage: int, task: str, line: str, result: Result) -> None:
    with pytest.raises(CptBenchError) as caught:
        result.predictions(stage, task)
    assert line in str(caught.value)


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", limit=N)
    (folder / "stages/7-counting/predictions/text.jsonl").unlink()
    found = cpt_bench.load(folder)
    assert found.missing == ["R[7][2]: text after stage 7 (counting)"]
    assert np.isnan(found.matrix.accuracy[7, 1]) and np.isnan(found.value("AvgAcc"))
    assert "·" in repr(found) and "·" in found._repr_html_()
    with pytest.raises(CptBenchError, match="text was not evaluated after stage 7"):
        found.predictions(7, "text")


def test_a_result_shows_itself_on_a_terminal(result: Result) -> None:
    lines = repr(result).splitlines()
    assert lines[0].startswith("nano: rft, seed 0  ")
    final = next(line for line in lines if line.startswith("7 counting"))
    shown = [float(x) for x in final.split()[2:]]
    assert shown[:7] == pytest.approx(result.matrix.accuracy[-1], abs=0.051)
    assert any(line.startswith("AvgAcc") for line in lines)
    assert "\x1b" not in repr(result)


def test_a_result_shows_itself_in_a_notebook(result: Result) -> None:
    page = ET.fromstring(f"<div>{result._repr_html_()}</div>".replace("·", "."))
    matrix, metrics = page.findall("table")
    rows = matrix.findall("tbody/tr")
    assert len(rows) == 8
    cells = ["".join(cell.itertext()) for cell in rows[-1].findall("td")]
    assert [float(c) for c in cells[:7]] == pytest.approx(result.matrix.accuracy[-1], abs=0.051)
    assert {row.find("th").text for row in metrics.findall("tbody/tr")} >= {"AvgAcc", "FM"}


def test_nothing_that_a_run_s_record_holds_is_taken_for_markup(tmp_path: Path) -> None:
    found = cpt_bench.load(write_run(tmp_path / "[red]run", trainer=HOSTILE, limit=N))
    for text in (found._repr_html_(), repr(found), cpt_bench.compare(found)._repr_html_()):
        assert "\x1b" not in text and "\u202e" not in text
        assert text == repr(found) or "<script" not in text
    assert "[bold]x" in repr(found)
    assert "[red]run" in repr(found).replace("\n", "")  # a long path goes over two lines


def test_a_report_of_one_run(result: Result, tmp_path: Path) -> None:
    written = result.report(tmp_path / "deep/page.html")
    assert written == tmp_path / "deep/page.html"
    assert written.read_text(encoding="utf-8").startswith("<!")


@pytest.mark.slow
def test_comparing(runs: Path, result: Result, tmp_path: Path) -> None:
    found = cpt_bench.compare(runs)
    assert (
        isinstance(found, Comparison)
        and found.methods == ["sft", "rft"]
        and len(found.folders) == 3
    )
    same = cpt_bench.compare([runs / "bad", result, str(runs / "good-1")])
    assert same.data["methods"] == found.data["methods"] and repr(same) == repr(found)
    mean = (result.value("FM") + cpt_bench.load(runs / "good-1").value("FM")) / 2
    assert found.value("rft", "FM") == pytest.approx(mean)
    assert "Differences from rft" in repr(found)
    assert "Differences from sft" in repr(cpt_bench.compare(runs, against="sft"))
    assert "<table" in found._repr_html_() and found.markdown().startswith("### nano")
    assert found.latex().startswith("%") and "<html" in found.page()
    assert found.report(tmp_path / "all.html").is_file()
    with pytest.raises(CptBenchError, match="no method is called 'rtf'"):
        found.value("rtf", "FM")
    with pytest.raises(CptBenchError, match="no metric is called 'FN'"):
        found.value("rft", "FN")


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda runs: cpt_bench.compare([]), "no run to compare"),
        (lambda runs: cpt_bench.compare(runs / "none"), "neither a run folder nor a folder of runs"),
        (lambda runs: cpt_bench.compare(runs, against="rtf"), "no method is called 'rtf'. Did you mean 'rft'?"),
        (lambda runs: cpt_bench.load(runs), "holds 3 runs. Give one of them, bad for example"),
        (lambda runs: cpt_bench.load(runs / "none"), "neither a run folder nor a folder of runs"),
        (lambda runs: cpt_bench.load(runs / "good").value("AvgAc"), "no metric is called 'AvgAc'. Did you mean 'AvgAcc'?"),
        (lambda runs: cpt_bench.open_suite("nanu"), "no suite is called 'nanu'"),
    ],
)  # fmt: skip
def test_mistakes(wrong: Callable[[Path], object], line: str, runs: Path) -> None:
    with pytest.raises(cpt_bench.CptBenchError) as caught:
        wrong(runs)
    assert line in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_mistake_in_a_notebook_is_one_line_too() -> None:
    pytest.importorskip("IPython")
    code = "import cpt_bench; cpt_bench.open_suite('nanu')"
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip() == "cptbench: no suite is called 'nanu'. Did you mean 'nano'?"


def test_the_commands_show_the_same_tables(
    comparison: Comparison, runs: Path, result: Result, cli: Cli
) -> None:
    done = cli("score", runs / "good")
    assert done.returncode == 0
    tables = [line.rstrip() for line in done.stdout.splitlines()]
    for line in repr(result).splitlines()[1:]:
        assert line in tables
    done = cli("compare", runs)
    assert [line.rstrip() for line in done.stdout.strip().splitlines()] == repr(
        comparison
    ).splitlines()


def test_events_as_lines() -> None:
    lines: list[str] = []
    shown = Lines(lines.append)
    shown({"kind": "begin", "title": "t", "folder": "f", "tasks": ["a", "b"], "general": ["g"]})
    shown({"kind": "train", "stage": 1, "task": "a", "step": 1, "steps": 2})
    shown({"kind": "trained", "stage": 1, "task": "a", "reused": "other"})
    for name in ("a", "b", "g"):
        shown({"kind": "cell", "stage": 0, "name": name, "accuracy": 50.0, "n": 2})
    shown({"kind": "output", "line": "hidden"})
    assert lines == [
        "t → f", "stage 1 trained on a (from other)", "stage 0 evaluated: a 50.0, b 50.0, g 50.0",
    ]  # fmt: skip
    shown.verbose = True
    shown({"kind": "output", "line": "seen"})
    assert lines[-1] == "  seen"


# ------------------------------------------------------------------------------------------ real runs


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.slow
def test_the_examples_of_the_docstrings_run(there: Path) -> None:
    """In their order, in one folder: a run, an evaluation, then both are read and compared."""
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for name in ("run", "evaluate", "load", "compare", "check_trainer"):
        for test in finder.find(getattr(api, name), name, globs={}):
            assert test.examples
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 12


@pytest.mark.slow
def test_the_api_and_the_command_are_the_same_run(
    finished: Path, tiny_model: Path, there: Path, cli: Cli
) -> None:
    """The same numbers, and either continues what the other began."""
    settings = [text for flag, text in zip(SFT[2::2], SFT[3::2], strict=True) if flag == "--set"]
    events: list[str] = []
    found = cpt_bench.run(
        TINY, "sft", settings=settings, base=tiny_model, out="mine", share=False,
        progress=lambda event: events.append(event["kind"]),
    )  # fmt: skip
    assert (
        found.folder == Path("mine") and found.spent is not None and found.spent["steps_done"] > 0
    )
    assert events[0] == "begin" and {"train", "trained", "cell"} <= set(events)
    for name in ("matrix.json", "metrics.json"):
        assert (there / "mine" / name).read_bytes() == (finished / name).read_bytes()
    args = ["run", *SFT, "--suite", TINY, "--base", tiny_model, "--out", "mine", "--no-share"]
    done = cli(*args)
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stderr
    values = {"learning_rate": 1e-3, "max_steps": np.int64(2), "device": "cpu"}
    again = cpt_bench.run(
        TINY, "sft", settings=values, base=tiny_model, out="mine", share=False, progress=False
    )
    assert again.spent is not None and again.spent["steps_done"] == 0
    assert json.loads(cli(*args, "--json").stdout)["matrix"] == again.as_json()["matrix"]


SCRIPT = """
import sys
import cpt_bench
from cpt_bench.trainers.sft import SFT

GREETING = "hello"

def greet(stage):
    stage.tell(f"{GREETING} from stage {stage.index}")

class Mine(SFT):
    def train(self, stage):
        greet(stage)
        super().train(stage)

suite, base = sys.argv[1:]
heard = []
result = cpt_bench.run(
    suite, Mine, settings={"learning_rate": 1e-3, "max_steps": 2}, base=base, out="runs/mine",
    progress=heard.append,
)
assert [e["line"] for e in heard if e["kind"] == "output"] == [f"hello from stage {t}" for t in (1, 2, 3)]
print(result.record["origin"]["spec"])
"""


@pytest.mark.slow
def test_a_class_of_a_plain_script(tiny_model: Path, finished: Path, there: Path) -> None:
    """A script without a guard around its calls: no worker runs it again."""
    (there / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(TINY), str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=there)
    assert done.returncode == 0, done.stderr
    file, _, name = done.stdout.strip().rpartition(":")
    assert name == "Mine" and Path(file).parent == Path("runs/.trainers")
    matrix = (there / "runs/mine/matrix.json").read_bytes()
    assert matrix == (finished / "matrix.json").read_bytes()
