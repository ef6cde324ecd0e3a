"""A published row's pictures as encoded bytes, wherever the table stores them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.images import BROKEN, LONGEST_RATIO


class Repository(NamedTuple):
    """The data set that a table belongs to, for pictures in separate files.

    Attributes:
        repo: Its id.
        revision: The commit that was read, if known.
        origin: A folder with ``<owner>/<name>`` folders; None: the hub.
        split: The split that is read, for errors.
        caches: Folders that ``datasets`` unpacks files into.
    """

    repo: str
    revision: str | None
    origin: Path | None
    split: str
    caches: tuple[Path, ...] = ()

    def picture(self, path: str) -> bytes:
        """The bytes of a picture that a row names by its path.

        A relative path is relative to the repository, never to the current directory.

        Raises:
            CptBenchError: The repository has no such file.
        """
        where = f"{self.repo}, split {self.split}"
        if Path(path).is_absolute():
            inside = [folder for folder in (*self.caches, *self._local()) if _within(path, folder)]
            if inside and Path(path).is_file():
                return Path(path).read_bytes()
            raise CptBenchError(
                f"a picture is named by a path outside the data set ({path})",
                where=where,
                todo="Give pictures as bytes, or by paths inside the data set's folder",
            )
        for folder in self._local():
            file = folder / path
            if _within(str(file), folder) and file.is_file():
                return file.read_bytes()
        if self.origin is None:
            return self._fetched(path, where)
        raise CptBenchError(
            f"the picture {path!r} is not in the data set's folder", where=where,
            todo=f"Put it into {self.origin / self.repo}",
        )  # fmt: skip

    def _local(self) -> tuple[Path, ...]:
        return () if self.origin is None else (self.origin / self.repo,)

    def _fetched(self, path: str, where: str) -> bytes:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            file = hf_hub_download(self.repo, path, repo_type="dataset", revision=self.revision)
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CptBenchError(f"the picture {path!r} cannot be fetched ({reason})", where=where,
                                todo="Check the network, or give a local copy with --from DIR") \
                from None  # fmt: skip
        return Path(file).read_bytes()


def _within(path: str, folder: Path) -> bool:
    """Whether ``path`` is below ``folder``, with ``..`` resolved and links not followed."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100


def encoded_bytes(value: Any, picture: Callable[[str], bytes]) -> Any:
    """A picture's encoded bytes, a list of them, or the value as it is."""
    if isinstance(value, list):
        return [encoded_bytes(item, picture) for item in value]
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        if value["bytes"] is not None:
            return value["bytes"]
        return picture(value["path"]) if value["path"] else None
    return value


def check_picture(
    data: bytes | Path, where: str, todo: str = "Leave the row out of the card, or crop the picture"
) -> None:
    """Refuse a picture that is broken or too narrow, judged by its header alone.

    Decoding every picture would take hours; that happens when it is used.

    Args:
        data: The picture's bytes or its file.
        where: Its data set and sample, for errors.
        todo: What to do about it, for errors.

    Raises:
        CptBenchError: The picture is refused.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            width, height = image.size
    except (*BROKEN, Image.DecompressionBombError, UnidentifiedImageError) as error:
        raise CptBenchError(f"the picture is broken ({error})", where=where, todo=todo) from None
    if max(width, height) > LONGEST_RATIO * min(width, height):
        raise CptBenchError(
            f"the picture is {width} x {height}: one side is more than {LONGEST_RATIO} times the "
            "other, which Qwen's processors refuse",
            where=where,
            todo=todo,
        )
