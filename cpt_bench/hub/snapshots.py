"""A model's files from the hub: in the hub's own cache already, or fetched into it.

Files that arrived whole stay in the cache, so that an interrupted download is continued with the
files that are missing. Each is compared with the hub's own hash when it has arrived.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest
from cpt_bench.hub.faults import AGAIN, cache, explain, failed, no_room, size
from cpt_bench.hub.names import HubName, is_commit, page
from cpt_bench.hub.shards import INDEX, shards_of

Tell = Callable[[str], None]
"""Receives a line about what is being done."""

SECONDS = 10.0
"""How long the hub may take to answer what a repository holds."""

MAIN = "main"
CONFIGS = ("config.json", "adapter_config.json")
"""One of them makes a folder a model."""

_ENDINGS = (".safetensors", ".json", ".txt", ".model", ".jinja")
_LEFT_OUT = ("consolidated", "optimizer", "scheduler", "training_args", "trainer_state")
"""Beginnings of files that no model is opened from: weights again, a training's state."""


def wanted(names: Iterable[str]) -> list[str]:
    """The files of a repository that are needed to open its model.

    Those are weights as safetensors, settings, tokenizer and chat template at the top; not the
    same weights in other formats, pictures, or states of a training.
    """
    return sorted(
        name
        for name in names
        if "/" not in name and name.endswith(_ENDINGS) and not name.startswith(_LEFT_OUT)
    )


def cached(name: HubName) -> Path | None:
    """The snapshot in the hub's cache, if all that is needed of it is there; asks nobody."""
    home = _home(name.id)
    commit = name.revision if is_commit(name.revision) else _ref(home, name.revision or MAIN)
    folder = home / "snapshots" / commit if commit else None
    if folder is None or not any((folder / file).is_file() for file in CONFIGS):
        return None
    listed = _listed(name.id, folder.name)
    if listed is not None:
        return folder if all((folder / file).is_file() for file in wanted(listed)) else None
    named = [folder / file for file in shards_of(folder)]
    shards = named or [*folder.glob("*.safetensors")]
    return folder if shards and all(file.is_file() for file in shards) else None


def fetch(name: HubName, tell: Tell) -> Path:
    """Fetch what is missing of a model into the hub's cache; its folder there.

    Args:
        name: The model; without a revision its main branch as it is now.
        tell: Receives what is fetched, and how large it is.

    Raises:
        CptBenchError: The model is missing or gated, the hub does not answer, the disk is too
            small, or files arrived damaged.
    """
    with quietly():
        try:
            found = _listing(name)
            home = _home(name.id)
            absent = [
                file
                for file in found.files
                if not (home / "snapshots" / found.commit / file.name).exists()
                and not (home / "blobs" / file.blob).exists()
            ]
            _announce(name, found, absent, tell)
            return _download(name, found, absent)
        except Exception as error:
            raise _one_line(error, name) from error


def config(name: HubName) -> Path:
    """A model's ``config.json`` alone, from the hub's cache or the hub: a few kilobytes.

    Raises:
        CptBenchError: The model is missing or gated, or the hub does not answer.
    """
    from huggingface_hub import hf_hub_download

    with quietly():
        try:
            return Path(hf_hub_download(name.id, "config.json", revision=name.revision))
        except Exception as error:
            raise _one_line(error, name) from error


def _one_line(error: Exception, name: HubName) -> Exception:
    """What is raised for ``error``: itself, if it is one line already or a mistake of ours."""
    if isinstance(error, CptBenchError):
        return error
    known = explain(error, name.id)
    if known is None and not isinstance(error, OSError | RuntimeError | ValueError):
        return error
    return (known or failed(error)).error(name)


class _File(NamedTuple):
    """A file on the hub: its size in bytes, and its hash, SHA-256 or Git's own for small files."""

    name: str
    bytes: int
    sha256: str | None
    git: str | None

    @property
    def blob(self) -> str:
        """Its name among the cache's blobs."""
        return self.sha256 or self.git or "-"

    def arrived(self, place: Path) -> bool:
        """Whether the file at ``place`` is the one that the hub has."""
        if self.sha256:
            return digest(place) == self.sha256
        if self.git:
            content = place.read_bytes()
            head = f"blob {len(content)}\0".encode()
            return hashlib.sha1(head + content, usedforsecurity=False).hexdigest() == self.git
        return place.stat().st_size == self.bytes


class _Listing(NamedTuple):
    commit: str
    files: Sequence[_File]


def _listing(name: HubName) -> _Listing:
    """The commit that a revision means now, and the needed files at it."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(name.id, revision=name.revision, timeout=SECONDS, files_metadata=True)
    known = {one.rfilename: _file(one) for one in info.siblings or ()}
    files = wanted(known)
    if info.sha is None or not any(file in files for file in CONFIGS):
        raise CptBenchError(
            "holds no config.json: it is not a model for transformers",
            where=name,
            todo=f"See what it holds: {page(name.id)}/tree/main",
        )
    if not any(file.endswith(".safetensors") for file in files):
        others = sorted(n for n in known if n.endswith((".bin", ".pth", ".pt", ".gguf", ".h5")))
        raise CptBenchError(
            "holds no weights as *.safetensors" + (f", only {others[0]}" if others else ""),
            where=name,
            todo="Name a repository or a revision that has them, or convert them into a folder",
        )
    return _Listing(info.sha, [known[file] for file in files])


def _file(one: Any) -> _File:
    lfs = one.lfs
    sha256 = None if lfs is None else (lfs["sha256"] if isinstance(lfs, Mapping) else lfs.sha256)
    return _File(one.rfilename, int(one.size or 0), sha256, one.blob_id)


def _announce(name: HubName, found: _Listing, absent: Sequence[_File], tell: Tell) -> None:
    """State the sizes before the download starts, and refuse one for which there is no room."""
    whole, needed = (sum(f.bytes for f in files) for files in (found.files, absent))
    require_room(name, needed)
    there = "" if needed == whole else f" of {size(whole)}, the rest is there"
    tell(
        f"{name}: {len(absent)} files to fetch, {size(needed)}{there}; commit "
        f"{found.commit[:12]}, into {cache()}"
    )


def require_room(where: object, needed: int) -> None:
    """Refuse a download of so many bytes that does not fit on the disk of the hub's cache.

    Raises:
        CptBenchError: It gives both sizes.
    """
    place = cache()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise no_room(needed, free).error(where)


def _download(name: HubName, found: _Listing, absent: Sequence[_File]) -> Path:
    from huggingface_hub import snapshot_download

    folder = Path(
        snapshot_download(
            name.id,
            revision=found.commit,
            allow_patterns=[glob.escape(file.name) for file in found.files],
        )
    )
    damaged = [file for file in absent if not file.arrived(folder / file.name)]
    for file in damaged:  # this call has written them
        (folder / file.name).resolve().unlink(missing_ok=True)
        (folder / file.name).unlink(missing_ok=True)
    if damaged:
        raise CptBenchError(
            f"{damaged[0].name} arrived damaged: its hash is not the one that the hub gives, and "
            "it was removed",
            where=name,
            todo=AGAIN,
        )
    absent_shard = next((s for s in shards_of(folder) if not (folder / s).is_file()), None)
    if absent_shard is not None:
        raise CptBenchError(
            f"{INDEX} names {absent_shard}, which the repository does not hold",
            where=name,
            todo="Name another revision of it, or report it to its owner",
        )
    return folder


# ------------------------------------------------------------------------------------ the cache


def cached_data_sets() -> list[Path]:
    """Where the hub's libraries store the data sets that they have fetched, as published."""
    return [place for place in cache().glob("datasets--*") if place.is_dir()]


def _home(id: str) -> Path:
    return cache() / f"models--{id.replace('/', '--')}"


def _ref(home: Path, revision: str) -> str | None:
    """The commit that a branch or tag meant when it was last asked for."""
    file = home / "refs" / revision
    return file.read_text().strip() if file.is_file() else None


def _listed(id: str, commit: str) -> list[str] | None:
    """The names of all files at a commit, if the cache has recorded them."""
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:  # not installed, or before it recorded them
        return None
    try:
        return [file.path for file in get_cached_repo_tree(id, revision=commit)]
    except CachedRepoTreeNotFoundError:
        return None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No warnings of the library's own, and bars only where somebody watches."""
    from huggingface_hub.utils import logging as its
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    level, shown = its.get_verbosity(), not are_progress_bars_disabled()
    its.set_verbosity(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        its.set_verbosity(level)
        if shown and not sys.stderr.isatty():
            enable_progress_bars()
