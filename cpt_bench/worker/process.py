"""Runs heavy work in a separate process that starts quickly.

A stage's training and each evaluation run in a child of a fork server that has already imported
torch, transformers and trl: a child starts in milliseconds, frees its memory when it ends, and does
not take the run down if it crashes. A child may also stay and take one job after the other, for an
engine on a GPU, which is slow to start.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, spawn
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cpt_bench.environment import folder_for_sockets
from cpt_bench.errors import CONTINUE, CptBenchError, TrainerFault, WorkerLost
from cpt_bench.worker.logs import SLACK, cut, last_words
from cpt_bench.worker.monitor import MEMORY_EVERY, Limits, Monitor, end_children

PRELOAD = ("cpt_bench.worker.preload",)


def context() -> Any:
    """The multiprocessing context of all workers; the server starts with the first worker."""
    ctx = mp.get_context("forkserver")
    ctx.set_forkserver_preload(list(PRELOAD))
    # Where multiprocessing creates its sockets; by default, in the folder for temporary files.
    if (folder := folder_for_sockets()) is not None:
        mp.current_process()._config["tempdir"] = str(folder)  # type: ignore[attr-defined]
    return ctx


NAME = "cptbench worker"
"""The name of the processes that this module starts."""

_preparation_data = spawn.get_preparation_data


def _without_main(name: str) -> dict[str, Any]:
    """Preparation data of a new process; our workers do not import the caller's main module.

    multiprocessing makes each child import the main module first, since the objects it receives may
    be defined there. Ours never are; and a plain script that calls ``cpt_bench.run`` at its top
    level would start itself again in every worker.
    """
    data: dict[str, Any] = _preparation_data(name)
    if name == NAME:
        data = {key: value for key, value in data.items() if not key.startswith("init_main")}
    return data


spawn.get_preparation_data = _without_main


def warm_up() -> None:
    """Start the fork server now, so that it imports while this process does other things."""
    context()
    forkserver.ensure_running()


class Worker:
    """One call in a child process.

    Args:
        work: A module-level function; its first argument is ``say``, which sends one event (a JSON
            object) to the parent.
        args: Its other arguments; they must pickle. None: its other argument is an iterator of the
            jobs that :meth:`ask` sends; a job is done when ``work`` takes the next one.
        log: The file that receives the child's output; of a long one, its beginning and end.
        what: Describes the call in errors: ``stage 3 (gqa), training``.
        limits: Limits at which the child is ended.
        first: A module-level function of ``args`` that the child calls before it has any thread.
        env: Environment variables to add to those of this process.
    """

    def __init__(
        self,
        work: Callable[..., Any],
        args: tuple[Any, ...] | None,
        log: Path,
        what: str,
        limits: Limits | None = None,
        first: Callable[..., None] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        ctx = context()
        self.what, self.log, self._log_at = what, log, 0.0
        self.receiver, sender = ctx.Pipe(duplex=args is None)
        # Nothing is ever sent through the lifeline. Only this process holds its upper end, so the
        # child sees it close when this process dies, however it dies, and ends too: a killed run
        # leaves no process that still writes to its folder.
        lifeline, self.lifeline = ctx.Pipe(duplex=False)
        # The server has the working directory and environment of its first use; pass today's.
        around = (Path.cwd(), {**os.environ, **(env or {})})
        call = (sender, lifeline, work, args, log, first, around)
        # Not a daemon: daemons may not start children, and data loaders are children.
        self.process = ctx.Process(target=_child, args=call, name=NAME)
        try:
            with _uninterrupted():
                self.process.start()
        except (EOFError, ConnectionError):  # the fork server died before it answered
            _server_died()  # waits until its end shows: the next worker starts another one
            raise self._lost() from None
        sender.close()
        lifeline.close()
        self.monitor = Monitor(self.process.pid, what, limits or Limits())

    def result(self, on_event: Callable[[dict[str, Any]], None] = lambda event: None) -> Any:
        """Wait for the call's value, passing on its events.

        Raises:
            CptBenchError: The call raised, or its process died; the message explains why.
            TrainerFault: It exceeded a limit.
        """
        try:
            value = self._answer(on_event)
            self.process.join()
            return value
        finally:
            self.stop()

    def ask(self, order: Any, what: str, on_event: Callable[[dict[str, Any]], None]) -> None:
        """Have a child that takes jobs do one; it waits for the next one afterwards.

        Args:
            order: The job for ``work``; it must pickle.
            what: Describes the job in errors.
            on_event: Receives the events.

        Raises:
            CptBenchError: As for :meth:`result`; the child is ended.
        """
        self.what = self.monitor.what = what
        try:
            with contextlib.suppress(ConnectionError):  # the child died; _answer reports how
                self.receiver.send(order)
            self._answer(on_event)
        except BaseException:
            self.stop()
            raise

    def _answer(self, on_event: Callable[[dict[str, Any]], None]) -> Any:
        while True:
            try:
                while not self.receiver.poll(MEMORY_EVERY):
                    self._look()
                kind, value = self.receiver.recv()
            except (EOFError, ConnectionError):
                raise self._died() from None
            if kind == "event":
                self._look()
                on_event(value)
            elif kind == "value":
                return value
            else:
                raise value

    def _look(self) -> None:
        self.monitor.look()
        now = time.monotonic()
        if now - self._log_at >= MEMORY_EVERY:
            self._log_at = now
            cut(self.log, SLACK)

    def stop(self) -> None:
        """End the child, and everything it started, if it still runs."""
        # The child leads its own process group; a command that it ran may have outlived it.
        # Launchers start their ranks in separate sessions, which only the process tree shows.
        end_children(self.process.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.lifeline.close()
        self.receiver.close()
        cut(self.log)

    def _lost(self) -> CptBenchError:
        return WorkerLost(
            f"{self.what}: the process that starts all others was killed",
            todo=CONTINUE,
        )

    def _died(self) -> CptBenchError:
        self.process.join()
        code = self.process.exitcode or 0
        if code == UNKNOWN and _server_died():
            return self._lost()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return TrainerFault(
            "killed" if code < 0 else "crash",
            f"{self.what}: the process {how}{last_words(self.log, 1)}",
            where=self.log,
            todo=CONTINUE,
        )


UNKNOWN = 255
"""The exit status of a child that ended after the fork server had died."""


def _server_died() -> bool:
    """Whether the fork server, which was running, has ended."""
    if not hasattr(os, "waitid"):  # macOS, until Python 3.13
        return False
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    for _ in range(20):  # its pipes are closed; its end shows up a moment later
        try:
            # WNOWAIT: multiprocessing itself collects the process, and starts another one.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except (ChildProcessError, TypeError):
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C for a moment: a half-started child would print a traceback to the terminal."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    noted: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if noted:
        raise KeyboardInterrupt


def _child(
    sender: Connection,
    lifeline: Connection,
    work: Callable[..., Any],
    args: tuple[Any, ...] | None,
    log: Path,
    first: Callable[..., None] | None,
    around: tuple[Path, dict[str, str]],
) -> None:
    os.chdir(around[0])
    os.environ.update(around[1])
    # Its own process group: Ctrl-C reaches only the parent, which can end the whole group.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout, sys.stderr = stream, stream
        try:
            given = (_orders(sender),) if args is None else args
            if first is not None:
                first(*given)
            threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
            value = work(lambda event: sender.send(("event", event)), *given)
            sender.send(("value", value))
        except CptBenchError as error:
            traceback.print_exc()
            sender.send(("error", error))
        except BaseException as error:
            traceback.print_exc()
            line = " ".join(str(error).split())[:300]
            wrapped = TrainerFault("crash", f"{type(error).__name__}: {line}", where=log)
            with contextlib.suppress(OSError):
                sender.send(("error", wrapped))


def _orders(parent: Connection) -> Iterator[Any]:
    """The jobs that the parent sends, one after the other, until it closes its end."""
    while True:
        try:
            order = parent.recv()
        except (EOFError, ConnectionError):
            return
        yield order
        parent.send(("value", None))


def _die_with_parent(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    end_children(os.getpid())
    os.killpg(0, signal.SIGKILL)
