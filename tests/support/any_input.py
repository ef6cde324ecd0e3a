"""Any command with any options, files and environment: ``python -m tests.support.any_input 10000``.

Commands, options and arguments are read from the command line's own tree, so that a new command is
tried from its first day. Values are of the kind that an option wants, nearly so, or anything at
all; files are whole, cut short, of another kind, or not text. Each call must end by itself with a
known exit status and without a traceback.

Nothing is trained and nothing is fetched: processes cannot be started, as on a machine that has
reached its limit of them, and there is no network.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import typer

from cpt_bench.cli.main import app, entry
from tests.support.simulated import write_run

LIMIT = 60
"""Seconds after which a call counts as one that never ends."""

STATUSES = (0, 1, 2, 75, None)
"""Exit statuses of a call that ended as it should."""

WORDS = (
    *("nano", "cpt7", "cpt7@mini", "nano/text", "cpt7/gqa", "sft", "rft", "replay", "joint"),
    *("mine:Method", "./mine.py:Method", "transformers", "vllm", "http://127.0.0.1:9", "last"),
    *("math", "all", "", " ", "-", "--", "..", "/dev/null", "~", "*", "a=b", "seed=1", "x=[1", "=", "a,b"),
    *("learning_rate=nan", "ü", "日本", "\udc80", "\u202e", "a\nb", "\x1b[31m", "x" * 300, "%s"),
    *("{0}", "None", "true", "1:2:3", "run", "broken0", "broken1", "broken2"),
)  # fmt: skip
NUMBERS = (
    *("0", "1", "2", "-1", "1e9", "1e400", "nan", "inf", "0x10", "1_0", "١", "9" * 30, "1.5"),
    *("", "a"),
)  # fmt: skip
TEXTS = (
    "", "\n", "null", "[]", "{}", "[1, 2", '{"accuracy": [[1]]}', '{"reply": "A", "gold": "A"}',
    '{"reply": null, "gold": 1}\n{', "a: b", "a: [", "- x\n- y", "a: &a [*a]", "!!python/object:x {}",
    "\ufeff{}", "runs:\n  - trainer: sft", "trainers: [sft]\nseeds: [0]", "1,2,3\n", "nan", "\x00",
    "class Method:\n    pass", "def f(:", "[" * 5000, '{"a":' * 3000, '{"accuracy": [[1e400, "x"], null]}',
    "suite: nano\ntrainers: [sft]\nseeds: [-1]", "title: x\nmethod: 3", '{"format": 1}', '"text"', "3",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 3, 1.5, 1e300, "", "x", "nano", "../x", [], {}, [1], ["x"], [None], {"a": 1}),
    *([[1]], [{}], 10**30, "é" * 200, float("nan")),
)  # fmt: skip
BYTES = (b"\xff\xfe\x00", b"\x80abc", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"%PDF", b"\x00" * 64)
VARIABLES = {
    "CPTBENCH_DATA": ("", "nowhere", "file.json", "/proc", "x" * 300),
    "CPTBENCH_CACHE": ("", "nowhere", "file.json", "/proc"),
    "HF_HOME": ("", "nowhere", "file.json"),
    "OPENAI_API_KEY": ("", "é", "a b"),
    "COLUMNS": ("0", "-1", "a", "1", "99999"),
    "NO_COLOR": ("", "1"),
    "CUDA_VISIBLE_DEVICES": ("", "-1", "a", "0,0"),
    "OMP_NUM_THREADS": ("0", "a"),
    "HOME": ("", "nowhere", "file.json", "/proc", "/dev/null", "x" * 300),
    "TMPDIR": ("", "nowhere", "file.json", "/proc", "d" * 200, "/" + "x" * 300),
    "LANG": ("", "C", "POSIX", "en_US", "tlh_KX.UTF-99"),
    "SSL_CERT_FILE": ("", "nowhere.pem", "file.json", "/dev/null", "."),
}


class Endless(BaseException):
    """A call that did not end in time."""


def commands() -> dict[tuple[str, ...], Any]:
    """Every command that does something, by its words."""
    found: dict[tuple[str, ...], Any] = {}

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
        suffix = rng.choice((".json", ".jsonl", ".yaml", ".py", ".csv", ""))
        (folder / f"text{n}{suffix}").write_text(text)
    for n, data in enumerate(BYTES):
        (folder / f"bytes{n}{rng.choice(('.json', '.jsonl', '.yaml', ''))}").write_bytes(data)
    (folder / "file.json").write_text("{}")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nowhere")
    write_run(folder / "run")
    for n in range(4):
        shutil.copytree(folder / "run", folder / f"broken{n}")
        damage(folder / f"broken{n}", rng)
    return sorted(p.name for p in folder.iterdir())


def damage(run: Path, rng: random.Random) -> None:
    """Cut, replace, alter, remove or turn into a folder a few files of a run."""
    files = [p for p in sorted(run.rglob("*")) if p.is_file()]
    for file in [run / "run.json"] * (rng.random() < 0.3) + rng.sample(files, min(3, len(files))):
        how = rng.randrange(8)
        if not file.is_file() or (how > 4 and file.suffix not in (".json", ".jsonl")):
            continue
        if how == 0:
            file.write_bytes(file.read_bytes()[: rng.randrange(1, 200)])
        elif how == 1:
            file.write_text(rng.choice(TEXTS))
        elif how == 2:
            file.write_bytes(rng.choice(BYTES))
        elif how < 5:
            file.unlink()
            if how == 3:
                file.mkdir()
        else:
            first, _, rest = file.read_text().partition("\n" if file.suffix == ".jsonl" else "\0")
            with contextlib.suppress(ValueError):  # already damaged
                file.write_text(f"{json.dumps(altered(json.loads(first), rng))}\n{rest}")


def altered(value: Any, rng: random.Random) -> Any:
    """A JSON value with one value inside it, or a key, replaced or gone."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy: Any = value.copy()
        if rng.random() < 0.2:
            del copy[key]
        else:
            copy[key] = altered(value[key], rng)
        return copy
    return rng.choice(ODD)


def value(parameter: Any, files: list[str], rng: random.Random) -> str:
    """A value for an option or argument: usually of its kind."""
    pools: dict[str, Any] = {"path": files, "integer": NUMBERS, "float": NUMBERS}
    pool = pools.get(parameter.type.name)
    if hasattr(parameter.type, "choices"):
        pool = [str(getattr(c, "value", c)) for c in parameter.type.choices]
    if pool is None or rng.random() < 0.2:
        pool = rng.choice((files, NUMBERS, WORDS, WORDS))
    return rng.choice(pool)


def arguments(
    words: tuple[str, ...], command: Any, files: list[str], rng: random.Random
) -> list[str]:
    """A call of a command, with a few of its options."""
    options = [
        p
        for p in command.params
        if p.param_type_name == "option" and "completion" not in (p.name or "")
    ]
    line = [*words]
    chosen = rng.sample(options, min(len(options), rng.choice((0, 1, 2, 3))))
    chosen += [o for o in options if o.required and o not in chosen and rng.random() < 0.9]
    for option in chosen:
        line.append(rng.choice((*option.opts, *option.secondary_opts)))
        if not option.is_flag:
            line.append(value(option, files, rng))
    for argument in command.params:
        if argument.param_type_name == "argument" and rng.random() < 0.95:
            many = rng.choice((1, 1, 2)) if argument.nargs == -1 else 1
            line += [value(argument, files, rng) for _ in range(many)]
    return line


@contextlib.contextmanager
def without_processes() -> Iterator[None]:
    """No process can be started, there is no network, and what never ends is ended."""

    class Refused(subprocess.Popen):  # type: ignore[type-arg]  # torch and others subclass it
        def __init__(self, *args: object, **kwargs: object) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        def __del__(self) -> None: ...

    def refuse(*args: object, **kwargs: object) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    def give_up(signum: int, frame: object) -> None:
        raise Endless

    former = signal.signal(signal.SIGALRM, give_up)
    try:
        with (
            mock.patch("subprocess.Popen", Refused),
            mock.patch("os.fork", refuse),
            mock.patch("os.posix_spawn", refuse),
            mock.patch("multiprocessing.process.BaseProcess.start", refuse),
            mock.patch("multiprocessing.forkserver.ForkServer.ensure_running", refuse),
            mock.patch.dict(
                os.environ, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
            ),
        ):
            yield
    finally:
        signal.signal(signal.SIGALRM, former)


def call(line: list[str], environment: dict[str, str]) -> tuple[Any, str]:
    """The exit status of a call and what it wrote as errors; or ``traceback``, ``endless``."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    replies = io.TextIOWrapper(io.BytesIO(b'{"reply": "A", "gold": "A"}\n'), encoding="utf-8")
    status: Any = 0
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["cptbench", *line]),
        mock.patch.object(sys, "stdin", replies),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        signal.alarm(LIMIT)
        try:
            entry()
        except SystemExit as end:
            status = end.code
        except Endless:
            return "endless", traceback.format_exc()
        except BaseException:
            return "traceback", traceback.format_exc()
        finally:
            signal.alarm(0)
    err.flush()
    text = err.buffer.getvalue().decode(errors="replace")  # type: ignore[attr-defined]
    return ("traceback" if "Traceback" in text else status), text


def tried(n: int, seed: int = 0) -> Iterator[tuple[list[str], dict[str, str], Any, str]]:
    """Try ``n`` calls: each with its environment, its end, and what it wrote as errors."""
    rng = random.Random(seed)
    known = commands()
    here = Path.cwd()
    with without_processes():
        for block in range(0, n, 100):
            with tempfile.TemporaryDirectory() as place:
                os.chdir(place)
                try:
                    files = furnish(Path(place), rng)
                    for _ in range(min(100, n - block)):
                        words = rng.choice(sorted(known))
                        line = arguments(words, known[words], files, rng)
                        environment = {
                            key: rng.choice(values)
                            for key, values in VARIABLES.items()
                            if rng.random() < 0.1
                        }
                        yield line, environment, *call(line, environment)
                finally:
                    os.chdir(here)


def main() -> None:
    """Try as many calls as asked for, and show what should not be."""
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    ends: Counter[str] = Counter()
    faults = 0
    for n, (line, environment, status, text) in enumerate(tried(int(sys.argv[1]), seed)):
        ends[f"{line[0]}: {status}"] += 1
        if status not in STATUSES:
            faults += 1
            print(f"{n}: {json.dumps(line)} {environment}\n{text[-3000:]}", flush=True)
    for end, times in sorted(ends.items()):
        print(f"{times:6} {end}")
    print(f"{sum(ends.values())} inputs, {faults} that end in a traceback or not at all")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
