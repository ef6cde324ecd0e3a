"""The format of an entry, versioned; older versions are brought up to date when they are read.

::

    leaderboards/<suite>/<version>/<division>/<date>__<method>__<model>/
      entry.yaml                                 who, what, how: written by people
      seed-0/manifest.json                       what was run; SHA-256 and size of every file below
      seed-0/matrix.json  metrics.json           what is claimed
      seed-0/environment.json  recipe.json       on what, with which settings
      seed-0/ledger.jsonl.zst                    the run's record of every step
      seed-0/predictions/1-science/text.jsonl.zst
      seed-0/replies/1-science/text.jsonl.zst    long thoughts in full (optional)
      seed-0/forced/direct/text.jsonl.zst        what was lost, asked with a forced beginning
      seed-0/kl/1-science.jsonl.zst              KL to the base, one row a prompt
      seed-0/extra-data.txt.zst                  hashes of training questions from elsewhere (open)
      reproductions/<date>__<who>/               a rerun by somebody: report.json, predictions/
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cpt_bench.errors import explain
from cpt_bench.leaderboard.findings import Refused
from cpt_bench.leaderboard.names import plain, skeleton
from cpt_bench.leaderboard.strict import read_json, read_yaml

FORMAT: Final = 2
"""The format that ``cptbench submit`` writes. 1: the draft before the first board."""

SHA256 = r"^[0-9a-f]{64}$"
NAME = r"^[a-z][a-z0-9_-]*$"
FOLDER = r"^(20[0-9]{2}-[0-9]{2}-[0-9]{2}__[a-z0-9.-]+__[a-z0-9.-]+)?$"
"""An entry's folder, or nothing."""
Digest = str
Privileges = dict[str, bool | int | float | str | None]


class Strict(BaseModel):
    """Unknown keys are mistakes; text is not read as a number, nor a number as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SuiteRef(Strict):
    """A suite's exact version: the fingerprint is over all that it fixes."""

    name: str = Field(pattern=NAME, max_length=64)
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+){0,2}$")
    fingerprint: str = Field(pattern=SHA256)
    variant: str = Field(default="", pattern=r"^[a-z0-9][a-z0-9.+-]{0,40}$|^$")

    @property
    def label(self) -> str:
        """``cpt7`` or ``cpt7@mini``: each variant has a board of its own."""
        return f"{self.name}@{self.variant}" if self.variant else self.name


class Model(Strict):
    """The model that a run starts from; of predictions alone nobody knows its weights' digest."""

    name: str = Field(min_length=1, max_length=120)
    weights: str = Field(pattern=f"{SHA256}|^$")


class Entry(Strict):
    """``entry.yaml``: the part written by people.

    Attributes:
        format: Of the entry; see :data:`FORMAT`.
        rules: The version of the rules it was submitted under.
        suite: What was run.
        division: ``closed``, ``open`` or ``joint``; see ``leaderboards/RULES.md``.
        name: The method, as the table shows it.
        trainer: What ran: a built-in name, ``pkg/name``, or a class.
        date: Of packing, ``YYYY-MM-DD``.
        model: The base model.
        lane: What of it is cptbench's own doing: ``trainer``, ``checkpoints``, ``endpoint`` or
            ``predictions``.
        seeds: Every seed of the entry.
        privileges: What the method used beyond the current task's train split.
        response_style: How the final model answers: ``direct``, ``thinking`` or ``mixed``.
        extra_data: In words, training data that is not the suite's; empty for none.
        authors: Whose method or run it is.
        paper: A link.
        code: A link.
        checkpoints: A link to the weights of each stage.
        supersedes: The folder name of an entry this one corrects, of the same authors.
        notes: Anything else worth knowing.
    """

    format: Literal[2]
    rules: str
    suite: SuiteRef
    division: Literal["closed", "open", "joint"]
    name: str = Field(min_length=1, max_length=80)
    trainer: str = Field(min_length=1, max_length=120)
    date: str = Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")
    model: Model
    lane: Literal["trainer", "checkpoints", "endpoint", "predictions"]
    seeds: tuple[int, ...] = Field(min_length=1, max_length=64)
    privileges: Privileges
    response_style: Literal["direct", "thinking", "mixed"]
    extra_data: str = Field(default="", max_length=500)
    authors: tuple[str, ...] = Field(min_length=1, max_length=100)
    paper: str = ""
    code: str = ""
    checkpoints: str = ""
    supersedes: str = Field(default="", pattern=FOLDER)
    notes: str = Field(default="", max_length=2000)

    @field_validator("seeds", "authors", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("date")
    @classmethod
    def _day(cls, value: str) -> str:
        datetime.date.fromisoformat(value)  # the pattern has a 31st in every month
        return value

    @field_validator("paper", "code", "checkpoints")
    @classmethod
    def _links(cls, value: str) -> str:
        if value and not re.fullmatch(r"https://[^\s<>\"'\\`{}|^]{3,400}", value):
            raise ValueError("not an https:// link")
        return value

    def folder_name(self) -> str:
        return f"{self.date}__{slug(self.name)}__{slug(self.model.name)}"

    def is_by(self, *names: str) -> bool:
        """Whether one of ``names`` is among its authors, however it is capitalised or spaced."""
        return not {plain(a) for a in self.authors}.isdisjoint(map(plain, names))

    def may_be_by(self, *names: str) -> bool:
        """Whether one of ``names`` is an author's, or looks like one's to a reader."""
        return not {skeleton(a) for a in self.authors}.isdisjoint(map(skeleton, names))

    def place(self) -> Path:
        """Where the entry belongs, below ``leaderboards/``."""
        return Path(self.suite.label, self.suite.version, self.division, self.folder_name())


class ProtocolRef(Strict):
    """How questions were asked; the digest is over the whole protocol."""

    name: str
    style: str
    prompt: str
    sha256: str = Field(pattern=SHA256)


class DataRef(Strict):
    """One benchmark's card and splits, by digest."""

    card: str = Field(pattern=SHA256)
    n: int = Field(gt=0)
    test: str = Field(pattern=SHA256)
    train: str | None = Field(default=None, pattern=SHA256)


class FileRef(Strict):
    """A file below a manifest."""

    sha256: str = Field(pattern=SHA256)
    bytes: int = Field(ge=0)


class Manifest(Strict):
    """``manifest.json`` of one seed: what was run, and every file of it.

    Attributes:
        format: As the entry's.
        package: ``cptbench 0.1.0``: what packed it.
        suite: What was run.
        protocol: How it was asked.
        data: Benchmark to its data, by digest.
        order: The tasks, in training order.
        seed: Of the run.
        lane: See :class:`Entry`.
        trainer: Its short name.
        origin: Where its code came from.
        privileges: As the trainer declares them.
        base: The model it started from.
        weights: Stage folder name to the digest of its weights; empty where none are known.
        files: Path below the manifest to digest and size.
        optional: Paths that may be absent without a loss of numbers.
    """

    format: Literal[2]
    package: str
    suite: SuiteRef
    protocol: ProtocolRef
    data: dict[str, DataRef]
    order: tuple[str, ...]
    seed: int = Field(ge=0)
    lane: Literal["trainer", "checkpoints", "endpoint", "predictions"]
    trainer: str
    origin: dict[str, str]
    privileges: Privileges
    base: Model
    weights: dict[str, str]
    files: dict[str, FileRef]
    optional: tuple[str, ...] = ()

    @property
    def joint(self) -> bool:
        """Whether all tasks were trained at once."""
        return bool(self.privileges.get("joint"))

    @field_validator("order", "optional", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


def slug(text: str) -> str:
    """``RFT (GRPO)`` -> ``rft-grpo``: fit for a folder on every system."""
    ascii_ = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9.]+", "-", ascii_.lower()).strip("-.")[:60] or "method"


def portable_origin(found: dict[str, str]) -> dict[str, str]:
    """Where a trainer's code came from, without the folders of somebody's machine."""
    out = {key: str(value) for key, value in found.items()}
    file, colon, name = out.get("spec", "").partition(":")
    if file.endswith(".py"):
        out["spec"] = f"./{Path(file).name}{colon}{name}"
    return out


# ------------------------------------------------------------------------------- old formats


def _entry_1(old: dict[str, Any]) -> dict[str, Any]:
    """Format 1 named suite and model by flat keys and had neither rules nor a response style."""
    new = {k: v for k, v in old.items() if k not in _FLAT}
    new["format"] = 2
    new.setdefault("rules", "0")
    new.setdefault("response_style", "mixed")
    new["suite"] = {
        "name": old.get("suite"),
        "version": old.get("suite_version"),
        "fingerprint": old.get("suite_fingerprint"),
    }
    new["model"] = {"name": old.get("base_model"), "weights": old.get("base_weights")}
    new["name"] = old.get("method")
    return new


_FLAT = {"suite", "suite_version", "suite_fingerprint", "base_model", "base_weights", "method"}


def _manifest_1(old: dict[str, Any]) -> dict[str, Any]:
    """Format 1 listed files by digest alone."""
    files = {k: {"sha256": v, "bytes": -1} for k, v in old["files"].items()}
    return {**old, "format": 2, "files": files}


UPGRADES: Final[dict[str, dict[int, Callable[[dict[str, Any]], dict[str, Any]]]]] = {
    "entry": {1: _entry_1},
    "manifest": {1: _manifest_1},
}


def read_entry(folder: Path) -> Entry:
    """Read ``entry.yaml``, of this or an older format.

    Raises:
        Refused: It is not a valid entry; the error names the key.
    """
    entry: Entry = _read(Entry, "entry", read_yaml(folder / "entry.yaml"), "entry.yaml")
    return entry


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` of a seed, of this or an older format."""
    data = read_json(folder / "manifest.json")
    where = f"{folder.name}/manifest.json"
    if isinstance(data, dict) and data.get("format") == 1 and data["format"] is not True:
        if not isinstance(data.get("files"), dict):
            raise Refused("schema", "files: not a mapping of paths to digests", where=where)
        data = UPGRADES["manifest"][1](data)
        sizes = {}
        for path, ref in data["files"].items():
            file = folder / path
            inside = safe_path(path) and file.is_file() and not file.is_symlink()
            sizes[path] = {**ref, "bytes": file.stat().st_size if inside else 0}
        data["files"] = sizes
    manifest: Manifest = _read(Manifest, "manifest", data, where)
    return manifest


def _read(model: type[Any], kind: str, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise Refused("schema", "is not a mapping of keys to values", where=where)
    version = data.get("format")
    if type(version) is int and version in UPGRADES[kind]:
        data, version = UPGRADES[kind][version](data), FORMAT
    if type(version) is not int or version != FORMAT:
        known = ", ".join(map(str, [*UPGRADES[kind], FORMAT]))
        raise Refused("format", f"has format {version!r}; this cptbench reads {known}", where=where)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise Refused("schema", explain(error), where=where) from None


# ------------------------------------------------------------------------------------- layout

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
_WINDOWS = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))}


def safe_path(path: str) -> bool:
    """Whether a relative path stays below its folder and means the same on every system."""
    parts = path.split("/")
    return len(parts) <= 6 and all(
        _PART.fullmatch(part)
        and not part.endswith(".")
        and part.partition(".")[0].lower() not in _WINDOWS
        for part in parts
    )


SEED_FOLDER: Final = re.compile(r"seed-(0|[1-9][0-9]{0,8})")
REPRODUCTION: Final = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}__[a-z0-9][a-z0-9.-]{0,60}")
SEED_FILES: Final = (
    "manifest.json",
    "matrix.json",
    "metrics.json",
    "environment.json",
    "recipe.json",
)
SEED_OPTIONAL: Final = ("ledger.jsonl.zst", "extra-data.txt.zst")
_STAGE = r"[0-9]{1,3}-[a-z][a-z0-9_-]*"
_BENCH = r"[a-z][a-z0-9_-]*\.jsonl\.zst"
_TABLES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(predictions|replies)/{_STAGE}/{_BENCH}",
        rf"forced/[a-z][a-z0-9_-]*/{_BENCH}",
        rf"kl/{_STAGE}\.jsonl\.zst",
    )
)


def known_seed_file(path: str) -> bool:
    """Whether a path below ``seed-<n>/`` is one that the format has."""
    return path in SEED_FILES or path in SEED_OPTIONAL or any(p.fullmatch(path) for p in _TABLES)


def known_file(path: str) -> bool:
    """Whether a path below the entry's folder is one that the format has."""
    head, _, rest = path.partition("/")
    if path == "entry.yaml":
        return True
    if SEED_FOLDER.fullmatch(head):
        return known_seed_file(rest)
    if head == "reproductions":
        who, _, file = rest.partition("/")
        table = file.startswith("predictions/") and known_seed_file(file)
        return bool(REPRODUCTION.fullmatch(who)) and (file == "report.json" or table)
    return False
