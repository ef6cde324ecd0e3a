"""Odd places to run in: a killed fork server, long names, terminals without UTF-8."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt_bench import environment
from cpt_bench.cli.main import _line_of
from cpt_bench.errors import LOST, CptBenchError, TrainerFault, WorkerLost
from tests.support.commands import here, sft_args
from tests.support.places import TINY
from tests.support.simulated import write_run
from tests.support.waiting import wait_for

Cli = Callable[..., subprocess.CompletedProcess[str]]

slow = pytest.mark.slow


def one_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("cptbench: "), done.stderr
    return lines[0]


# --------------------------------------------------------------------------- the fork server is killed


def server_of(pid: int) -> int:
    """The fork server that a process started."""

    def found() -> int:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                words = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == pid and b"multiprocessing.forkserver" in words:
                return int(place.name)
        return 0

    return int(wait_for(found))


def functions_of(thread: threading.Thread) -> list[str]:
    """The functions in which a thread is at the moment, the innermost first."""
    frame, names = sys._current_frames().get(thread.ident or 0), []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def sleep(say: Any, seconds: float) -> str:
    time.sleep(seconds)
    return "done"


def leave(say: Any, code: int) -> None:
    os._exit(code)


@pytest.fixture
def warm() -> Iterator[int]:
    """The process id of this process's own fork server."""
    pytest.importorskip("torch")
    from cpt_bench.worker.process import warm_up

    warm_up()
    yield server_of(os.getpid())


def worker(tmp_path: Path, *call: Any) -> Any:
    from cpt_bench.worker.process import Worker

    work, *args = call
    return Worker(work, tuple(args), tmp_path / "log", "this")


@slow
def test_it_is_killed_before_it_answers(warm: int, tmp_path: Path) -> None:
    found: list[BaseException] = []

    def start() -> None:
        try:
            worker(tmp_path, sleep, 0)
        except BaseException as error:
            found.append(error)

    os.kill(warm, signal.SIGSTOP)
    thread = threading.Thread(target=start)
    thread.start()
    wait_for(
        lambda: "read_signed" in functions_of(thread)
    )  # it asked, and waits for the child's id
    os.kill(warm, signal.SIGKILL)
    thread.join(30)
    assert [type(error) for error in found] == [WorkerLost]
    assert str(found[0]).startswith("this: the process that starts all others was killed")
    assert worker(tmp_path, sleep, 0).result() == "done"  # a new one is started


@slow
def test_it_is_killed_and_so_is_its_child(warm: int, tmp_path: Path) -> None:
    """As the system does when memory runs out; how the child ended is not known then."""
    child = worker(tmp_path, sleep, 60)
    os.kill(warm, signal.SIGKILL)
    os.kill(child.process.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost) as caught:
        child.result()
    assert caught.value.exit_code == LOST


@slow
def test_it_is_killed_and_its_child_goes_on(warm: int, tmp_path: Path) -> None:
    child = worker(tmp_path, sleep, 1)
    os.kill(warm, signal.SIGKILL)
    assert child.result() == "done"


@slow
@pytest.mark.parametrize("code", [255, 3])
def test_a_child_that_leaves_is_no_lost_server(code: int, warm: int, tmp_path: Path) -> None:
    with pytest.raises(TrainerFault, match=f"the process exited with {code}") as caught:
        worker(tmp_path, leave, code).result()
    assert caught.value.exit_code == 2


@slow
def test_a_run_whose_fork_server_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    """One line and exit status 75, at once or in the middle; the same command goes on."""
    command = [sys.executable, "-m", "cpt_bench", *sft_args(tiny_model, "--out", tmp_path / "run")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    server = server_of(process.pid)
    time.sleep(1)
    os.kill(server, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    line = one_line(subprocess.CompletedProcess(command, process.returncode, out, err), LOST)
    assert "the process that starts all others was killed" in line
    assert "run the same command again" in line
    done = here(tmp_path, *command[3:])
    assert done.returncode == 0, done.stderr


@slow
def test_a_sweep_goes_on_after_it(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        f"suite: {TINY}\nbase: {tiny_model}\n"
        "runs: [{trainers: [sft], set: {learning_rate: 1.0e-3, max_steps: 2, device: cpu}}]\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "cpt_bench", "sweep", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip

    def runs() -> list[str]:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [
            c
            for c in children
            if b"cpt_bench.cli.attached" in Path(f"/proc/{c}/cmdline").read_bytes()
        ]

    server = server_of(int(wait_for(runs)[0]))
    time.sleep(1)  # now a worker waits for its answer
    os.kill(server, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "the process that starts all others was killed" in out and "it goes on" in out
    assert "(attempt 2)" in out and "(1/1)" in out


def test_what_ends_too_early_is_one_line(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    """Click shows any EOFError as 'Aborted!' with status 1, and Ctrl-C too."""
    import cpt_bench.cli.look

    for error, code, line in (
        (EOFError("Compressed file ended"), 2, "a file or a pipe ended too early (Compressed file"),
        (EOFError(), 2, "a file or a pipe ended too early (end of file)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ):
        monkeypatch.setattr(cpt_bench.cli.look, "_tasks", lambda error=error: raises(error))
        assert line in one_line(cli("list", "tasks"), code)


def raises(error: BaseException) -> Any:
    raise error


def test_a_broken_package_does_not_end_the_fork_server(tmp_path: Path) -> None:
    """What imports it early gives up; the worker that needs it reports it."""
    (tmp_path / "tqdm.py").write_text(
        "raise OSError('libtorch.so: cannot open shared object file')"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import cpt_bench.worker.preload"
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------- long paths, and long names


@pytest.fixture
def fresh() -> Iterator[None]:
    environment.folder_for_sockets.cache_clear()
    tempfile.tempdir = None
    yield
    environment.folder_for_sockets.cache_clear()
    tempfile.tempdir = None


def a_folder_of(length: int, parent: Path) -> Path:
    folder = parent / ("d" * (length - len(str(parent)) - 1))
    folder.mkdir()
    assert len(str(folder)) == length
    return folder


@pytest.mark.parametrize("length", [61, 78, 90, 108, 200])
def test_sockets_have_a_short_place(
    length: int, fresh: None, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        monkeypatch.setenv("TMPDIR", str(a_folder_of(length, parent)))
        tempfile.tempdir = None
        folder = environment.folder_for_sockets()
        assert folder is not None and folder.stat().st_mode & 0o77 == 0  # nobody else's
        with socket.socket(socket.AF_UNIX) as found:
            found.bind(str(folder / "pymp-12345678" / "x").replace("/pymp-12345678", ""))
        longest = folder / "listener-12345678-and-more"
        assert len(os.fsencode(longest)) < 100
        assert environment.folder_for_sockets() == folder
        shutil.rmtree(folder)
    finally:
        shutil.rmtree(parent)


def test_a_short_tmpdir_is_left_alone(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert environment.folder_for_sockets() is None


def test_no_short_place_is_one_line(
    fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        monkeypatch.setenv("TMPDIR", str(a_folder_of(90, parent)))
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

        def full(prefix: str, dir: str) -> str:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(tempfile, "mkdtemp", full)
        with pytest.raises(CptBenchError, match="Set TMPDIR to a shorter path") as caught:
            environment.folder_for_sockets()
        assert len(str(caught.value).splitlines()) == 1
    finally:
        shutil.rmtree(parent)


@slow
def test_a_run_with_a_long_tmpdir(tiny_model: Path, finished: Path, tmp_path: Path) -> None:
    """A command's trainer too: what it is told lies in files, and its reward is asked over TCP."""
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        env = {**os.environ, "TMPDIR": str(a_folder_of(78, parent))}
        command = [
            sys.executable,
            "-m",
            "cpt_bench",
            *sft_args(tiny_model, "--out", tmp_path / "run"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run/matrix.json").read_bytes() == (
            finished / "matrix.json"
        ).read_bytes()
    finally:
        shutil.rmtree(parent)


NAME = "n" * 300


@pytest.mark.parametrize(
    "args",
    [
        ["score", NAME], ["compare", NAME], ["report", NAME], ["show", NAME], ["metrics", NAME],
        ["grade", NAME, "--grader", "exact"], ["verify", NAME], ["sweep", NAME],
        ["plan", "--recipe", NAME], ["export", "prompts", "--out", NAME],
        ["data", "prepare", "--from", NAME], ["doctor", "--folder", NAME], ["trainer", "new", NAME],
        ["study", "build", "--study", NAME], ["eval", "--stages", f"{NAME}/*"],
        ["eval", NAME, "--limit", "1"], ["run", "--trainer", "sft", "--suite", NAME],
        ["run", "--trainer", f"./{NAME}.py:Mine"], ["run", "--trainer", "cmd:sh x", "--out", NAME],
        ["run", "--trainer", "cmd:sh x", "--out", f"deep/{NAME}/run"],
        ["run", "--trainer", "cmd:sh x", "--base", NAME],
        ["run", "--trainer", "cmd:sh x", "--recipe", NAME],
    ],
)  # fmt: skip
def test_a_name_of_300_characters_is_one_line(args: list[str], cli: Cli) -> None:
    pytest.importorskip("torch")
    line = one_line(cli(*args))
    assert "File name too long" in line and "Give a shorter name" in line
    assert len(line) < 300


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "No space left on device (/x). Make room. Finished steps are saved"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a"), "Too many levels of symbolic links (a)"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError(errno.ESTALE, "Stale file handle", "a\nb"), "Stale file handle (a b)"),
        (OSError("no number\nat all"), "no number at all"),
        (OSError(), "OSError"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'"), ("c", "d", "x")]), "No space left on device: 'b' (b). Make room. Finished steps are saved"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", Path("x")), "No such file or directory (x)"),
        (OSError(errno.ENAMETOOLONG, "File name too long", 250 * "n"), "n, 250 characters). Give a shorter name"),
    ],
)  # fmt: skip
def test_whatever_the_system_refuses_is_one_line(error: OSError, line: str) -> None:
    found = _line_of(error)
    assert line in found and "\n" not in found


REFUSED = """
import resource, shutil, signal, sys
from cpt_bench.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
def full(*args, **options):
    shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True)
main.app = full
main.entry()
"""


@pytest.mark.parametrize("files", [["a.jsonl"], ["a.jsonl", "images/b.png"], ["a", "b", "c/d/e"]])
def test_a_memory_that_does_not_fit_is_one_line(files: list[str], tmp_path: Path) -> None:
    """As a stage is laid out: files may not grow beyond 100 kB, and the memory's do."""
    for name in files:
        (tmp_path / "memory" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "memory" / name).write_bytes(b"x" * 200_000)
    (tmp_path / "memory/small").write_text("this one fits")
    command = [sys.executable, "-c", REFUSED, str(tmp_path / "memory"), str(tmp_path / "copy")]
    line = one_line(subprocess.run(command, capture_output=True, text=True, check=False))
    assert "File too large" in line
    assert any(str(tmp_path / "copy" / name) in line for name in files)
    assert (tmp_path / "copy/small").read_text() == "this one fits"


# ------------------------------------------------------------------- terminals without UTF-8


@pytest.fixture(scope="session")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of LANG=en_US, whose encoding is ISO-8859-1; made, where the system has none."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/en_US").exists():
        pytest.skip("localedef and its sources are not here")
    folder = tmp_path_factory.mktemp("locales")
    made = folder / "en_US"
    subprocess.run(["localedef", "-c", "-i", "en_US", "-f", "ISO-8859-1", str(made)], check=False)
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("LC_", "PYTHONUTF8", "PYTHONIO"))
    }
    env |= {"LANG": "en_US", "LOCPATH": str(folder)}
    show = "import sys; print(sys.stdout.encoding)"
    done = subprocess.run([sys.executable, "-c", show], env=env, capture_output=True, text=True)
    if "8859" not in done.stdout:
        pytest.skip(f"the locale cannot be made here: {done.stdout} {done.stderr}")
    return env


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""Not even Latin-1; files are opened with it too, where nobody says otherwise."""


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    write_run(folder / "runs/a", limit=4)
    write_run(folder / "runs/b", limit=4, trainer="sft", decay=0.2)
    (folder / "replies.jsonl").write_text(
        '{"id": "é", "reply": "→ ü", "answers": ["→ ü"]}\n', encoding="utf-8"
    )
    return folder


COMMANDS = [
    ["show", "nano"],
    ["compare", "runs"],
    *(
        pytest.param(args, marks=slow)
        for args in (
            ["show", "cpt7@paper"], ["show", "nano/text", "--samples", "3"],
            ["compare", "runs", "--markdown", "-"], ["compare", "runs", "--latex", "-"],
            ["compare", "runs", "--json", "-"], ["compare", "runs", "--html", "page.html"],
            ["score", "runs/a"], ["score", "runs/a", "--all"], ["score", "runs/a", "--json"],
            ["report", "runs"], ["list", "tasks"], ["list", "trainers"], ["plan"], ["doctor"],
            ["--help"], ["run", "--help"], ["sweep", "--help"], ["data", "status"],
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("args", COMMANDS, ids=str)
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_characters_are_degraded_and_nothing_fails(
    encoding: str, args: list[str], shown: Path, request: pytest.FixtureRequest
) -> None:
    env = request.getfixturevalue("latin") if encoding == "latin-1" else {**os.environ, **ASCII}
    command = [sys.executable, "-m", "cpt_bench", *args]
    done = subprocess.run(command, env=env, capture_output=True, cwd=shown)
    # Click writes its help pages as UTF-8 where the locale says ASCII.
    said = (done.stdout + done.stderr).decode(encoding, "replace")
    # Data that are not prepared, a machine that is not in order: that, and nothing worse.
    assert done.returncode in ((0, 1) if args[0] in ("data", "doctor") else (0,)), said
    assert "Traceback" not in said and said.strip()
    if args == ["compare", "runs"]:
        assert "Differences from" in said and "..." in said and "?" not in said


@slow
def test_a_run_in_latin_1(
    latin: dict[str, str], tiny_model: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cpt_bench", *sft_args(tiny_model, "--out", out)]
    done = subprocess.run(command, env=latin, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0 and b" -> " in done.stdout, done.stderr
    assert (out / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


@slow
def test_a_trainer_that_prints_utf_8_where_nothing_else_is(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Its last words are read as UTF-8 whatever the locale, and cannot end the harness."""
    (tmp_path / "train.sh").write_text("printf 'caf\\303\\251 \\377 \\342\\206\\222'; exit 3\n")
    args = ["--suite", str(TINY), "--base", str(tiny_model), "--out", "run", "--limit", "4"]
    command = [
        sys.executable,
        "-m",
        "cpt_bench",
        "run",
        "--trainer",
        "cmd:sh train.sh {stage}",
        *args,
    ]
    done = subprocess.run(command, env={**os.environ, **ASCII}, capture_output=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.decode("ascii").strip().endswith("its last output: caf? ? ->")


def test_a_name_that_the_locale_cannot_write_is_one_line(
    monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    import cpt_bench.cli.look

    def encode() -> None:
        "метод".encode("latin-1")

    monkeypatch.setattr(cpt_bench.cli.look, "_tasks", encode)
    line = one_line(cli("list", "tasks"))
    assert "this locale's encoding, latin-1, lacks" in line and "Set LC_ALL=C.UTF-8" in line
