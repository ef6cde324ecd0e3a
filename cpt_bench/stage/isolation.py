"""Hides from a trainer the files that it must not read.

Before a trainer starts, its process gets its own view of the file system (a Linux mount namespace).
Every hidden folder is covered by a copy with the same file names, all of them empty, and a watch
(inotify) reports when one is opened. The trainer's inputs are read-only, and the process gives up
the right to change any of this. Frameworks run as usual; the rest of the machine is not affected,
and the view ends with the process.

Where the system does not allow namespaces (a container without the right, or no Linux), Python
trainers are still watched by an audit hook, which refuses to open a hidden file. Neither stops
somebody determined, who may fetch test data from elsewhere; both make sure that nothing is read by
accident or unnoticed. The run records which of the two was used.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import PrivilegeError

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
IN_OPEN, IN_UNMOUNT, IN_IGNORED, IN_ISDIR, IN_NONBLOCK = 0x20, 0x2000, 0x8000, 1 << 30, 0o4000
PR_CAPBSET_DROP, CAPABILITIES_3 = 24, 0x20080522
CAP_SYS_PTRACE, CAP_SYS_ADMIN = 19, 21
DECOYS, DECOYS_IN_ONE = 1000, 50
"""About how many folders, and files in one folder, get an empty copy; the others are absent."""


class View(NamedTuple):
    """What a trainer may see.

    Attributes:
        hidden: Folders whose files look empty to it, and single files; opening one is reported.
        visible: Folders and files inside hidden folders that it can read.
        read_only: Visible paths that it cannot change.
        absent: Folders and files that look empty and are not watched: there may be hundreds.
    """

    hidden: tuple[Path, ...]
    visible: tuple[Path, ...]
    read_only: tuple[Path, ...]
    absent: tuple[Path, ...] = ()

    def hides(self, path: str) -> bool:
        """Whether ``path`` (absolute, links resolved) lies in what is hidden."""
        above = {path, *map(str, Path(path).parents)}

        def below(folders: Iterable[Path]) -> bool:  # called for each file that is opened
            return not above.isdisjoint(map(str, folders))

        return below((*self.hidden, *self.absent)) and not below(self.visible)


class Watch:
    """Records the paths that were opened under hidden folders, in this namespace."""

    def __init__(self) -> None:
        self.libc = _libc()
        self.handle = self.libc.inotify_init1(IN_NONBLOCK)
        self.folders: dict[int, Path] = {}

    def add(self, folder: Path) -> None:
        """Watch the files directly in ``folder``, or one file."""
        which = self.libc.inotify_add_watch(self.handle, os.fsencode(folder), IN_OPEN)
        if which >= 0:
            self.folders[which] = folder

    def opened(self) -> list[str]:
        """Files opened since the last call, and folders whose watch was removed."""
        found: dict[str, None] = {}
        if self.handle < 0:
            return []  # the system could not provide a watch
        try:
            held = Path(f"/proc/self/fd/{self.handle}").readlink().name
        except OSError:
            held = ""
        if held != "anon_inode:inotify":
            return ["the watch over what is hidden, and closed it"]
        while True:
            try:
                data = os.read(self.handle, 65536)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return list(found)
                raise
            offset = 0
            while offset < len(data):
                which, mask, _, length = struct.unpack_from("iIII", data, offset)
                name = data[offset + 16 : offset + 16 + length].split(b"\0")[0]
                offset += 16 + length
                if which not in self.folders:
                    continue
                if mask & (IN_UNMOUNT | IN_IGNORED):
                    found[str(self.folders[which])] = None
                elif not mask & IN_ISDIR:  # without a name it is a single file
                    found[str(self.folders[which] / os.fsdecode(name))] = None


def enter(view: View) -> Watch | None:
    """Give this process the view; returns None where the system does not allow it.

    Must be called before the process starts a thread. It cannot be undone.
    """
    if sys.platform != "linux" or not _own_namespace():
        return None
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    watch = Watch()
    # Visible folders are held open while their parent is covered, then mounted again from there.
    kept = {p: os.open(p, os.O_PATH) for p in view.visible if p.exists()}
    try:
        for folder in (*view.hidden, *view.absent):
            if folder.is_dir():
                inside = [p for p in kept if p.is_relative_to(folder)]
                _cover(folder, inside, kept, watch if folder in view.hidden else None)
            elif folder.is_file() and folder in view.hidden:
                _cover_file(folder, watch)
            elif folder.is_file():
                _mount(os.devnull, str(folder), None, MS_BIND)
    finally:
        for handle in kept.values():
            os.close(handle)
    for path in view.read_only:
        if path.exists():
            _mount(str(path), str(path), None, MS_BIND | MS_REC)
            _mount("none", str(path), None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    watch.opened()  # discard what this function opened itself
    _drop_rights()
    return watch


def _drop_rights() -> None:
    """Give up, for this process and its children, the capabilities that could undo the view."""
    libc = _libc()
    for capability in (CAP_SYS_PTRACE, CAP_SYS_ADMIN):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # else root regains it with each exec
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    if libc.capget(header, sets) != 0:
        return
    for i in range(3):
        sets[i] &= ~(1 << CAP_SYS_PTRACE | 1 << CAP_SYS_ADMIN)
    libc.capset(header, sets)


def _cover(folder: Path, inside: list[Path], kept: dict[Path, int], watch: Watch | None) -> None:
    """Cover ``folder``, except ``inside``, with an empty copy; without a watch, with no files."""
    folders, files = _names(folder, inside) if watch else ([], [])
    _mount("tmpfs", str(folder), "tmpfs", 0, "size=16m,mode=755")
    for name in folders:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).touch()
    for path in inside:
        if stat.S_ISDIR(os.fstat(kept[path]).st_mode):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    _mount("none", str(folder), None, MS_REMOUNT | MS_RDONLY)
    for path in inside:
        _mount(f"/proc/self/fd/{kept[path]}", str(path), None, MS_BIND | MS_REC)
    if watch:
        for name in (Path(), *folders):
            watch.add(folder / name)


def _cover_file(file: Path, watch: Watch) -> None:
    """Cover one file with an empty one of its own, which can be watched."""
    handle, empty = tempfile.mkstemp()
    os.close(handle)
    _mount(empty, str(file), None, MS_BIND)
    Path(empty).unlink()  # what is mounted stays
    _mount("none", str(file), None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    watch.add(file)


def _names(folder: Path, inside: list[Path]) -> tuple[list[Path], list[Path]]:
    """Names of hidden folders and files, without descending into visible ones."""
    folders: list[Path] = []
    files: list[Path] = []
    level = [folder]
    while level and len(folders) < DECOYS:  # by level: the files of interest are near the top
        below: list[Path] = []
        for here in level:
            try:
                with os.scandir(here) as listed:  # knows which are folders without a stat of each
                    entries = sorted(listed, key=lambda entry: entry.name)
            except FileNotFoundError:
                continue  # another process moved the split it was preparing to its final place
            below += [p for e in entries if e.is_dir() and (p := Path(e.path)) not in inside]
            shown = islice((e for e in entries if e.is_file()), DECOYS_IN_ONE)
            files += [Path(e.path).relative_to(folder) for e in shown]
        folders += [e.relative_to(folder) for e in below]
        level = below
    return folders, files


def watch_opens(view: View, tell: Callable[[str], None]) -> None:
    """Refuse, in this Python process, to open hidden paths; each is passed to ``tell``."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.listdir", "os.scandir"):
            return
        if not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if view.hides(path):
            tell(path)
            raise PrivilegeError("a trainer may not read this", where=path)

    sys.addaudithook(hook)


def _own_namespace() -> bool:
    libc, uid, gid = _libc(), os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS) == 0:
        return True
    # Without the right to mount, get it from a new user namespace, where that is allowed.
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return True


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    arguments = [os.fsencode(x) if x else None for x in (source, target, kind)]
    if _libc().mount(*arguments, flags, os.fsencode(data) if data else None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", target)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    pointers = [ctypes.c_char_p] * 3
    libc.mount.argtypes = [*pointers, ctypes.c_ulong, ctypes.c_char_p]
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return libc
