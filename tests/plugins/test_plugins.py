"""Plug-ins: the built-in ones and everybody else's are found in the same way, and none is imported to list it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cpt_bench
from cpt_bench import plugins
from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import builtin, default, listing, locate, preloaded, resolve
from cpt_bench.stage.recipes import named, recipe, recipes
from cpt_bench.suite import load_suite, open_suite
from tests.support.places import ROOT, TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]
CORE = Path(cpt_bench.__file__).parent

TRAINER = """
from pathlib import Path

from cpt_bench.trainers.sft import SFT

(Path(__file__).parent / "imported").touch()


class Slow(SFT):
    '''SFT, slowly.'''
"""
SAMPLES = """
from cpt_bench.suite import Sample


def make(split, n, parity):
    start = {"train": 0, "test": 1000}[split]
    numbers = [2 * (start + i) + parity for i in range(n)]
    return [
        Sample(id=f"{split}-{i}", question=f"say {number}.", answers=(str(number),), kind="number")
        for i, number in enumerate(numbers)
    ]
"""
CARD = """
name: {name}
title: {name} numbers
description: Say the number.
version: 1
typical_pixels: 0
source: {{kind: generator, target: ./samples.py:make, options: {{parity: {parity}}}}}
splits:
  train: {{n: 8, sha256: '{train}'}}
  test: {{n: 4, sha256: '{test}'}}
grader: number
answer_kinds: [number]
licence: Apache-2.0
"""
INDEX = """
trainers:
  slow: {target: ./slow.py:Slow, summary: "SFT, slowly"}
  fast: cpt_bench.trainers.sft:SFT
"""


def make_suite(folder: Path) -> None:
    """A suite of two small tasks whose samples a file beside it makes."""
    from cpt_bench.sources import load_split, split_digest

    folder.mkdir(parents=True)
    text = (TINY / "suite.yaml").read_text()
    text = text.replace("name: tiny", "name: numbers").replace("title: three", "title: no")
    text = text.replace("sequence: [science, lowvision, counting]", "sequence: [odd, even]")
    (folder / "suite.yaml").write_text(text.replace("general: [knowledge]", "general: []"))
    (folder / "samples.py").write_text(SAMPLES)
    hashes = {"train": "0" * 64, "test": "0" * 64}
    for written in (False, True):
        for parity, name in enumerate(("even", "odd")):
            if written:
                card = load_suite(folder).card(name)
                hashes = {s: split_digest(load_split(card, s, check=False)) for s in hashes}
            (folder / f"{name}.yaml").write_text(CARD.format(name=name, parity=parity, **hashes))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside the package with a trainer, its recipe and a suite; the environment names it."""
    folder = tmp_path / "mine"
    make_suite(folder / "numbers")
    (folder / "plugins.yaml").write_text(INDEX)
    (folder / "slow.py").write_text(TRAINER)
    (folder / "recipes/numbers").mkdir(parents=True)
    (folder / "recipes/numbers/slow.yaml").write_text(
        "learning_rate: 1e-3\nmax_steps: 1\nbatch_size: 4\ndevice: cpu\n"
    )
    monkeypatch.setenv("CPTBENCH_PLUGINS", str(folder))
    return folder


# ------------------------------------------------------------------- from a folder outside the package


def test_a_suite_and_a_trainer_from_a_folder_are_listed_shown_and_planned(
    mine: Path, cli: Cli, tiny_model: Path
) -> None:
    assert f"mine/slow      SFT, slowly  [{mine}]" in cli("list", "trainers").stdout
    assert f"mine/fast      cpt_bench.trainers.sft:SFT  [{mine}]" in cli("list", "trainers").stdout
    assert "mine/numbers  no nano tasks of a few samples, for tests" in cli("list", "suites").stdout
    assert "mine/numbers/odd   odd numbers  [task]" in cli("list", "tasks").stdout
    assert not (mine / "imported").exists(), "listing imports nothing"
    assert (
        "task 1      odd        odd numbers; 8 train, 4 test" in cli("show", "mine/numbers").stdout
    )
    assert "say 2001." in cli("show", "mine/numbers/odd", "--samples", "1").stdout
    asked = ["plan", "--suite", "mine/numbers", "--trainer", "mine/slow", "--base", tiny_model]
    plan = json.loads(cli(*asked, "--json").stdout)
    assert plan["recipe"] == "numbers/slow" and [s["task"] for s in plan["stages"]] == [
        "odd",
        "even",
    ]
    assert [s["steps"] for s in plan["stages"]] == [1, 1] and plan["assumed"]["pixels"]["odd"] == 0
    assert not (mine / "imported").exists(), "nor does planning"
    assert "nothing is known of base model 'checkpoint'" in cli(*asked[:-2]).stderr
    (mine / "numbers/base_config.json").write_bytes((tiny_model / "config.json").read_bytes())
    assert json.loads(cli(*asked[:-2], "--json").stdout)["parameters"] == plan["parameters"]


@pytest.mark.slow
def test_a_suite_and_a_trainer_from_a_folder_run(mine: Path, cli: Cli, tiny_model: Path) -> None:
    done = cli("--debug", "run", "--suite", "mine/numbers", "--trainer", "mine/slow", "--base", tiny_model,
               "--limit", "2", "--out", "out", "--threads", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = mine.parent / "out"
    run = json.loads((out / "run.json").read_text())
    assert run["suite"]["spec"] == "mine/numbers" and run["trainer"] == "slow"
    assert run["origin"].keys() == {"spec", "module", "sha256"}
    assert (run["origin"]["spec"], run["origin"]["module"]) == ("mine/slow", "./slow.py:Slow")
    assert run["config"]["learning_rate"] == 1e-3 and run["config"]["max_steps"] == 1
    assert len(json.loads((out / "matrix.json").read_text())["accuracy"]) == 3
    # The trainer was found and imported where the suites' folders are closed to it.
    facts = [json.loads(f.read_text())["facts"] for f in out.glob("ledger/*train.json")]
    assert len(facts) == 2 and {f["isolation"] for f in facts} <= {"namespace", "audit hook"}
    again = cli("run", "--suite", "mine/numbers", "--trainer", "mine/slow", "--base", tiny_model,
                "--limit", "2", "--out", "out", "--threads", "1")  # fmt: skip
    assert "nothing to do" in again.stdout


def test_recipes_of_a_folder_are_found_by_name(mine: Path) -> None:
    assert named("numbers/slow")["max_steps"] == 1
    assert recipe("numbers", locate("trainers", "mine/slow"))["learning_rate"] == 1e-3
    assert recipes()["nano/sft"].is_relative_to(ROOT / "trainers")
    (mine / "recipes/nano").mkdir()
    (mine / "recipes/nano/sft.yaml").write_text("learning_rate: 9\n")
    assert named("nano/sft")["learning_rate"] == 3e-4, "one that ships comes first"


def test_a_change_of_the_code_is_another_method(mine: Path) -> None:
    before = resolve("trainers", "mine/slow").origin["sha256"]
    (mine / "numbers/samples.py").write_text(
        SAMPLES + "\n# a suite's own code is its own business\n"
    )
    assert resolve("trainers", "mine/slow").origin["sha256"] == before
    (mine / "helper.py").write_text("x = 1\n")
    assert resolve("trainers", "mine/slow").origin["sha256"] != before


def test_two_suites_with_files_of_one_name_share_no_prepared_data(tmp_path: Path) -> None:
    from cpt_bench.suite.origins import Hub
    from cpt_bench.suite.prepared import key

    card = open_suite("cpt7").card("gqa")
    keys = set()
    for name, code in (("a", "x = 1\n"), ("b", "x = 2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.py").write_text(code)
        source = Hub.model_validate({**card.source.model_dump(), "target": "./rows.py:adapt"})
        keys.add(key(card.model_copy(update={"source": source, "folder": tmp_path / name}), "test"))
    assert len(keys) == 2


# ------------------------------------------------------------------------------------ third parties


def test_nobody_takes_a_built_in_name(
    mine: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine / "plugins.yaml").write_text("trainers: {sft: ./slow.py:Slow}\n")
    (mine / "numbers").rename(mine / "nano")
    assert resolve("trainers", "sft").origin["distribution"] == "cptbench"
    assert resolve("trainers", "mine/sft").origin["spec"] == "mine/sft"
    monkeypatch.chdir(mine)  # a folder of that name lies here
    assert open_suite("nano").name == "nano" and open_suite("./nano").name == "numbers"
    assert open_suite("mine/nano").name == "numbers"
    assert [row.name for row in listing("suites")] == [*builtin("suites"), "mine/nano"]


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ("trainers: [slow]", "plugins.yaml: trainers: not a mapping of names to targets"),
        ("trainers: {slow: 3}", "plugins.yaml: trainers.slow: has no target. Give module:Class"),
        ("trainers: {slow: {summary: x}}", "trainers.slow: has no target"),
        ("trainers: {slow: {target: x:Y, sumary: x}}", "no such key: 'sumary'. Did you mean 'summary'?"),
        ("trainers: {slow: {target: x:Y, joint: maybe}}", "joint is 'maybe', not true or false"),
        ("trainers: {slow: {target: x:Y, default_of: run}}", "default_of is 'run', not a list"),
        ("trainers: {a/b: x:Y}", "'a/b' is not fit for a name"),
        ("trainer: {}", "no kind of plug-in is called 'trainer'. Did you mean 'trainers'?"),
        ("[", "plugins.yaml:2: not valid YAML"),
        ("- 1", "not a mapping of kinds of plug-ins to values"),
    ],
)  # fmt: skip
def test_a_broken_index_warns_in_list_and_fails_when_asked_for(
    index: str, complaint: str, mine: Path, cli: Cli
) -> None:
    (mine / "plugins.yaml").write_text(index + "\n")
    done = cli("list", "trainers")
    assert done.returncode == 0 and "BROKEN" in done.stdout and complaint in done.stdout
    assert "sft" in done.stdout
    with pytest.raises(CptBenchError) as caught:
        resolve("trainers", "mine/slow")
    assert complaint in str(caught.value)
    resolve("trainers", "sft")  # it is nobody else's concern


@pytest.mark.parametrize(
    ("kind", "spec", "complaint"),
    [
        ("trainers", "mine/slo", "no trainer is called 'mine/slo'. Did you mean 'mine/slow'?"),
        ("trainers", "slow", "Did you mean 'mine/slow'?"),
        ("suites", "mine/number", "Did you mean 'mine/numbers'?"),
        ("trainers", "yours/slow", "No installed package, and no folder of $CPTBENCH_PLUGINS, of that name offers trainers"),
        ("engines", "mine/slow", "no engine is called 'mine/slow'"),
        ("trainers", "gone/slow", "gone: is not a directory. Correct $CPTBENCH_PLUGINS"),
        ("trainers", "other/lost", "lost.py: no such file. Correct plugins.yaml"),
        ("trainers", "other/wrong", "has no 'Wrong'. Did you mean 'Strong'?"),
        ("trainers", "other/raises", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_one_line(
    kind: str, spec: str, complaint: str, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = mine.parent / "other"
    other.mkdir()
    (other / "plugins.yaml").write_text(
        "trainers: {lost: ./lost.py:A, wrong: ./here.py:Wrong, raises: ./raises.py:A}\n"
    )
    (other / "here.py").write_text("Strong = 1\n")
    (other / "raises.py").write_text("1 / 0\n")
    folders = [mine, mine.parent / "gone", other]
    monkeypatch.setenv("CPTBENCH_PLUGINS", os.pathsep.join(map(str, folders)))
    with pytest.raises(CptBenchError) as caught:
        resolve(kind, spec)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_two_folders_of_one_name_that_offer_the_same(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = mine.parent / "elsewhere/mine"
    again.mkdir(parents=True)
    (again / "plugins.yaml").write_text("trainers: {slow: x:Y, other: x:Y}\n")
    monkeypatch.setenv("CPTBENCH_PLUGINS", f"{mine}{os.pathsep}{again}")
    with pytest.raises(CptBenchError, match="two trainers are called 'mine/slow'"):
        locate("trainers", "mine/slow")
    assert locate("trainers", "mine/other").folder == again


def test_a_relative_folder_and_an_empty_part(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    monkeypatch.setenv("CPTBENCH_PLUGINS", f"{os.pathsep}mine{os.pathsep}")
    assert locate("trainers", "mine/slow").folder == mine
    monkeypatch.chdir(mine)
    monkeypatch.setenv("CPTBENCH_PLUGINS", ".")
    assert locate("trainers", "mine/slow").folder == mine


def test_a_folder_of_suites_needs_no_index(mine: Path) -> None:
    (mine / "plugins.yaml").unlink()
    assert "mine/numbers" in [row.name for row in listing("suites")]
    assert open_suite("mine/numbers").sequence == ("odd", "even")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package that offers a folder, and one trainer by an entry point of its own."""
    folder, info = tmp_path / "their_package", tmp_path / "their_package-2.0.dist-info"
    make_suite(folder / "data/numbers")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "data/plugins.yaml").write_text("trainers: {own: their_code:Own}\n")
    (tmp_path / "their_code.py").write_text("class Own: ...\nclass Single: ...\n")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(
        "[cpt_bench.plugins]\nall = their_package.data\n\n[cpt_bench.trainers]\nsingle = their_code:Single\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop("their_code", None)


def test_a_package_offers_a_folder(package: Path) -> None:
    rows = {row.name: row for row in listing("trainers")}
    assert (
        rows["their-package/own"].origin
        == rows["their-package/single"].origin
        == "their-package 2.0"
    )
    assert "their-package/numbers" in [row.name for row in listing("suites")]
    for name in ("own", "single"):
        found = resolve("trainers", f"their-package/{name}")
        assert found.value.__name__.lower() == name
        assert found.origin["distribution"] == "their-package" and found.origin["version"] == "2.0"
        assert found.origin["module"] == f"their_code:{name.capitalize()}"
    assert open_suite("their-package/numbers").name == "numbers"


def test_a_package_whose_folder_is_gone(package: Path) -> None:
    (package / "data").rename(package / "moved")
    rows = {row.name: row.summary for row in listing("suites")}
    assert rows["their-package"].startswith("BROKEN: ")
    with pytest.raises(CptBenchError, match=r"not a directory\. Reinstall it"):
        resolve("suites", "their-package/numbers")


# ---------------------------------------------------------------------------------------- built-in


def test_the_origin_of_what_ships_has_the_form_that_runs_have_stored() -> None:
    for kind in ("trainers", "engines", "suites"):
        for name, offer in builtin(kind).items():
            assert ":" in offer.target, "a name in Python: it is stored with each run"
            assert [*locate(kind, name).origin] == ["spec", "distribution", "version"]
    origin = resolve("suites", "nano").origin
    assert [*origin] == ["spec", "distribution", "version", "module", "sha256"]
    assert (origin["spec"], origin["distribution"]) == ("nano", "cptbench")
    assert origin["module"] == "cpt_bench.tasks.nano:FOLDER" and len(origin["sha256"]) == 64


@pytest.mark.slow
def test_a_built_in_trainer_s_digest_is_that_of_its_folder() -> None:
    """And of nothing else: a recipe or the index changes no stored identity."""
    import hashlib

    pytest.importorskip("torch")
    origin = resolve("trainers", "ewc").origin
    total = hashlib.sha256()
    for file in sorted((ROOT / "trainers").rglob("*.py")):
        total.update(file.relative_to(ROOT / "trainers").as_posix().encode() + file.read_bytes())
    assert origin["sha256"] == total.hexdigest()
    assert origin["module"] == "cpt_bench.trainers.methods:EWC"


def test_defaults_and_preloading_come_from_the_indexes() -> None:
    assert default("suites", "run") == "nano"
    assert default("suites", "plan") == default("suites", "data") == "cpt7"
    assert default("trainers", "plan") == "rft"
    assert preloaded() == [
        "cpt_bench.trainers.sft", "cpt_bench.trainers.rft", "cpt_bench.engines.hf",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "shown"),
    [(["run"], "nano"), (["score"], "nano"), (["eval"], "nano"), (["export", "prompts"], "nano"),
     (["plan"], "cpt7"), (["data", "prepare"], "cpt7"), (["data", "status"], "cpt7")],
)  # fmt: skip
def test_help_shows_the_default_suite(args: list[str], shown: str, cli: Cli) -> None:
    assert f"[default: {shown}]" in " ".join(cli(*args, "--help").stdout.split())


def test_help_reads_no_index() -> None:
    """The first page of help answers before anything is looked up."""
    code = "import sys; from cpt_bench.cli.main import app; print({'yaml', 'cpt_bench.plugins'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_index_names_what_is_not_there() -> None:
    for kind in plugins.index.HOMES:
        for offer in builtin(kind).values():
            if offer.target.endswith(plugins.SUITE):
                continue
            module, _, attribute = offer.target.partition(":")
            home, stem = plugins.index.HOMES[kind], module.rpartition(".")[2]
            file = offer.folder / f"{stem}.py"
            file = file if file.is_file() else offer.folder / stem / "__init__.py"
            assert module == f"{home}.{stem}" and attribute in file.read_text(), offer.name


# ------------------------------------------------------------------------- the core names none of them

WORDS = {
    "form",
    "joint",
    "replay",
    "sequence",
    "sum",
    "text",
    "scene",
    "science",
    "geometry",
    "counting",
    "digits",
    "presence",
    "exam",
    "knowledge",
    "official",
}
"""Names that are words of the field too: a privilege is called joint, and replay is one."""
GRADERS = {"grading/matchers.py", "grading/official.py"}
"""Graders are called after whoever published them, data sets among them."""


def names() -> set[str]:
    """Every trainer, suite and task that ships, variants of names included."""
    found = {*builtin("trainers"), *builtin("suites")}
    for name in builtin("suites"):
        suite = open_suite(name)
        found |= {*suite.sequence, *suite.general}
    return found - WORDS


def constants(file: Path) -> Iterator[tuple[int, str]]:
    """Text constants outside docstrings, those of f-strings included."""
    tree = ast.parse(file.read_text())
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def named_in(value: str, known: set[str]) -> set[str]:
    """The names that stand in a text as words of their own; hyphens belong to a word."""
    import re

    value = re.sub(r"cptbench\[[a-z,]+\]", "", value)  # extras of the distribution
    return {
        word for word in re.findall(r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*", value) if word in known
    }


def test_the_core_names_no_task_trainer_or_suite() -> None:
    known, found = names(), []
    for file in sorted(CORE.rglob("*.py")):
        place = file.relative_to(CORE).as_posix()
        for line, value in constants(file) if place not in GRADERS else ():
            found += [f"{place}:{line}: {name!r} in {value!r}" for name in named_in(value, known)]
    assert not found, "\n".join(found)


def test_the_search_for_names_finds_them(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        '"""sft"""\ndef f(x: "rft") -> None:\n    """gqa"""\n    g = f"{x}/nano" + "soft sft-low ewc"\n'
    )
    known = names()
    assert {"sft", "cpt7", "gqa", "mmlu_pro", "rif-rft"} <= known and "joint" not in known
    found = [name for _, value in constants(file) for name in sorted(named_in(value, known))]
    assert sorted(found) == ["ewc", "nano", "rft", "sft-low"]


def test_speed_of_list_and_help() -> None:
    """Under 0.3 s of a processor: what a clock shows on a machine that does nothing else."""
    import resource

    def best(*args: object) -> float:
        times = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-m", "cpt_bench", *map(str, args)]
            subprocess.run(command, capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(times)

    for args in (["--help"], ["list", "trainers"], ["list", "suites"], ["run", "--help"]):
        assert best(*args) < 0.3, args
