"""``cptbench grade`` and ``score`` on lines from anywhere: each fault is one line that names its place."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt_bench import general
from cpt_bench.cli.grade import Form, grade
from cpt_bench.cli.main import FULL, MISPLACED
from cpt_bench.cli.score import metrics, score
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import read_predictions
from cpt_bench.files import digest_json, read_json, read_jsonl, write_json, write_jsonl
from cpt_bench.grading import MATCHERS
from tests.support.commands import here
from tests.support.places import TINY
from tests.support.simulated import split, write_run

Cli = Callable[..., subprocess.CompletedProcess[str]]
BOM = b"\xef\xbb\xbf"
HALF = "half \ud83d of a pair"


def lines(*rows: Any) -> str:
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("cptbench: "), done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


# ---------------------------------------------------------------------- what a line may hold


@pytest.mark.parametrize("key", ["choices", "annotators"])
@pytest.mark.parametrize(
    "value", ["a cat", {"A": "a cat", "B": "a dog"}, 3, True, [["a"]], [None], [True], [{"a": 1}], ""]
)  # fmt: skip
def test_a_list_of_texts_is_nothing_else(cli: Cli, tmp_path: Path, key: str, value: Any) -> None:
    """A text was once cut into its letters, and a mapping into its keys."""
    row = {"reply": "A", "gold": "A", key: value}
    (tmp_path / "in.jsonl").write_text(lines({"reply": "A", "gold": "A"}, row))
    grader = "choice" if key == "choices" else "vqa"
    one_line(cli("grade", "in.jsonl", "--grader", grader), "in.jsonl:2", f"{key} is ", "not a list")


@pytest.mark.parametrize(
    "gold", [None, True, [], [None], [True], {"a": 1}, [["a"]], "", "  ", ["", " "], [[]]]
)
def test_a_gold_is_a_text_or_several(cli: Cli, tmp_path: Path, gold: Any) -> None:
    (tmp_path / "in.jsonl").write_text(lines({"reply": "A", "gold": gold}))
    one_line(cli("grade", "in.jsonl", "--grader", "exact"), "in.jsonl:1: gold is ", "not a text")


def test_numbers_are_texts_and_null_is_nothing(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {"reply": "3", "gold": 3, "choices": None, "annotators": None, "kind": None, "category": None},
        {"reply": "0.5", "gold": [0.25, 0.5], "id": None, "question": None},
        {"reply": "B", "gold": "b", "choices": [1, 2.5]},
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text(lines(*rows))
    for grader, scores in (("exact", [1, 1, 1]), ("open", [1, 1, 1])):
        done = cli("grade", "in.jsonl", "--grader", grader)
        assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == scores
    (tmp_path / "b.jsonl").write_text(lines(rows[2]))
    assert json.loads(cli("grade", "b.jsonl", "--grader", "choice").stdout)["score"] == 1


@pytest.mark.parametrize(
    ("grader", "row"),
    [
        ("choice", {"gold": "1", "choices": ["a", "b"]}), ("choice", {"gold": "(B)", "choices": ["a", "b"]}),
        ("choice", {"gold": "E", "choices": ["a", "b"]}), ("scienceqa", {"gold": "C", "choices": ["a", "b"]}),
        ("yesno", {"gold": "1"}), ("pope", {"gold": "true"}), ("number", {"gold": "many"}),
        ("by-kind", {"gold": "J", "choices": ["a", "b", "c", "d"]}), ("mmmu", {"gold": "?", "choices": ["a", "b"]}),
    ],
)  # fmt: skip
def test_a_gold_that_nothing_can_match_is_named(
    cli: Cli, tmp_path: Path, grader: str, row: Any
) -> None:
    first = {"reply": "A", "gold": {"yesno": "yes", "pope": "no", "number": "1"}.get(grader, "A"),
             "choices": ["a", "b"]}  # fmt: skip
    (tmp_path / "in.jsonl").write_text(lines(first, {"id": "q7", "reply": "A", **row}))
    one_line(cli("grade", "in.jsonl", "--grader", grader), "in.jsonl:2", "the gold answer of 'q7'")


@pytest.mark.parametrize(
    ("grader", "row"),
    [
        ("vqa", {"gold": "0"}), ("choice", {"gold": "A", "choices": ["None", "One"]}), ("choice", {"gold": "None", "choices": ["None", "One"]}),
        ("exact", {"gold": "none"}), ("gqa", {"gold": "None"}), ("open", {"gold": "none"}), ("mmmu", {"gold": "None"}),
    ],
)  # fmt: skip
def test_no_box_is_wrong(cli: Cli, tmp_path: Path, grader: str, row: dict[str, Any]) -> None:
    rows = [{"reply": reply, **row} for reply in ("I see nothing of it", "\\boxed{None}")]
    (tmp_path / "in.jsonl").write_text(lines(*rows))
    done = cli("grade", "in.jsonl", "--grader", grader, "--form", "boxed")
    assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == [0, 1]
    assert json.loads(done.stderr)["unparsed"] == 50


def test_pope_s_published_figures(cli: Cli, tmp_path: Path) -> None:
    pairs = [("Yes", "yes"), ("A dog", "yes"), ("No", "no"), ("NO", "no")]
    (tmp_path / "in.jsonl").write_text(lines(*({"reply": r, "gold": g} for r, g in pairs)))
    summary = json.loads(cli("grade", "in.jsonl", "--grader", "pope-official").stderr)
    assert summary["accuracy"] == 75
    assert summary["yes_no"] == {
        "precision": 66.6667, "recall": 100, "f1": 80, "yes_share": 75, "unparsed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"reply": "a", "gold": "a", "reply": "b"}', "the key 'reply' occurs twice"),
        ('{"reply": "a", "gold": NaN}', "NaN is not a number in JSON"),
        ('{"reply": "a", "gold": "a", "x": [-Infinity]}', "-Infinity is not a number in JSON"),
        ('{"reply": "a", "gold": 1e999}', "gold is inf, not a text"),
        ('{"reply": "a", "gold": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"reply": "a", "gold": "a"} {}', "not valid JSON (Extra data"),
        ('"text"', "not a JSON object"),
    ],
)  # fmt: skip
def test_broken_json_is_named_with_its_line(
    cli: Cli, tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "in.jsonl").write_text(lines({"reply": "a", "gold": "a"}, text, "\n"))
    one_line(cli("grade", "in.jsonl", "--grader", "exact"), "in.jsonl:2: ", complaint)


# ------------------------------------------------------------------ halves of surrogate pairs


@pytest.mark.parametrize(
    "name", [name for name in MATCHERS if name not in ("math", "mathruler", "number", "by-kind", "word-count")
    and not name.startswith("reasoning-gym")]
)  # fmt: skip
def test_half_a_character_is_graded(name: str) -> None:
    from cpt_bench.suite import Sample

    gold = Sample(id="s", question="?", answers=("yes" if "pope" in name or name == "yesno" else "A",), kind="word")  # fmt: skip
    for reply in (HALF, "\udc00"):
        assert 0 <= MATCHERS[name](reply, gold) <= 1
    half = gold.model_copy(update={"answers": (HALF,)})
    if name in ("exact", "exact-case", "open", "gqa", "pathvqa", "mmmu", "vqa"):
        assert MATCHERS[name](HALF, half) == 1


@pytest.mark.parametrize("form", ["whole", "tags", "boxed"])
def test_half_a_character_comes_back_as_it_was(cli: Cli, tmp_path: Path, form: str) -> None:
    reply = {"whole": HALF, "tags": f"<answer>{HALF}</answer>", "boxed": f"\\boxed{{{HALF}}}"}[form]
    rows = [{"id": "\udfff", "reply": reply, "gold": "x", "note": "\ud800", "category": "\udc00"},
            {"reply": "x", "gold": "x"}]  # fmt: skip
    (tmp_path / "in.jsonl").write_text(lines(*rows))
    done = cli("grade", "in.jsonl", "--grader", "exact", "--form", form, "--out", "out.jsonl")
    assert done.returncode == 0, done.stderr
    found = read_jsonl(tmp_path / "out.jsonl")
    assert [row["reply"] for row in found] == [reply, "x"]
    assert found[0]["extracted"] == HALF and (found[0]["id"], found[0]["note"]) == (
        "\udfff",
        "\ud800",
    )
    printed = cli("grade", "in.jsonl", "--grader", "exact", "--form", form, env=dict(os.environ))
    assert printed.returncode == 0, printed.stderr
    assert [json.loads(line) for line in printed.stdout.splitlines()] == found


def test_half_a_character_is_graded_as_a_formula(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("mathruler")
    (tmp_path / "in.jsonl").write_text(lines({"reply": "\ud83d5", "gold": "5"}))
    for grader in ("math", "mathruler"):
        done = cli("grade", "in.jsonl", "--grader", grader, "--out", f"{grader}.jsonl")
        assert done.returncode == 0, done.stderr
        assert read_jsonl(tmp_path / f"{grader}.jsonl")[0]["score"] in (0, 1)


def test_half_a_character_in_predictions_is_scored(cli: Cli, tmp_path: Path) -> None:
    rows = predictions(tmp_path / "p")["science"]
    rows[0]["reply"], rows[1]["reply"] = HALF, f"<think>\udc00</think>{rows[1]['reply']}"
    write_jsonl(tmp_path / "p/0-base/science.jsonl", rows)
    done = cli("score", "p", "--suite", TINY, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    found = read_jsonl(tmp_path / "run/stages/0-base/predictions/science.jsonl")
    # What is stored can be written as UTF-8, and so be packed and verified.
    kept = [row["reply"].replace("\ud83d", "\ufffd").replace("\udc00", "\ufffd") for row in rows]
    assert [row["reply"] for row in found] == kept
    assert (found[0]["score"], found[1]["score"]) == (0, 1)
    assert cli("score", "run").returncode == 0


def test_half_a_character_is_written_and_read(tmp_path: Path) -> None:
    rows = [{"a": HALF, "\udc80": ["\U0001f600", "\\ud83d", "\ude00\ud83d"]}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    write_json(tmp_path / "rows.json", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == read_json(tmp_path / "rows.json") == rows
    assert digest_json(HALF) != digest_json(HALF.replace("\ud83d", "\\ud83d"))


# --------------------------------------------------------------------- encodings and locales


def test_latin_1_is_one_line_with_its_place(cli: Cli, tmp_path: Path) -> None:
    text = lines({"reply": "a", "gold": "a"}, '{"reply": "caf\xe9", "gold": "x"}\n').encode(
        "latin-1"
    )
    done = cli("grade", "-", "--grader", "exact", input=text, text=False)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"standard input:2: not UTF-8 (byte 0xe9" in done.stderr
    for encoding in ("latin-1", "utf-16", "utf-32"):
        (tmp_path / "in.jsonl").write_bytes(
            lines('{"reply": "caf\xe9", "gold": "x"}\n').encode(encoding)
        )
        one_line(
            cli("grade", "in.jsonl", "--grader", "exact"),
            "in.jsonl:1: not UTF-8",
            "Save it as UTF-8",
        )


def test_a_byte_order_mark_is_passed_over_everywhere(cli: Cli, tmp_path: Path) -> None:
    text = BOM + lines({"reply": "a", "gold": "a"}).encode() + b"\r\n"
    (tmp_path / "in.jsonl").write_bytes(text)
    assert cli("grade", "in.jsonl", "--grader", "exact").returncode == 0
    assert cli("grade", "--grader", "exact", input=text, text=False).returncode == 0
    assert read_jsonl(tmp_path / "in.jsonl") == [{"reply": "a", "gold": "a"}]
    (tmp_path / "m.json").write_bytes(
        BOM + b'{"tasks": ["a", "b"], "accuracy": [[1, 2], [3, 4], [5, 6]]}'
    )
    assert cli("metrics", "m.json").returncode == 0
    predictions(tmp_path / "p")
    file = tmp_path / "p/0-base/science.jsonl"
    file.write_bytes(BOM + file.read_bytes())
    assert cli("score", "p", "--suite", TINY, "--out", "run").returncode == 0


LOCALES = [
    {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "cp1252"},
]


@pytest.mark.parametrize("locale", LOCALES, ids=str)
def test_what_comes_out_is_utf_8_in_any_locale(cli: Cli, locale: dict[str, str]) -> None:
    row = {"id": "é", "reply": "Δ 星 \ud83d", "gold": "Δ", "category": "Ж"}
    other = {"reply": "Ж", "gold": "Ж", "category": "é"}
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("LC_")}, **locale}
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in (row, other))
    data = text.encode(errors="backslashreplace")
    done = cli("grade", "--grader", "exact", input=data, text=False, env=env)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [f["reply"] for f in found] == [row["reply"], "Ж"] and found[0]["id"] == "é"
    assert json.loads(done.stderr.decode())["by_category"].keys() == {"Ж", "é"}


@pytest.mark.parametrize("locale", LOCALES[:2], ids=str)
def test_scores_come_out_in_any_locale(cli: Cli, tmp_path: Path, locale: dict[str, str]) -> None:
    predictions(tmp_path / "p")
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("LC_")}, **locale}
    done = cli("score", "p", "--suite", TINY, "--out", "Ж", "--all", text=False, env=env)
    assert done.returncode == 0, done.stderr
    assert "accuracy after each stage" in done.stdout.decode()
    done = cli("score", "Ж", "--json", text=False, env=env)
    assert json.loads(done.stdout.decode())["AvgAcc"]


@pytest.mark.parametrize("name", [".", "nowhere.jsonl", "a" * 300, "in.jsonl/x", "nul\0.jsonl"])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.jsonl").write_text("{}")
    one_line(here(tmp_path, "grade", name, "--grader", "exact"))


def test_a_closed_standard_input_is_one_line(cli: Cli) -> None:
    command = [sys.executable, "-m", "cpt_bench", "grade", "--grader", "exact"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True
    )
    one_line(done, "standard input is closed")


# ------------------------------------------------------------------------- one line a question


def test_a_question_is_answered_once(cli: Cli, tmp_path: Path) -> None:
    ids = [s.id for s in split(str(TINY), "science")][:2]
    asked = ("grade", "in.jsonl", "--suite", TINY, "--task", "science")
    rows = [{"id": i, "reply": "<answer>A</answer>"} for i in (*ids, ids[0])]
    (tmp_path / "in.jsonl").write_text(lines(*rows[:2]))
    assert cli(*asked).returncode == 0
    (tmp_path / "in.jsonl").write_text(lines(*rows))
    one_line(cli(*asked), f"in.jsonl:3: '{ids[0]}' was already answered in line 1")
    for wrong in (True, None, 1.0, [ids[0]], "none such"):
        (tmp_path / "in.jsonl").write_text(lines({"id": wrong, "reply": "A"}))
        one_line(cli(*asked), "in.jsonl:1: no test sample has the id")


# --------------------------------------------------------------------------------- predictions


def predictions(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Right answers of the base model to all of the tiny suite's questions."""
    out = {}
    for name in ("science", "lowvision", "counting", "knowledge"):
        out[name] = [
            {"id": s.id, "reply": f"<answer>{s.answers[0]}</answer>", "tokens": 3}
            for s in split(str(TINY), name)
        ]
        write_jsonl(folder / "0-base" / f"{name}.jsonl", out[name])
    return out


def test_predictions_in_any_order_give_the_same(cli: Cli, tmp_path: Path) -> None:
    rows = predictions(tmp_path / "p")
    assert cli("score", "p", "--suite", TINY, "--out", "one").returncode == 0
    for name, found in rows.items():
        random.Random(name).shuffle(found)
        write_jsonl(tmp_path / "p/0-base" / f"{name}.jsonl", found)
    assert cli("score", "p", "--suite", TINY, "--out", "two").returncode == 0
    one, two = (json.loads((tmp_path / f / "matrix.json").read_text()) for f in ("one", "two"))
    assert one == two and one["accuracy"][0] == [100, 100, 100]
    # A run folder's own files may be in another order as well.
    file = tmp_path / "two/stages/0-base/predictions/science.jsonl"
    write_jsonl(file, reversed(read_jsonl(file)))
    assert cli("score", "two").returncode == 0
    assert json.loads((tmp_path / "two/matrix.json").read_text()) == one


def test_ids_are_compared_as_text(tmp_path: Path) -> None:
    rows = [{"id": 12, "reply": "b"}, {"id": "7", "reply": "a"}, {"id": -3, "reply": "c"}]
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, rows)
    found = read_predictions(file, ["7", "12", "-3"])
    assert [(row["id"], row["reply"]) for row in found] == [("7", "a"), ("12", "b"), ("-3", "c")]
    assert [row["id"] for row in read_predictions(file, ["7", "8", "12", "-3"], some=True)] == [
        "7",
        "12",
        "-3",
    ]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"id": "1", "reply": "a"}], "rows.jsonl: 2 of 3 test samples have no prediction: '2', '3'"),
        ([], "rows.jsonl: 3 of 3 test samples have no prediction: '1', '2', '3'"),
        ([{"id": 1, "reply": "a"}, {"id": "2", "reply": "a"}, {"id": "1", "reply": "a"}], "rows.jsonl:3: '1' was already answered in line 1"),
        ([{"id": "4", "reply": "a"}], "rows.jsonl:1: no test sample has the id '4'"),
        ([{"id": True, "reply": "a"}], "rows.jsonl:1: the id is True, not text or a whole number"),
        ([{"id": 1.0, "reply": "a"}], "rows.jsonl:1: the id is 1.0, not text"),
        ([{"id": None, "reply": "a"}], "rows.jsonl:1: the id is None, not text"),
        ([{"reply": "a"}], "rows.jsonl:1: the id is None, not text"),
        ([{"id": ["1"], "reply": "a"}], "rows.jsonl:1: the id is ['1'], not text"),
        ([{"id": "1"}], "rows.jsonl:1: the reply is None, not text"),
        ([{"id": "1", "reply": 5}], "rows.jsonl:1: the reply is 5, not text"),
    ],
)  # fmt: skip
def test_predictions_that_do_not_fit_are_named(
    tmp_path: Path, rows: list[Any], complaint: str
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(CptBenchError) as caught:
        read_predictions(tmp_path / "rows.jsonl", ["1", "2", "3"])
    assert complaint in str(caught.value)


BAD_TOKENS = ["NaN", "Infinity", "-Infinity", "[3]", "{}", '"12"', "-5", "1" + "0" * 400, "true", "2.5", "1e400", "1e18", "-0.5", '""']  # fmt: skip


@pytest.mark.parametrize("tokens", BAD_TOKENS, ids=lambda t: t[:12])
@pytest.mark.parametrize("where", ["predictions", "run"])
def test_tokens_that_are_no_count_are_named(
    cli: Cli, tmp_path: Path, tokens: str, where: str
) -> None:
    rows = predictions(tmp_path / "p")["lowvision"]
    text = [json.dumps({**row, "tokens": "TOKENS" if i == 4 else 3}) for i, row in enumerate(rows)]
    broken = "\n".join(text).replace('"TOKENS"', tokens)
    if where == "run":
        assert cli("score", "p", "--suite", TINY, "--out", "run").returncode == 0
        (tmp_path / "run/stages/0-base/predictions/lowvision.jsonl").write_text(broken)
        one_line(cli("score", "run"), "lowvision.jsonl:5: ")
        return
    (tmp_path / "p/0-base/lowvision.jsonl").write_text(broken)
    one_line(cli("score", "p", "--suite", TINY, "--out", "run"), "lowvision.jsonl:5: ")
    assert not (tmp_path / "run").exists()


def test_tokens_that_a_table_wrote_as_decimals_are_whole(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "rows.jsonl",
        [{"id": 1, "reply": "", "tokens": 12.0}, {"id": 2, "reply": "", "tokens": None}],
    )
    found = [row["tokens"] for row in read_predictions(tmp_path / "rows.jsonl", ["1", "2"])]
    assert found == [12, None] and type(found[0]) is int


# ------------------------------------------------------------------------------ ten thousand inputs

ODD = st.sampled_from(
    [None, True, False, 0, -5, 3, 2.5, 1e300, 10**400, float("nan"), float("inf"), "", " ", "A", "B", "yes", "no", "12", "1,249",
     "None", "\ud83d", "\x00", "\u2028", "<answer>A</answer>", "<think>", "\\boxed{A}", "**A**", "letter", "number", "yesno", "math",
     [], ["a", "b"], ["yes"], [1, 2], [None], [[]], {}, {"a": 1}, "a" * 3000, "é", "１２", "−3", "(A)", "A. a"]
)  # fmt: skip
KEYS = [
    "id",
    "reply",
    "gold",
    "kind",
    "choices",
    "annotators",
    "category",
    "question",
    "tokens",
    "x",
]
GOOD = st.fixed_dictionaries(
    {"reply": st.text(max_size=12), "gold": st.sampled_from(["A", "yes", "12", "a"])},
    optional={"choices": st.just(["a", "b"]), "kind": st.sampled_from(["letter", "open", "word"])},
)
ODDER = st.builds(lambda row, key, value: {**row, key: value}, GOOD, st.sampled_from(KEYS), ODD)
ROW = st.one_of(ODDER, ODDER, st.dictionaries(st.sampled_from(KEYS), ODD, max_size=6))
RAW = st.sampled_from(
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"reply": "a", "reply": "b"}',
        "\r",
        "\ufeff{}",
        "]" * 9,
        "[" * 5000,
    ]
)
LINES = st.lists(st.one_of(GOOD, GOOD, ROW, RAW.map("{}\n".format)), max_size=3).map(
    lambda rows: lines(*rows)
)
BYTES = st.one_of(
    LINES.map(lambda text: text.encode(errors="surrogatepass")),
    LINES.map(lambda text: text.encode(errors="replace")),
    LINES.map(lambda text: BOM + text.encode(errors="replace")),
    st.one_of(st.binary(max_size=40), LINES.map(lambda text: text.encode("utf-16", errors="replace"))),
)  # fmt: skip
CHEAP = [name for name in MATCHERS if name not in ("math", "mathruler")]
OPTIONS = st.one_of(
    st.fixed_dictionaries(
        {"grader": st.sampled_from(CHEAP)}, optional={"form": st.sampled_from(Form)}
    ),
    st.fixed_dictionaries(
        {"grader": st.sampled_from([*CHEAP, None, "", "a/b", ":", "exacd"])},
        optional={
            "form": st.sampled_from(Form),
            "suite": st.sampled_from([str(TINY), str(TINY), "", "nowhere", "tiny@x"]),
            "task": st.sampled_from(["science", "science", "x", ""]),
            "profile": st.sampled_from(["x", "unified"]),
            "out": st.sampled_from(["o/o.jsonl", ".", "in.jsonl/x"]).map(Path),
        },
    ),
)
ANY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def outcome(folder: Path, command: Callable[..., None], *args: Any, **options: Any) -> str:
    """``result`` or ``one line``; what ``cptbench`` would end in a traceback on is raised."""
    out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with contextlib.chdir(folder), out, err:
        try:
            command(*args, **options)
        except CptBenchError as error:
            assert "\n" not in str(error), str(error)
        except OSError as error:
            assert error.errno in FULL | MISPLACED
        else:
            return "result"
    return "one line"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def both_occur(outcomes: Counter[str]) -> None:
    """That what was tried was neither all nonsense nor all right."""
    assert min(outcomes["result"], outcomes["one line"]) > sum(outcomes.values()) / 40, outcomes


@pytest.mark.parametrize(
    "examples", [200, pytest.param(1500, marks=pytest.mark.slow)]
)  # fmt: skip
def test_no_input_ends_grade_in_a_traceback(folder: Path, examples: int) -> None:
    outcomes: Counter[str] = Counter()

    @settings(max_examples=examples, **ANY)
    @given(BYTES, OPTIONS)
    def run(data: bytes, options: dict[str, Any]) -> None:
        (folder / "in.jsonl").write_bytes(data)
        outcomes[outcome(folder, grade, "in.jsonl", **options)] += 1

    run()
    both_occur(outcomes)


@pytest.fixture(scope="module")
def scored(folder: Path) -> Iterator[Path]:
    """A run of the tiny suite with everything in it that ``score`` reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpt_bench.results.scoring.DRAWS", 10)
        run = write_run(folder / "run", suite=str(TINY), limit=4)
        made = {"evaluator": "lm-eval", "version": "1", "task_version": 1}
        for stage in sorted((run / "stages").iterdir()):
            rows = [{"id": i, "reply": "a", "score": float(i % 2)} for i in range(4)]
            general.write(
                stage / "general",
                general.parse("lm-eval:x"),
                "0",
                general.Measured(rows, 50.0, made),
            )
        yield run


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything in a JSON value."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(p for key, v in inner for p in places(v, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """``value`` with something else at ``path``."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize(
    "examples", [40, pytest.param(250, marks=pytest.mark.slow)]
)  # fmt: skip
def test_no_file_of_a_run_ends_score_in_a_traceback(scored: Path, examples: int) -> None:
    outcomes: Counter[str] = Counter()
    files = [scored / "run.json", *sorted((scored / "stages").rglob("*.json*"))]

    @settings(max_examples=examples, **ANY)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files))
        before = file.read_bytes()
        if data.draw(st.booleans()):
            text = data.draw(BYTES)
        else:
            rows = read_jsonl(file) if file.suffix == ".jsonl" else read_json(file)
            row = changed(rows, data.draw(st.sampled_from(places(rows)[1:])), data.draw(ODD))
            whole = lines(*row) if isinstance(row, list) else json.dumps(row)
            text = whole.encode(errors="surrogatepass")
        file.write_bytes(text)
        try:
            outcomes[outcome(scored.parent, score, Path(scored.name))] += 1
        finally:
            file.write_bytes(before)

    run()
    both_occur(outcomes)


STAGES = ["", "0-base/", "0-base/", "1/", "stage_2/", "9-x/", "y/", "1/predictions/"]
IDS = [sample.id for sample in split(str(TINY), "science")]
ANSWER = st.builds(
    lambda name, reply, key, value: {"id": name, "reply": reply} | ({key: value} if key else {}),
    st.sampled_from(IDS), st.text(max_size=5), st.sampled_from(["", "", "", "tokens", "reply", "id", "x"]), ODD,
)  # fmt: skip
ALL = st.permutations(IDS).map(
    lambda ids: lines(*({"id": i, "reply": "A", "tokens": 1} for i in ids))
)


@pytest.mark.parametrize(
    "examples", [60, pytest.param(500, marks=pytest.mark.slow)]
)  # fmt: skip
def test_no_predictions_end_score_in_a_traceback(scored: Path, examples: int) -> None:
    outcomes: Counter[str] = Counter()
    folder = scored.parent
    texts = st.one_of(ALL.map(str.encode), st.lists(ANSWER).map(lambda rows: lines(*rows).encode(errors="surrogatepass")), BYTES)  # fmt: skip

    @settings(max_examples=examples, **ANY)
    @given(texts, st.sampled_from(STAGES), st.sampled_from(["science", "science", "science", "x"]))
    def run(data: bytes, stage: str, name: str) -> None:
        for old in ("p", "made", "made.partial"):
            shutil.rmtree(folder / old, ignore_errors=True)
        file = folder / "p" / f"{stage}{name}.jsonl"
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
        done = outcome(folder, score, Path("p"), suite=str(TINY), out=Path("made"))
        outcomes[done] += 1
        assert (folder / "made").exists() == (done == "result")

    run()
    both_occur(outcomes)


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e999, float("nan")])
def test_a_cell_that_is_not_finite_is_named(cli: Cli, tmp_path: Path, value: float) -> None:
    whole = changed(MATRIX, ("accuracy", 1, 1), value)
    (tmp_path / "m.json").write_text(json.dumps(whole))
    one_line(cli("metrics", "m.json"), "m.json: row 1, column 2 is", "not a finite number")


MATRIX = {"tasks": ["a", "b"], "accuracy": [[1, 2], [3, None], [5, 6]], "n": [10, 10]}


@pytest.mark.parametrize(
    "examples", [100, pytest.param(1000, marks=pytest.mark.slow)]
)  # fmt: skip
def test_no_matrix_ends_metrics_in_a_traceback(folder: Path, examples: int) -> None:
    outcomes: Counter[str] = Counter()
    odd = st.builds(lambda place, value: changed(MATRIX, place, value), st.sampled_from(places(MATRIX)), ODD)  # fmt: skip
    texts = st.one_of(odd.map(lambda v: json.dumps(v).encode()), st.floats(0, 100).map(lambda v: json.dumps(changed(MATRIX, ("accuracy", 1, 0), v)).encode()), BYTES)  # fmt: skip

    @settings(max_examples=examples, **ANY)
    @given(texts)
    def run(data: bytes) -> None:
        (folder / "m.json").write_bytes(data)
        outcomes[outcome(folder, metrics, Path("m.json"))] += 1

    run()
    both_occur(outcomes)
