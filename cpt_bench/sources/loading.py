"""Loads a split from any kind of source and checks it against the published hash."""

from __future__ import annotations

from pathlib import Path

from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import load
from cpt_bench.sources import reasoning_gym
from cpt_bench.sources.cache import read
from cpt_bench.sources.declared import read_declared
from cpt_bench.sources.digests import split_digest
from cpt_bench.suite import Sample, Suite, TaskCard
from cpt_bench.suite.columns import Files
from cpt_bench.suite.origins import Generator, Hub, ReasoningGym
from cpt_bench.suite.prepared import is_prepared, root


def load_split(card: TaskCard, split: str, *, check: bool = True) -> list[Sample]:
    """The samples of one split, in their published order.

    Args:
        card: The task.
        split: ``train`` or ``test``.
        check: Compare the hash with the card's; off only in the tool that writes cards.

    Raises:
        CptBenchError: The samples are not those that the card publishes, or the data has not been
            prepared.
    """
    published = card.splits.get(split)
    if published is None:
        raise CptBenchError(f"task {card.name} has no {split} split")
    if isinstance(card.source, Hub):
        return read(card, split, check=check)
    samples = made_split(card, split, check=check)
    return [with_instruction(s, card) for s in samples] if card.instruction else samples


def questions_of(card: TaskCard) -> list[Sample]:
    """What is asked in the test split, also where its gold is private and not on this machine.

    Raises:
        CptBenchError: As :func:`load_split`.
    """
    source = card.source
    part = source.of("test") if isinstance(source, Files) else None
    if part is None or not part.gold or (home(card) / part.gold).exists():
        return load_split(card, "test")
    samples = read_declared(card, "test", asked_only=True)
    return [with_instruction(s, card) for s in samples] if card.instruction else samples


def home(card: TaskCard) -> Path:
    """The folder that the files of a card's source are named from."""
    root = card.source.root if isinstance(card.source, Files) else ""
    return (card.folder or Path()) / root


def with_instruction(sample: Sample, card: TaskCard) -> Sample:
    """``sample`` as it is asked: with the card's instruction after its question."""
    return sample.model_copy(update={"question": sample.question + card.instruction})


def made_split(card: TaskCard, split: str, *, check: bool = True) -> list[Sample]:
    """The samples of a split that is made or read here, without the card's instruction.

    Raises:
        CptBenchError: They are not those that the card publishes.
    """
    published = card.splits[split]
    if check and published.sha256 is None and not isinstance(card.source, ReasoningGym):
        raise unpinned(card, split)
    if isinstance(card.source, Files):
        samples = read_declared(card, split)
    elif isinstance(card.source, ReasoningGym):
        samples = reasoning_gym.make(card, split)
    else:
        assert isinstance(card.source, Generator)
        samples = _made(card, split, card.source)
    # Where making a split takes minutes, its card may leave the hash out: the package's version,
    # the settings and the seed, which are part of the fingerprint, say what it is.
    check = check and published.sha256 is not None
    if check and (found := split_digest(samples)) != published.sha256:
        raise CptBenchError(
            f"the {split} split differs from the published one (sha256 {found[:12]}…, "
            f"not {str(published.sha256)[:12]}…)",
            where=f"task {card.name}",
            todo=_cure(card),
        )
    return samples


def _made(card: TaskCard, split: str, source: Generator) -> list[Sample]:
    """What the card's function returns for a split.

    Raises:
        CptBenchError: It fails, or returns anything but a sequence of samples.
    """
    make, where = load(source.target, card.folder), f"task {card.name}, {split} split"
    n = card.splits[split].n
    try:
        samples = list(make(split, n, **source.options))
    except CptBenchError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code: anything may be wrong with it
        what = f"{source.target} failed ({type(error).__name__}: {error})"
        todo = f"It is called as {source.target.rpartition(':')[2]}({split!r}, {n}, **options)"
        raise CptBenchError(" ".join(what.split())[:400], where=where, todo=todo) from error
    odd = next((sample for sample in samples if not isinstance(sample, Sample)), None)
    if odd is not None:
        what = f"{source.target} returned {type(odd).__name__}, not cpt_bench.suite.Sample"
        raise CptBenchError(what, where=where, todo="Return a list of samples")
    return samples


def _cure(card: TaskCard) -> str:
    """What to do about data that are not those of the card."""
    if card.source.kind == "generator" and card.source.target.startswith("cpt_bench."):
        return "Reinstall cptbench, or check what changed in its data files"
    return (
        "Undo what changed in its data or its code; or, if the change is wanted, raise the card's "
        "version and run: cptbench suite check SUITE --pin"
    )


def unpinned(card: TaskCard, split: str) -> CptBenchError:
    """The error for a split whose card has no hash of its samples."""
    return CptBenchError(
        f"the {split} split has no sha256: nobody could tell whether its samples changed",
        where=f"task {card.name}",
        todo=f"Run: cptbench suite check {card.folder or 'SUITE'} --pin",
    )


def require_packages(suite: Suite) -> list[str]:
    """The packages, with their versions, that make samples of a suite.

    Raises:
        CptBenchError: One is missing; the line names the command that installs it.
    """
    sources = [card.source for card in suite.cards.values()]
    wanted = sorted({s.version for s in sources if isinstance(s, ReasoningGym)})
    for version in wanted:
        reasoning_gym.require(version)
    return [f"{reasoning_gym.PACKAGE} {version}" for version in wanted]


def require_prepared(suite: Suite, spec: str) -> None:
    """Raise an error that lists what is missing, data or packages, before ``suite`` can be run."""
    require_packages(suite)
    missing = [
        f"{card.name}/{split}"
        for card in suite.cards.values()
        if isinstance(card.source, Hub)
        for split in card.splits
        if not is_prepared(card, split)
    ]
    for card in suite.cards.values():
        for split, published in card.splits.items():
            if published.sha256 is None and not isinstance(card.source, Hub | ReasoningGym):
                raise unpinned(card, split)
    if missing:
        raise CptBenchError(
            f"not prepared: {', '.join(missing)}",
            where=root(),
            todo=f"Run: cptbench data prepare --suite {spec}",
        )
