"""What went wrong with the hub, in one sentence, and what to do about it.

``huggingface_hub`` and ``datasets`` wrap the reason in one or several errors of their own, whose
words name neither the status nor a cure. The first error in the chain that is understood is used.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.hub.names import address, page

AGAIN = "Run the same command again: what has arrived whole is not fetched twice"
LOGIN = "log in with: hf auth login"


class Fault(NamedTuple):
    """Why files could not be fetched, and what a person can do about it."""

    what: str
    todo: str

    def error(self, where: object) -> CptBenchError:
        return CptBenchError(self.what, where=where, todo=self.todo)


def explain(error: BaseException, id: str, kind: str = "model") -> Fault | None:
    """The reason for an error of the hub's libraries; None where it is of another kind.

    Args:
        error: What was raised.
        id: The repository that was asked for, ``org/name``.
        kind: ``model`` or ``dataset``.
    """
    chain = [*_chain(error)]
    for make in (_refused, _disk, _local, _unreachable, _damaged):
        for one in chain:
            found = make(one, id, kind)
            if found is not None:
                return found
    return None


def failed(error: BaseException) -> Fault:
    """The fault for an error of the hub's libraries that says nothing we know."""
    reason = " ".join(str(error).split())[:300]
    return Fault(f"the download failed ({type(error).__name__}: {reason})", AGAIN)


def by_hand(id: str, kind: str = "model") -> str:
    """How a repository comes to a machine that does not reach the hub."""
    if kind == "dataset":
        return "bring the data sets as folders <owner>/<name> and give their parent with --from DIR"
    return f"bring the files (elsewhere: hf download {id} --local-dir DIR) and give --base DIR"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


# ------------------------------------------------------------------------- an answer that refuses


def _refused(error: BaseException, id: str, kind: str) -> Fault | None:
    """The hub answered, with a status that is no success."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if response is None or not isinstance(status, int) or status < 400:
        return None
    code = response.headers.get("X-Error-Code", "")
    if code == "GatedRepo":
        return _gated(status, id, kind)
    if code == "RevisionNotFound":
        return Fault(
            "the hub has it, but not at this revision (404)",
            f"Take one of {page(id, kind)}/commits/main, or leave @REVISION out",
        )
    if code == "EntryNotFound":
        return Fault(
            f"a file is missing there (404): {_path(response)}",
            f"See what it holds: {page(id, kind)}/tree/main",
        )
    if code == "RepoNotFound" or status == 404:
        return Fault(
            f"{_absent(kind)} ({status})",
            f"Correct the name, or if it is private, {LOGIN}",
        )
    if status == 401:
        return _unauthorised(response, kind)
    if status == 403:
        reason = response.headers.get("X-Error-Message", "").strip()
        return Fault(
            f"the hub does not allow access (403{': ' + reason if reason else ''})",
            f"Look at {page(id, kind)}; if another account has access, {LOGIN}",
        )
    if status == 429:
        wait = response.headers.get("Retry-After", "").strip()
        when = f"after {wait} s" if wait.isdigit() else "in some minutes"
        return Fault(
            "the hub was asked too often from here (429)",
            f"Run the same command again {when}; after hf auth login you may ask more often",
        )
    return Fault(f"the hub answered {status}{_phrase(status)}", f"{AGAIN}, a little later")


def _absent(kind: str) -> str:
    folder = "there is no such folder here, and " if kind.endswith("model") else ""
    return f"{folder}the hub has no {kind} of this name"


def _gated(status: int, id: str, kind: str) -> Fault:
    if status == 403:
        return Fault(
            "is gated, and your account has no access to it (403)",
            f"Accept its terms at {page(id, kind)}, then run the same command again",
        )
    return Fault(
        f"is gated, and you are not logged in ({status})",
        f"Accept its terms at {page(id, kind)}, then {LOGIN}",
    )


def _unauthorised(response: Any, kind: str) -> Fault:
    # Asked without a token, the hub answers 401 also where there is nothing of that name.
    if response.request.headers.get("authorization"):
        return Fault("the hub refuses your token (401)", f"Renew it: {LOGIN}")
    return Fault(
        f"{_absent(f'public {kind}')} (401)",
        f"Correct the name, or if it is private, {LOGIN}",
    )


def _path(response: Any) -> str:
    return str(response.url).partition("/resolve/")[2].partition("/")[2] or str(response.url)


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


# ------------------------------------------------------------------------------------ no answer


_TRANSPORT = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp")


def _unreachable(error: BaseException, id: str, kind: str) -> Fault | None:
    """No answer came, or none that a hub would give."""
    name, home = type(error).__name__, type(error).__module__.partition(".")[0]
    if name == "OfflineModeIsEnabled":
        return Fault(
            "is not in the hub's cache here, and HF_HUB_OFFLINE forbids asking the hub",
            f"Unset HF_HUB_OFFLINE, or {by_hand(id, kind)}",
        )
    if name in ("FileMetadataError", "JSONDecodeError") or "X-Repo-Commit" in str(error):
        return Fault(
            f"what answers at {address()} is not the hub",
            f"Correct HF_ENDPOINT, or log in to this network or its proxy, or {by_hand(id, kind)}",
        )
    if "Consistency check failed" in str(error) or name in ("RemoteProtocolError", "ReadError"):
        return Fault("the download was cut off", AGAIN)
    if home in _TRANSPORT or isinstance(error, ConnectionError | TimeoutError):
        slow = isinstance(error, TimeoutError) or "Timeout" in name
        how = "does not answer in time" if slow else "cannot be reached"
        reason = " ".join(str(error).split())[:120]
        return Fault(
            f"the hub at {address()} {how}" + (f" ({reason})" if reason and not slow else ""),
            f"Check the network and HF_ENDPOINT, or {by_hand(id, kind)}",
        )
    return None


# ------------------------------------------------------------------------------------ this machine


def cache() -> Path:
    """Where the hub's libraries store what they fetch: ``$HF_HUB_CACHE``, else in ``$HF_HOME``."""
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:  # the light installation: nothing is fetched, but may be there
        home = os.environ.get("HF_HOME")
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return (Path(home) if home else base / "huggingface") / "hub"
    return Path(constants.HF_HUB_CACHE)


def _disk(error: BaseException, id: str, kind: str) -> Fault | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_room(None, None)
    return None


def no_room(needed: int | None, free: int | None) -> Fault:
    """The fault for a disk too small; sizes in bytes, None where they are not known."""
    known = needed is not None and free is not None
    sizes = f": {size(needed or 0)} to fetch, {size(free or 0)} free" if known else ""
    return Fault(
        f"there is no room for it in {cache()}{sizes}",
        "Make room, or set HF_HOME to a folder on another disk, and run the same command again",
    )


def _local(error: BaseException, id: str, kind: str) -> Fault | None:
    if isinstance(error, PermissionError | NotADirectoryError | FileExistsError) or (
        isinstance(error, OSError) and error.errno == errno.EROFS
    ):
        place = error.filename or cache()
        return Fault(
            f"cannot be written to {os.fsdecode(place)} ({error.strerror})",
            "Mend its rights, or set HF_HOME to a folder of yours",
        )
    return None


def _damaged(error: BaseException, id: str, kind: str) -> Fault | None:
    if type(error).__name__ in ("IncompleteSnapshotError", "LocalEntryNotFoundError"):
        return Fault(
            "is not whole in the hub's cache here, and the hub cannot be asked for the rest",
            f"Check the network and HF_ENDPOINT, or {by_hand(id, kind)}",
        )
    return None


def size(bytes_: float) -> str:
    """A number of bytes in the largest unit below it."""
    for unit in ("B", "KB", "MB", "GB"):
        if bytes_ < 1000:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.1f} TB"
