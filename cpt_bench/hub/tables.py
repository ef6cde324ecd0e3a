"""Fetches one split of a data set on the hub: first its files to the hub's cache, then its rows.

``load_dataset`` alone fetches and builds all splits of a configuration, does not show their size
before it starts, and waits half a minute for a hub that cannot be reached. Here the files of one
split are found first, fetched once for all that need them, and only that split is built.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.hub.faults import cache, explain, size
from cpt_bench.hub.names import is_commit
from cpt_bench.hub.snapshots import SECONDS, Tell, quietly, require_room

KIND = "dataset"


class Rows(NamedTuple):
    """The rows of a split, and the commit that they are from."""

    rows: Any
    commit: str


def fetch_split(
    repo: str,
    config: str | None,
    split: str,
    revision: str | None,
    scratch: Path | None,
    tell: Tell,
) -> Rows:
    """The rows of one split, read from files in the hub's cache.

    Args:
        repo: The data set, ``org/name``.
        config: Its configuration; None is the default one.
        split: The split's name there.
        revision: A commit, tag or branch; None is the main branch as it is now.
        scratch: Where the rows are built; None: where ``datasets`` stores what it builds.
        tell: Receives what is fetched, and how large it is.

    Raises:
        CptBenchError: The hub refuses, is away, or cut the download off; or there is no room.
        Exception: ``datasets`` cannot read what was fetched.
    """
    with quietly():
        try:
            commit = _commit(repo, revision)
            builder = _builder(repo, config, commit, scratch)
            files = _only(builder, split)
            _fetch(repo, commit, files, tell)
        except CptBenchError:
            raise
        except Exception as error:
            fault = explain(error, repo, KIND)
            if fault is None:
                raise
            raise fault.error(repo) from error
        builder.download_and_prepare()
        return Rows(builder.as_dataset(split=split), commit)


def _commit(repo: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    if revision is not None and is_commit(revision):
        return revision
    commit = HfApi().dataset_info(repo, revision=revision, timeout=SECONDS).sha
    if commit is None:
        raise CptBenchError("the hub names no commit of it", where=repo)
    return commit


def _builder(repo: str, config: str | None, commit: str, scratch: Path | None) -> Any:
    from datasets import load_dataset_builder

    options = {"cache_dir": str(scratch)} if scratch else {}
    return load_dataset_builder(repo, config, revision=commit, **options)


def _only(builder: Any, split: str) -> list[str]:
    """The paths of a split's files in its repository; the builder then builds nothing else."""
    from datasets.data_files import DataFilesDict

    there = builder.config.data_files
    if split not in there:
        raise ValueError(f'Unknown split "{split}". Should be one of {[*there]}.')
    builder.config.data_files = DataFilesDict({split: there[split]})
    # What is known of all splits together would be compared with the one that is built.
    builder.info.splits = builder.info.dataset_size = builder.info.download_size = None
    builder.info.size_in_bytes = None
    return [str(file).partition("@")[2].partition("/")[2] for file in there[split]]


def _fetch(repo: str, commit: str, files: Sequence[str], tell: Tell) -> None:
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    absent = [
        file
        for file in files
        if not isinstance(try_to_load_from_cache(repo, file, revision=commit, repo_type=KIND), str)
    ]
    if not absent:
        return
    sizes = HfApi().get_paths_info(repo, absent, revision=commit, repo_type=KIND)
    needed = sum(int(getattr(one, "size", 0) or 0) for one in sizes)
    require_room(repo, needed)
    tell(f"{repo}: {len(absent)} files to fetch, {size(needed)}, into {cache()}")
    patterns = [glob.escape(file) for file in absent]
    snapshot_download(repo, repo_type=KIND, revision=commit, allow_patterns=patterns)
