"""``--trainer "cmd:python train.py {stage}"``: a method that is any program.

The program reads ``stage.json`` and writes a checkpoint; it need not know that cptbench exists.
What it prints is shown and logged at once. While it runs, a small local server computes rewards, so
that reinforcement learning in another framework uses the suite's own grader.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import PathFinder
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict

from cpt_bench.errors import CptBenchError, TrainerFault
from cpt_bench.files import digest, digest_json, parsed, read_jsonl
from cpt_bench.models.chat import chat_of
from cpt_bench.plugins import Resolved, code_digest
from cpt_bench.stage.document import StageDocument
from cpt_bench.stage.scripts import used_by
from cpt_bench.trainer import Stage, Trainer, TrainerConfig, TrainSample
from cpt_bench.worker.logs import Lines, Sometimes

PREFIX = "cmd:"
LAST_LINES = 5

BLOCK = 64 << 10
"""Bytes that are read at once: a program may print without ever ending a line."""

LONGEST, TOLD = 500, 200
"""Characters of a line that are passed on, and lines a second; the log has them all."""


def arguments(spec: str, stage: Path, output: Path) -> list[str]:
    """The command line of ``spec`` with ``{stage}`` and ``{output}`` filled in; no shell.

    Raises:
        CptBenchError: It is empty, or its quotes do not match.
    """
    try:
        words = shlex.split(spec.removeprefix(PREFIX))
    except ValueError as error:
        raise CptBenchError(f"not a command line ({error})", where=f"--trainer {spec!r}") from None
    if not words:
        raise CptBenchError("no command after cmd:", where=f"--trainer {spec!r}")
    places = {"{stage}": str(stage), "{output}": str(output)}
    for name, value in places.items():
        words = [word.replace(name, value) for word in words]
    return words


class Settings(TrainerConfig):
    """Any settings given with ``--set``; the program finds them as ``config`` in ``stage.json``."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Command(Trainer):
    """Runs a command line on a stage; :func:`find` makes one from a spec.

    Attributes:
        spec: ``cmd:`` and the command line.
    """

    Config = Settings
    spec: ClassVar[str]

    def train(self, stage: Stage) -> None:
        """Run the command until it ends, and pass on what it prints and logs.

        Raises:
            TrainerFault: The command cannot be started, or exits with a code other than 0.
        """
        words = arguments(self.spec, stage.document, stage.output)
        document = StageDocument.read(stage.document)
        document.log.touch()
        tail: deque[str] = deque(maxlen=LAST_LINES)
        with reward_server(stage) as url, Follower(document.log, stage.log):
            more = {"reward_url": url, "chat": chat_of(document.policy, document.system)}
            document.model_copy(update=more).write(stage.document)
            process = _start(words, stage)
            assert process.stdout is not None
            told, lines = Sometimes(TOLD), Lines(LONGEST)
            ended = False
            while not ended:
                block = os.read(process.stdout.fileno(), BLOCK)
                ended = not block
                text, whole = lines.feed(block)
                print(text, end="", flush=True)
                for line in whole:
                    tail.append(line.strip()[:200])
                    if told():
                        stage.tell(line.rstrip())
            code = process.wait()
        read_jsonl(document.log)  # raises if a line is not JSON
        if code != 0:
            output = f"; its last output: {' | '.join(tail)}" if tail else ""
            how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
            kind, where = "killed" if code < 0 else "crash", shlex.join(words)[:200]
            raise TrainerFault(kind, f"the command {how}{output}", where=where)


def find(spec: str) -> Resolved:
    """The trainer for a ``cmd:…`` spec.

    Its origin is a digest of the files on the command line, of what they use
    (:func:`cpt_bench.stage.scripts.used_by`), and of the module or package that follows ``-m``.
    """
    words = arguments(spec, Path("{stage}"), Path("{output}"))
    if shutil.which(words[0]) is None:
        raise CptBenchError(f"no program is called {words[0]!r}", where=f"--trainer {spec!r}")
    files = [word for word in words if Path(word).is_file()]
    code = {word: digest(Path(word)) for word in files}
    for word in files:
        code |= {f"{word}: {name}": digest(file) for name, file in used_by(Path(word)).items()}
    modules = [word for before, word in pairwise(words) if before in ("-m", "--module")]
    code |= {module: code_digest(place) for module in modules if (place := _place(module))}
    if files[:1] == words[:1] and Path(words[0]).is_absolute():
        del files[0]  # the interpreter does not identify the method
    name = Path(files[0]).stem if files else [*modules, Path(words[0]).stem][0]
    origin = {"spec": spec, "sha256": digest_json(code)}
    return Resolved(name, type("Command", (Command,), {"spec": spec}), origin, Path.cwd())


def _place(module: str) -> Path | None:
    """Where ``python -m`` would find a module's top-level package, without importing it."""
    top = module.partition(".")[0]
    found = PathFinder.find_spec(top, [str(Path.cwd()), *sys.path])
    if found is None:
        return None
    place = next(iter(found.submodule_search_locations or ()), found.origin)
    return Path(place) if place else None


def _start(words: list[str], stage: Stage) -> subprocess.Popen[bytes]:
    variables = {"CPTBENCH_STAGE": str(stage.document), "CPTBENCH_OUTPUT": str(stage.output)}
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
        )
    except OSError as error:
        problem = f"cannot start {words[0]!r} ({error.strerror})"
        raise TrainerFault("crash", problem) from None


class Follower:
    """Passes on each row that another process appends to a JSON-lines file."""

    def __init__(self, file: Path, tell: Callable[[dict[str, Any]], None]) -> None:
        self.file, self.tell, self.offset = file, tell, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()
        self._read()

    def _follow(self) -> None:
        while not self.stop.wait(0.2):
            self._read()

    def _read(self) -> None:
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            whole, newline, _ = stream.read().rpartition(b"\n")
        self.offset += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                row = parsed(line)
            except ValueError:
                continue  # the whole file is checked after the command ends
            if isinstance(row, dict):
                self.tell({k: v for k, v in row.items() if isinstance(v, int | float | str)})


@contextmanager
def reward_server(stage: Stage) -> Iterator[str]:
    """Serve rewards over HTTP on this machine; yields the address.

    ``POST {"task", "id", "reply"}`` returns ``{"total", "accuracy", "format_ok"}``; a list of such
    objects returns a list.
    """

    def answer(asked: Any) -> Any:
        if isinstance(asked, list):
            return [answer(one) for one in asked]
        # The reward needs only the sample's id and task.
        named = TrainSample(asked["id"], asked.get("task", stage.task), "", (), "")
        return stage.reward(named, asked["reply"])._asdict()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                request = self.rfile.read(int(self.headers["Content-Length"]))
                body, status = answer(parsed(request)), 200
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                body, status = {"error": f"{type(error).__name__}: {error}"}, 400
            encoded = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: object) -> None:
            """Do nothing: the log belongs to the trainer."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
