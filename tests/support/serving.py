"""OpenAI-compatible servers on loopback: ``transformers serve``, and one whose answers a test decides."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cpt_bench.engines.endpoint import EndpointEngine

Answer = Callable[[dict[str, Any], int], tuple[int, Any]]
"""(the request's body, which request it is) -> (HTTP status, the answer's body)."""


class Server:
    """``transformers serve CHECKPOINT`` on a free port; started, killed and started again."""

    def __init__(self, checkpoint: Path, log: Path) -> None:
        self.checkpoint, self.log = checkpoint, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "cpt_bench.engines.serve", str(self.checkpoint), "--port", str(self.port),
            "--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32",
            "--attn-implementation", "eager", "--log-level", "error",
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def start(self, wait: float = 120) -> None:
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                self.command(), stdout=stream, stderr=stream, env=self.environment(),
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.log.read_text()[-800:]}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError(f"the server did not start: {self.log.read_text()[-800:]}")

    def kill(self) -> None:
        """End the server at once, and whatever it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class AnyModel(Server):
    """``transformers serve`` of whatever model a request names."""

    def command(self) -> list[str]:
        return [word for word in super().command() if word != str(self.checkpoint)]


class VLLMServer(Server):
    """``vllm serve CHECKPOINT``, called ``nano``; ``more`` are further options, and may change."""

    more: tuple[str, ...] = ()

    def command(self) -> list[str]:
        return [
            str(Path(sys.executable).parent / "vllm"), "serve", str(self.checkpoint),
            "--served-model-name", "nano", "--dtype", "float32", "--enforce-eager",
            "--kv-cache-memory-bytes", str(64 << 20), "--host", "127.0.0.1",
            "--port", str(self.port), *self.more,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        asked = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_SERVER_DEV_MODE": "1"}
        return {**super().environment(), **asked}

    def start(self, wait: float = 300) -> None:
        super().start(wait)


def completion(text: Any, **changes: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    choice |= {k: v for k, v in changes.items() if k in choice}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice],
            "usage": {"completion_tokens": 3, "prompt_tokens": 5, "total_tokens": 8}}  # fmt: skip
    return body | {k: v for k, v in changes.items() if k not in choice}


class Fake:
    """A server whose answers a test decides; it counts what it is asked.

    ``models`` is its list of models; without one it has none.
    """

    def __init__(self, answer: Answer, models: list[dict[str, Any]] | None = None) -> None:
        self.models = models
        self.asked: list[dict[str, Any]] = []
        self.most, self.now = 0, 0
        lock, fake = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    fake.asked.append({"path": self.path, **body})
                    number = len(fake.asked)
                    fake.now += 1
                    fake.most = max(fake.most, fake.now)
                status, said = answer(body, number)
                with lock:
                    fake.now -= 1
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                known = fake.models is not None and self.path == "/v1/models"
                data = json.dumps({"object": "list", "data": fake.models}).encode()
                self.send_response(200 if known else 404)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def engine(self, **settings: Any) -> EndpointEngine:
        settings = {"model": "m", "nonce": "a", "retries": 0, "timeout": 20} | settings
        return EndpointEngine(self.url, **settings)


@contextlib.contextmanager
def any_model(folder: Path) -> Iterator[AnyModel]:
    """A server that loads whichever model it is asked for, while the block runs."""
    running = AnyModel(Path("none"), folder / "log")
    running.start(300)
    try:
        yield running
    finally:
        running.kill()
