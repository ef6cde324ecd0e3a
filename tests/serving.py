"""Real OpenAI-compatible servers on loopback, in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


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
            sys.executable, "-m", "cpt_bench.serve", str(self.checkpoint), "--port", str(self.port),
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
        """At once, with whatever it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


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
