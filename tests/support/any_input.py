"""Any command of cptbench with any options, files and environment: ``python -m tests.support.any_input 10000``.

Commands, options and arguments are read from the command line's own tree, so that a new command is
tried from its first day. Values are of the kind that an option wants, nearly so, or anything at all;
files are whole, cut short, of another kind, or not text. Each call ends with an exit status and, if
it failed, with one line: a traceback is a fault.

Nothing is trained and nothing is fetched: whatever would start a process of its own is refused
there, as it would be on a machine that cannot start one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import typer

from cpt_bench.cli.main import app, entry
from cpt_bench.errors import CptBenchError
from tests.support.simulated import write_run

WORDS = (
    *(
        "nano",
        "cpt7",
        "cpt7@mini",
        "nano/text",
        "cpt7/gqa",
        "sft",
        "rft",
        "replay",
        "joint",
        "math",
    ),
    *(
        "mine:Method",
        "./mine.py:Method",
        "transformers",
        "vllm",
        "http://127.0.0.1:9",
        "last",
        "all",
    ),
    *(
        "",
        " ",
        "-",
        "--",
        "..",
        "/",
        "~",
        "*",
        "a=b",
        "seed=1",
        "learning_rate=nan",
        "x=[1",
        "=",
        "a,b",
    ),
    *(
        "ü",
        "日本",
        "\udc80",
        "\u202e",
        "a\nb",
        "\x1b[31m",
        "x" * 300,
        "%s",
        "{0}",
        "None",
        "true",
        "1:2:3",
    ),
)
NUMBERS = (
    "0",
    "1",
    "2",
    "-1",
    "1e9",
    "1e400",
    "nan",
    "inf",
    "0x10",
    "1_0",
    "١",
    "9" * 30,
    "1.5",
    "",
    "a",
)
TEXTS = (
    "", "\n", "null", "[]", "{}", "[1, 2", '{"accuracy": [[1]]}', '{"reply": "A", "gold": "A"}',
    '{"reply": null, "gold": 1}\n{', "a: b", "a: [", "- x\n- y", "a: &a [*a]", "!!python/object:x {}",
    "\ufeff{}", "runs:\n  - trainer: sft", "trainers: [sft]\nseeds: [0]", "1,2,3\n", "nan", "\x00",
    "class Method:\n    pass", "def f(:", "[" * 5000, '{"a":' * 3000, '{"accuracy": [[1e400, "x"], null]}',
)  # fmt: skip
BYTES = (b"\xff\xfe\x00", b"\x80abc", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"%PDF", b"\x00" * 64)
LANGUAGES = ("C", "C.UTF-8", "POSIX", "xx")
VARIABLES = {
    "CPTBENCH_DATA": ("", "nowhere", "file.json", "/proc", "x" * 300),
    "CPTBENCH_PLUGINS": ("", "nowhere", "file.json", ".", ":"),
    "OPENAI_API_KEY": ("", "é", "a b"),
    "COLUMNS": ("0", "-1", "a", "1", "99999"),
    "NO_COLOR": ("", "1"),
}


def commands() -> dict[tuple[str, ...], click.Command]:
    """Every command that does something, by its words."""
    found: dict[tuple[str, ...], click.Command] = {}

    def walk(words: tuple[str, ...], command: Any) -> None:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                walk((*words, name), inner)
        else:
            found[words] = command

    walk((), typer.main.get_command(app))
    return found


def furnish(folder: Path, rng: random.Random) -> list[str]:
    """Fill a folder with files and runs, some of them damaged; the names in it."""
    for n, text in enumerate(TEXTS):
        (
            folder / f"text{n}{rng.choice(('.json', '.jsonl', '.yaml', '.py', '.csv', ''))}"
        ).write_text(text)
    for n, data in enumerate(BYTES):
        (folder / f"bytes{n}{rng.choice(('.json', '.jsonl', '.yaml', ''))}").write_bytes(data)
    (folder / "file.json").write_text("{}")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nowhere")
    with contextlib.suppress(OSError, CptBenchError):
        whole = folder / "run"
        write_run(whole)
        for n in range(4):
            broken = folder / f"broken{n}"
            shutil.copytree(whole, broken)
            damage(broken, rng)
    return sorted(p.name for p in folder.iterdir())


def damage(run: Path, rng: random.Random) -> None:
    """Cut, replace, remove or turn into a folder a few files of a run."""
    files = [p for p in run.rglob("*") if p.is_file()]
    for file in rng.sample(files, min(3, len(files))):
        how = rng.randrange(5)
        if how == 0:
            file.write_bytes(file.read_bytes()[: rng.randrange(1, 200)])
        elif how == 1:
            file.write_text(rng.choice(TEXTS))
        elif how == 2:
            file.write_bytes(rng.choice(BYTES))
        elif how == 3:
            file.unlink()
        else:
            file.unlink()
            file.mkdir()


def value(parameter: click.Parameter, files: list[str], rng: random.Random) -> str:
    """A value for an option: usually of its kind."""
    kind = parameter.type.name
    wanted = {"path": files, "integer": NUMBERS, "float": NUMBERS}.get(kind)
    if isinstance(parameter.type, click.Choice):
        wanted = [str(getattr(c, "value", c)) for c in parameter.type.choices]
    pool: Any = (
        wanted if wanted and rng.random() < 0.8 else rng.choice((files, NUMBERS, WORDS, WORDS))
    )
    return str(rng.choice(pool))


def arguments(
    words: tuple[str, ...], command: click.Command, files: list[str], rng: random.Random
) -> list[str]:
    """A call of a command, with a few of its options."""
    options = [p for p in command.params if isinstance(p, click.Option)]
    line = [*words]
    for option in rng.sample(options, min(len(options), rng.choice((0, 1, 2, 3)))):
        line.append(rng.choice((*option.opts, *option.secondary_opts)))
        if not option.is_flag:
            line.append(value(option, files, rng))
    for option in options:
        if option.required and not {*option.opts} & {*line} and rng.random() < 0.9:
            line += [option.opts[0], value(option, files, rng)]
    for argument in command.params:
        if isinstance(argument, click.Argument):
            many = rng.choice((1, 1, 2)) if argument.nargs == -1 else 1
            line += [value(argument, files, rng) for _ in range(many if rng.random() < 0.95 else 0)]
    return line


@contextlib.contextmanager
def without_processes() -> Iterator[None]:
    """No process is started, and nothing waits for a network."""

    def refuse(*args: object, **kwargs: object) -> Any:
        raise CptBenchError("no process can be started")

    with (
        mock.patch("cpt_bench.worker.process.Worker", refuse),
        mock.patch("cpt_bench.worker.process.warm_up", lambda *a, **k: None),
        mock.patch("subprocess.Popen", side_effect=OSError(11, "Resource temporarily unavailable")),
    ):
        yield


def call(line: list[str], environment: dict[str, str]) -> tuple[Any, str]:
    """The exit status of a command and what went wrong in it; a traceback where it is a fault."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    standard_input = io.TextIOWrapper(
        io.BytesIO(b'{"reply": "A", "gold": "A"}\n'), encoding="utf-8"
    )
    status: Any = 0
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["cptbench", *line]),
        mock.patch.object(sys, "stdin", standard_input),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            entry()
        except SystemExit as end:
            status = end.code
        except BaseException:
            return "traceback", traceback.format_exc()
    err.flush()
    text = err.buffer.getvalue().decode(errors="replace")  # type: ignore[attr-defined]
    return ("traceback" if "Traceback" in text else status), text


def tried(n: int, seed: int = 0, show: bool = False) -> tuple[Counter[str], list[str]]:
    """Try ``n`` calls; how often each command ended in each way, and the faults."""
    rng = random.Random(seed)
    known = commands()
    ends: Counter[str] = Counter()
    faults: list[str] = []
    here = Path.cwd()
    with without_processes():
        for block in range(0, n, 100):
            with tempfile.TemporaryDirectory() as place:
                os.chdir(place)
                try:
                    files = furnish(Path(place), rng)
                    for i in range(block, min(n, block + 100)):
                        words = rng.choice(sorted(known))
                        line = [
                            a.replace("\x00", "")
                            for a in arguments(words, known[words], files, rng)
                        ]
                        if "--install-completion" in line or "--show-completion" in line:
                            continue
                        environment = {
                            key: rng.choice(values)
                            for key, values in VARIABLES.items()
                            if rng.random() < 0.1
                        }
                        status, text = call(line, environment)
                        ends[f"{' '.join(words)}: {status}"] += 1
                        if status not in (0, 1, 2, 75):
                            faults.append(f"{i}: {json.dumps(line)} {environment}\n{text}")
                            if show:
                                print(faults[-1][-3000:], flush=True)
                finally:
                    os.chdir(here)
    return ends, faults


if __name__ == "__main__":
    counted, wrong = tried(
        int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, show=True
    )
    for end, times in sorted(counted.items()):
        print(f"{times:6} {end}")
    print(f"{sum(counted.values())} inputs, {len(wrong)} tracebacks")
    sys.exit(bool(wrong))
