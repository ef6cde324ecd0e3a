"""What people write: YAML whose words mean what they look like, and settings on a command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt
from hypothesis import given
from hypothesis import strategies as st

from cpt_bench.documents import parse_yaml, read_mapping, read_yaml
from cpt_bench.errors import CptBenchError
from cpt_bench.settings import assigned, spelled, value_of
from tests.support.commands import sft_args

Cli = Callable[..., subprocess.CompletedProcess[str]]


# ------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("off", "off"), ("yes", "yes"), ("on", "on"), ("y", "y"), ("true", True), ("False", False),
     ("1e-4", 1e-4), ("3E5", 3e5), (".5", 0.5), ("-2.", -2.0), ("010", 10), ("0x1F", 31), ("0o17", 15), ("-3", -3),
     ("1:30", "1:30"), ("1_000", "1_000"), ("2026-11-22", "2026-11-22"), ("~", None), ("", None), ("''", ""),
     ("[no, 1e3]", ["no", 1000.0]), ("{on: imageId}", {"on": "imageId"}), ("'1e-4'", "1e-4"), ("nan", "nan")],
)  # fmt: skip
def test_words_mean_what_yaml_1_2_says(text: str, value: Any) -> None:
    found = parse_yaml(text, "f")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("seeds: [0]\nruns: []\nseeds: [1]\n", "f:3: the key 'seeds' is given twice, in lines 1 and 3. Keep one of them"),
     ("runs:\n- {set: {kl: 1,\n    kl: 2}}\n", "f:3: the key 'kl' is given twice, in lines 2 and 3"),
     ("a: {1: x, 1: y}", "f:1: the key 1 is given twice, in line 1"),
     ("a: {x: 1, 'x': 2}", "f:1: the key 'x' is given twice"),
     ("a: 1\nb: [\n", "f:3: not valid YAML"), ("a: 1\n\tb: 2", "f:2: not valid YAML"),
     ("a: 1\n---\nb: 2\n", "f:2: not valid YAML"), ("a: 1\nb: !!python/name:os.system x\n", "f:2: not valid YAML"),
     ("a: \x07", "f:1: not valid YAML"), ("[a]: 1", "f:1: not valid YAML (['a'] is not a valid key"), ("*b", "f:1: not valid YAML"),
     ("a: " + 9999 * "9", "f: not valid YAML"), (20_000 * "[", "not valid YAML")],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_place(text: str, complaint: str) -> None:
    with pytest.raises(CptBenchError) as caught:
        parse_yaml(text, "f")
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_a_merged_mapping_may_be_changed() -> None:
    found = parse_yaml("base: &b {lr: 1, kl: 2}\nmine: {<<: *b, kl: 3}\n", "f")
    assert found["mine"] == {"lr": 1, "kl": 3}


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(), min_size=1, max_size=6),
    st.data(),
)
def test_every_key_given_twice_is_found(mapping: dict[str, int], data: Any) -> None:
    lines = [f"{json.dumps(key)}: {value}" for key, value in mapping.items()]
    assert parse_yaml("\n".join(lines), "f") == mapping
    at = data.draw(st.integers(0, len(lines) - 1))
    again = data.draw(st.integers(0, len(lines)))
    lines.insert(again, lines[at])
    with pytest.raises(CptBenchError, match="is given twice, in lines"):
        parse_yaml("\n".join(lines), "f")


@given(st.text(max_size=40))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    try:
        parse_yaml(text, "f")
    except CptBenchError as error:
        assert "\n" not in str(error)


def test_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    for place in (file, tmp_path):
        with pytest.raises(CptBenchError, match="no such file"):
            read_yaml(place)
    file.write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(CptBenchError, match=r"a\.yaml:2: not UTF-8"):
        read_yaml(file)
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_mapping(file) == {"a": 1}
    file.write_text("- 1\n")
    with pytest.raises(CptBenchError, match="not a mapping of settings to values"):
        read_mapping(file, "settings")
    file.write_text("# nothing\n")
    assert read_mapping(file) == {}


TWICE = "title: a\ntitle: b\n"


def _suite(folder: Path, name: str) -> None:
    from cpt_bench.tasks.nano import FOLDER

    for file in FOLDER.glob("*.yaml"):
        text = file.read_text()
        (folder / file.name).write_text(text + (TWICE if file.name == name else ""))


def test_a_key_twice_is_refused_in_every_kind_of_file(cli: Cli, tmp_path: Path) -> None:
    """Suites, cards, recipes, sweeps, claims, what a study says of its methods, indexes of plug-ins."""
    from cpt_bench.study.about import read_about
    from cpt_bench.study.claims import read_claims

    _suite(tmp_path, "suite.yaml")
    assert "suite.yaml" in cli("show", ".").stderr and "given twice" in cli("show", ".").stderr
    _suite(tmp_path, "science.yaml")
    assert "science.yaml" in cli("show", ".").stderr and "given twice" in cli("show", ".").stderr
    twice = tmp_path / "twice.yaml"
    twice.write_text("learning_rate: 1\nlearning_rate: 2\n")
    lines = (
        "twice.yaml:2: the key 'learning_rate' is given twice, in lines 1 and 2. Keep one of them"
    )
    assert lines in cli("plan", "--suite", "nano", "--recipe", "twice.yaml").stderr
    twice.write_text("runs:\n- {trainers: [sft], learning_rates: [1], learning_rates: [2]}\n")
    assert (
        "twice.yaml:2: the key 'learning_rates' is given twice, in line 2"
        in cli("sweep", "twice.yaml").stderr
    )
    twice.write_text("claims: []\nclaims: []\n")
    with pytest.raises(CptBenchError, match="'claims' is given twice"):
        read_claims(twice)
    (tmp_path / "study.yaml").write_text("names: {}\nnames: {}\n")
    with pytest.raises(CptBenchError, match="'names' is given twice"):
        read_about(tmp_path)
    (tmp_path / "plugins.yaml").write_text("trainers: {a: x:Y, a: x:Z}\n")
    done = cli("list", "trainers", env={**os.environ, "CPTBENCH_PLUGINS": "."})
    assert done.returncode == 0 and "BROKEN" in done.stdout and "'a' is given twice" in done.stdout


# --------------------------------------------------------------------------------------- settings

Mode = Literal["no", "steps"]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        # text is text, whatever YAML takes it for
        ("no", str, "no"), ("no", Mode, "no"), ("off", str | None, "off"), ("nan", str, "nan"), ("inf", str, "inf"),
        ('"nan"', str, "nan"), ("1e-4", str, "1e-4"), ("007", str, "007"), ("true", str, "true"), ("null", str, "null"),
        ("5", str, "5"), ("[1", str, "[1"), ("a: b", str, "a: b"), ("a #b", str, "a #b"), ("#x", str, "#x"), ("", str, ""),
        ("2026-11-22", str, "2026-11-22"), ("1:30", str, "1:30"), ("'5'", str, "5"), ("a=b", str, "a=b"),
        # other types are other types
        ("no", bool, "no"), ("true", bool, True), ("1e-4", float, 1e-4), ("5", float, 5), ("null", str | None, None),
        ("5", str | int, 5), ("[1, 2]", list[int], [1, 2]), ("-1", Annotated[float, Gt(0)], -1),
        # nothing is known of the type: words as YAML 1.2 has them
        ("no", Any, "no"), ('"nan"', Any, "nan"), ("false", Any, False), ("1e-4", Any, 1e-4), ('"1e-4"', Any, "1e-4"),
        ("007", Any, 7), ("{a: off}", Any, {"a": "off"}),
    ],
)  # fmt: skip
def test_a_setting_s_value(text: str, kind: Any, value: Any) -> None:
    found = value_of(text, kind)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("nan", float), ("nan", Any), ("-inf", Any), ("Infinity", int), (".nan", Any), ("[.inf]", Any), ("{a: [.nan]}", Any),
     ("1e999", float), ("[1", Any), ("[1", list[int]), ("{", float), ("!x y", Any)],
)  # fmt: skip
def test_what_is_no_value_is_refused_and_quotes_are_named(text: str, kind: Any) -> None:
    with pytest.raises(CptBenchError, match="Quote it to give text"):
        value_of(text, kind)


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12), st.sampled_from(["1e-4", "no", "nan", "5", "~", "2026-11-22", "a #b", "-", "\x85", "<<"]),
)  # fmt: skip
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text("abc"), PLAIN, max_size=3)


@given(VALUES)
def test_what_is_spelled_is_read_back(value: Any) -> None:
    """As a sweep gives values to ``--set``: ``'5'`` stays text, no digit of a number is lost."""
    assert value_of(spelled(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [("5", '"5"'), ("nan", '"nan"'), ("no", "no"), ("007", '"007"'), (1.23456789e-4, "0.000123456789"), (2e-4, "2e-4")],
)  # fmt: skip
def test_how_values_are_spelled(value: Any, text: str) -> None:
    assert spelled(value) == text


def test_settings_are_split_in_one_place() -> None:
    assert assigned(["a=1", "b=x=y", "a=2"]) == {"a": "2", "b": "x=y"}
    for option in ("--set", "--privilege", "--engine-set"):
        for wrong in ("a", "=1", " =1"):
            with pytest.raises(CptBenchError, match=f"{option} '{wrong}' is not key=value"):
                assigned([wrong], option)


def test_trainers_engines_and_privileges_read_values_alike(tmp_path: Path) -> None:
    from cpt_bench.engines import setting_types
    from cpt_bench.stage.recipes import configure, declare
    from cpt_bench.trainer import Trainer, TrainerConfig

    class Words(TrainerConfig):
        mode: str = "a"
        save_strategy: Mode = "steps"
        rate: float = 1.0

    class Mine(Trainer):
        Config = Words

        def train(self, stage: Any) -> None: ...

    made = configure(Mine, {}, ['mode="nan"', "save_strategy=no", "rate=1e-4"])
    assert made.model_dump() == {"mode": "nan", "save_strategy": "no", "rate": 1e-4}
    assert configure(Mine, {}, ["mode=nan"]).mode == "nan"  # type: ignore[attr-defined]
    with pytest.raises(CptBenchError, match="'nan' is not a finite number"):
        configure(Mine, {}, ["rate=nan"])
    with pytest.raises(CptBenchError, match="Did you mean 'mode'"):
        configure(Mine, {}, ["mod=x"])
    assert declare(["joint", "replay_samples_per_task=5"]).joint
    assert not declare(["joint=no"]).joint

    class Engine:
        def __init__(self, folder: Path, *, dtype: str = "auto", batch: int = 1) -> None: ...

    assert setting_types(Engine) == {"dtype": str, "batch": int}
    assert setting_types(lambda folder, *, size=1: None) == {"size": Any}


def test_a_command_gets_words_as_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command's settings have no types: ``no`` is a word there, not a truth value."""
    from cpt_bench.stage.method import Asked, describe

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.sh").write_text("exit 0\n")
    asked = Asked(
        "cmd:sh x.sh", "nano", ("save_strategy=no", 'mode="nan"', "deep=false", "tag=007")
    )
    assert describe(asked).config == {"save_strategy": "no", "mode": "nan", "deep": False, "tag": 7}


# ---------------------------------------------------------------------------------- no home at all

NO_HOME = """
import os, pwd, sys
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
os.environ.pop("HOME", None); os.environ.pop("XDG_CACHE_HOME", None)
from cpt_bench.cli.main import entry
sys.argv = ["cptbench", *sys.argv[1:]]
entry()
"""


def homeless(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CPTBENCH")}
    command = [sys.executable, "-c", NO_HOME, *args]
    return subprocess.run(command, capture_output=True, text=True, env={**kept, **env})


@pytest.mark.parametrize(
    "args",
    [["data", "status"], ["data", "prepare"], ["run", "--trainer", "sft", "--suite", "cpt7"]],
)
def test_without_a_home_one_line_names_the_variable(args: list[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = homeless(*args)
    assert done.returncode == 2
    assert (
        done.stderr.strip().splitlines()[-1].endswith("Name a folder: export CPTBENCH_DATA=FOLDER")
    )
    assert "Traceback" not in done.stderr
    there = homeless("data", "status", CPTBENCH_DATA=str(tmp_path))
    assert there.returncode == 1 and str(tmp_path) in there.stdout  # missing, said as ever


@pytest.mark.parametrize(
    "args", [["list", "tasks"], ["show", "cpt7"], ["plan"], ["show", "nano/text", "--samples", "1"]]
)
def test_without_a_home_what_needs_no_data_works(args: list[str]) -> None:
    done = homeless(*args)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_without_a_home_the_doctor_reports_it() -> None:
    done = homeless("doctor")
    assert "CPTBENCH_DATA" in done.stdout and "Traceback" not in done.stderr
    assert "no environment; needed for --general vlmevalkit:TASK" in done.stdout


@pytest.mark.slow
def test_without_a_home_a_run_works(tiny_model: Path, tmp_path: Path) -> None:
    """All its processes have no home: they read this file when they start."""
    place = tmp_path / "nobody"
    place.mkdir()
    (place / "sitecustomize.py").write_text(NO_HOME.partition("from cpt_bench")[0])
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CPTBENCH", "HF_", "XDG"))}
    args = sft_args(tiny_model, "--out", "run", "--limit", "2")
    done = subprocess.run(
        [sys.executable, "-m", "cpt_bench", *args], capture_output=True, text=True, cwd=tmp_path,
        env={**env, "PYTHONPATH": str(place), "CPTBENCH_DATA": str(tmp_path / "data")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    matrix = json.loads((tmp_path / "run/matrix.json").read_text())
    assert matrix
