"""A hub on loopback: as much of the Hugging Face hub's protocol as its own libraries use to fetch.

``Hub(folder)`` serves ``models/<owner>/<name>`` and ``datasets/<owner>/<name>`` below a folder, each
as one commit: what a repository holds, its tree, files with ETag and ranges, large ones behind a
redirect to ``/cdn/``. Rules make it misbehave: a rule is a pattern of ``METHOD /path``, and what to
do with a request that fits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LARGE = (".safetensors", ".parquet", ".bin")
"""Endings of the files that lie behind a redirect, and whose hash is SHA-256."""


class File(NamedTuple):
    """A file as the hub lists it."""

    place: Path
    size: int
    sha256: str
    git: str

    @property
    def large(self) -> bool:
        return self.place.name.endswith(LARGE)

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.git

    def listed(self, path: str) -> dict[str, Any]:
        lfs = {"oid": self.sha256, "size": self.size, "pointerSize": 134} if self.large else None
        return {"type": "file", "path": path, "size": self.size, "oid": self.git,
                **({"lfs": lfs} if lfs else {})}  # fmt: skip


class Answer(NamedTuple):
    """What a rule sends in place of the right answer; None in ``do``: the right one."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    body: bytes = b""


Act = Callable[["Request"], Answer | None]


class Rule(NamedTuple):
    """What to do with requests that fit; ``times``: with how many of them, None for all."""

    pattern: str
    act: Act
    times: int | None = None


def status(code: int, **headers: str) -> Act:
    """Answer with a status, and headers (``X_Error_Code`` is ``X-Error-Code``)."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda request: Answer(code, named, b'{"error": "no"}')


def html(request: Request) -> Answer:
    """What a network that asks to log in first answers to everything."""
    return Answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")


def cut(after: int) -> Act:
    """Close the connection after so many bytes of a file."""

    def act(request: Request) -> None:
        request.cut = after

    return act


def spoilt(request: Request) -> None:
    """Send a file with its last byte changed."""
    request.spoil = True


def slow(seconds: float) -> Act:
    def act(request: Request) -> None:
        Event().wait(seconds)  # not time.sleep, which tests of retries replace

    return act


class Hub:
    """The server; ``log`` is what it was asked, ``rules`` are looked through from the last on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[str] = []
        self.sent = 0
        self.rules: list[Rule] = []
        self._files: dict[str, dict[str, File]] = {}
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Bound", (Request,), {"hub": self})
        )
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def store(self) -> str:
        """Where the large files are: another host, as the hub's libraries expect."""
        return f"http://localhost:{self.server.server_port}"

    def rule(self, pattern: str, act: Act, times: int | None = None) -> None:
        self.rules.append(Rule(pattern, act, times))

    def asked(self, pattern: str) -> list[str]:
        """The requests so far that fit."""
        return [line for line in self.log if re.search(pattern, line)]

    def forget(self) -> None:
        """No rules, an empty log, and files as they are on disk now."""
        self.rules.clear()
        self.log.clear()
        self._files.clear()

    def files(self, kind: str, id: str) -> dict[str, File]:
        """The files of a repository by their paths; empty where there is none."""
        key = f"{kind}/{id}"
        if key not in self._files:
            root, found = self.folder / key, {}
            for place in sorted(root.rglob("*")):
                if place.is_file():
                    content = place.read_bytes()
                    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
                    found[place.relative_to(root).as_posix()] = File(
                        place, len(content), hashlib.sha256(content).hexdigest(), git
                    )
            self._files[key] = found
        return self._files[key]

    def commit(self, kind: str, id: str) -> str:
        """The commit of a repository: a hash of all that it holds."""
        held = [f"{path} {file.sha256}" for path, file in self.files(kind, id).items()]
        return hashlib.sha1("\n".join(held).encode()).hexdigest()


class Request(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    cut: int | None = None
    spoil = False

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _answer(self) -> None:
        self.cut, self.spoil = None, False
        line = f"{self.command} {unquote(self.path)}"
        self.hub.log.append(line)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for i in reversed(range(len(self.hub.rules))):
            rule = self.hub.rules[i]
            if rule.times == 0 or not re.search(rule.pattern, line):
                continue
            if rule.times is not None:
                self.hub.rules[i] = rule._replace(times=rule.times - 1)
            wrong = rule.act(self)
            if wrong is not None:
                self.send(wrong)
                return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._right(urlsplit(unquote(self.path)))

    def _right(self, address: Any) -> None:
        path = address.path
        if found := re.fullmatch(r"/cdn/(\w+)", path):
            self._content(found[1])
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file("datasets" if found[1] else "models", *found.groups()[1:])
        elif found := re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)(/.*)?)?",
            path,
        ):
            kind, id, what, revision, below = found.groups()
            self._described(kind, id, what, revision, (below or "").strip("/"), address.query)
        else:
            self.send(Answer(404, {}, b"{}"))

    def _described(
        self, kind: str, id: str, what: str | None, revision: str | None, below: str, query: str
    ) -> None:
        files, commit = self._known(kind, id, revision)
        if files is None:
            return
        if what == "tree":
            self._tree(files, below, "true" in str(parse_qs(query).get("recursive", "")).lower())
        elif what == "paths-info":
            try:
                paths = json.loads(self.body)["paths"]
            except ValueError:
                paths = parse_qs(self.body.decode()).get("paths", [])
            paths = [paths] if isinstance(paths, str) else paths
            self.json([self._entry(files, p) for p in paths if self._entry(files, p)])
        else:
            held = [
                {"rfilename": path, "size": file.size, "blobId": file.git,
                 **({"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 134}} if file.large else {})}
                for path, file in files.items()
            ]  # fmt: skip
            self.json({"_id": "1", "id": id, "modelId": id, "sha": commit, "private": False,
                       "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0,
                       "siblings": held})  # fmt: skip

    def _tree(self, files: dict[str, File], below: str, recursive: bool) -> None:
        inside = {p: f for p, f in files.items() if not below or p.startswith(f"{below}/")}
        if below and not inside:
            self.send(Answer(404, {"X-Error-Code": "EntryNotFound"}, b"{}"))
            return
        rows, seen = [], set()
        for path, file in inside.items():
            parts = path.removeprefix(f"{below}/" if below else "").split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(filter(None, [below, *parts[:depth]]))
                if folder not in seen and (recursive or depth == 1):
                    seen.add(folder)
                    rows.append(self._entry(files, folder))
            if recursive or len(parts) == 1:
                rows.append(file.listed(path))
        self.json(rows)

    @staticmethod
    def _entry(files: dict[str, File], path: str) -> dict[str, Any] | None:
        if path in files:
            return files[path].listed(path)
        if any(p.startswith(f"{path}/") for p in files):
            oid = hashlib.sha1(path.encode()).hexdigest()
            return {"type": "directory", "path": path, "oid": oid, "size": 0}
        return None

    def _known(
        self, kind: str, id: str, revision: str | None
    ) -> tuple[dict[str, File] | None, str]:
        files, commit = self.hub.files(kind, id), self.hub.commit(kind, id)
        if not files:
            self.send(Answer(404, {"X-Error-Code": "RepoNotFound"}, b"{}"))
        elif revision not in (None, "main", commit):
            self.send(Answer(404, {"X-Error-Code": "RevisionNotFound"}, b"{}"))
        else:
            return files, commit
        return None, ""

    def _file(self, kind: str, id: str, revision: str, path: str) -> None:
        files, commit = self._known(kind, id, revision)
        if files is None:
            return
        if path not in files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            self.send(Answer(404, headers))
            return
        file = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.large:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size),
                        "Location": f"{self.hub.store}/cdn/{file.sha256}"}  # fmt: skip
            self.send(Answer(302, headers))
        else:
            self._bytes(file, headers)

    def _content(self, sha256: str) -> None:
        every = (file for files in self.hub._files.values() for file in files.values())
        file = next((file for file in every if file.sha256 == sha256), None)
        if file is None:
            self.send(Answer(404))
        else:
            self._bytes(file, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})

    def _bytes(self, file: File, headers: dict[str, str]) -> None:
        content = file.place.read_bytes()
        if self.spoil:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        code, first = 200, 0
        if asked:
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            headers |= {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            code, content = 206, content[first : last + 1]
        self.send(Answer(code, headers, content))

    def json(self, value: Any) -> None:
        self.send(Answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode()))

    def send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut is not None and self.cut < len(answer.body):
            self.wfile.write(answer.body[: self.cut])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(answer.body)
        self.hub.sent += len(answer.body)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """A hub that serves what is below ``folder``."""
    hub = Hub(folder)
    thread = Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


def point_at(url: str, home: Path, patch: pytest.MonkeyPatch) -> None:
    """Have the hub's libraries in this process ask ``url``, and store what they fetch in ``home``."""
    import datasets
    from huggingface_hub import constants

    patch.setenv("HF_ENDPOINT", url)
    patch.setenv("HF_HOME", str(home))
    patch.setenv("CPTBENCH_DATA", str(home / "data"))
    patch.delenv("HF_TOKEN", raising=False)
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "HF_HOME", str(home))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(datasets.config, "HF_ENDPOINT", url)
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
