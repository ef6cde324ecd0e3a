"""Reads ``suite.yaml`` and its cards into validated data; a mistake gives a one-line error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cpt_bench.documents import read_mapping
from cpt_bench.errors import CptBenchError, explain, shown
from cpt_bench.plugins import SUITE, builtin, listing, resolve
from cpt_bench.suite.cards import TaskCard
from cpt_bench.suite.origins import Hub
from cpt_bench.suite.prepared import recorded
from cpt_bench.suite.suite import Suite
from cpt_bench.suite.variants import (
    OVERLAYS,
    Data,
    card_data,
    choose,
    protocols_of,
    split_spec,
    suite_data,
    tiers_of,
)

M = TypeVar("M", bound=BaseModel)


def open_suite(spec: str) -> Suite:
    """A suite by its plug-in name (``nano``), or a folder with a ``suite.yaml``.

    ``@`` names a variant: ``cpt7@mini``, ``cpt7@paper``, ``cpt7@paper.direct+mini``. A built-in
    name means the built-in suite even if there is a folder of that name; ``./nano`` is the folder.
    """
    name, tag = split_spec(spec)
    return _load(suite_folder(name), tag)


def absolute_spec(spec: str) -> str:
    """``spec``; if it is a folder, its absolute path, which means the same from everywhere."""
    name, tag = split_spec(spec)
    if not (Path(name) / SUITE).is_file() or name in [row.name for row in listing("suites")]:
        return spec
    return f"{Path(name).absolute()}@{tag}" if tag else str(Path(name).absolute())


def suite_folder(name: str) -> Path:
    """The folder of a suite, named without a variant.

    Raises:
        CptBenchError: No suite has that name.
    """
    if name not in builtin("suites") and (Path(name) / SUITE).is_file():
        return Path(name)
    folder = Path(name)
    if folder.is_dir() and name not in [row.name for row in listing("suites")]:
        inside = [str(found.parent) for found in sorted(folder.glob(f"*/{SUITE}"))]
        todo = f"There is: {', '.join(inside)}" if inside else "Name the folder that holds one"
        raise CptBenchError(f"has no {SUITE}", where=folder, todo=todo)
    found = Path(resolve("suites", name).value)
    if not (found / SUITE).is_file():
        raise CptBenchError(f"has no {SUITE}", where=found, todo=f"Reinstall what offers {name}")
    return found


def load_suite(folder: Path) -> Suite:
    """Read ``suite.yaml`` and its cards from ``folder``, which may end in ``@variant``.

    Raises:
        CptBenchError: A file is missing, is not YAML, or has a wrong type; the message names it.
    """
    name, tag = split_spec(str(folder))
    return _load(Path(name), tag)


def _load(folder: Path, tag: str) -> Suite:
    main = folder / SUITE
    declared = read_mapping(main)
    require_shape(declared, main)
    variant = choose(tag, declared, main)
    data = suite_data(declared, variant, main)
    protocol = data.get("protocol") or {}
    chosen = (str(protocol.get("name")), str(protocol.get("style")), data.get("tier"))
    cards = {}
    for name in (*(data.get("sequence") or ()), *(data.get("general") or ())):
        file = folder / f"{name}.yaml"
        cards[str(name)] = card = load_card(file, *chosen)
        if card.name != str(name):
            todo = f"Write name: {name}, or rename the file and what names it in {SUITE}"
            raise CptBenchError(f"is the card of {card.name!r}", where=file, todo=todo)
    read, own = {"cards": cards, "folder": folder}, None
    if variant.base is not None:
        plain = variant._replace(base=None)
        known = {**suite_data(declared, plain, main), **read, "variant": plain}
        own = _validate(Suite, known, main)
    return _validate(Suite, {**data, **read, "variant": variant, "own": own}, main)


def require_shape(suite: Data, where: object) -> None:
    """Refuse a ``suite.yaml`` whose lists and mappings are not such, before they are looked into.

    Raises:
        CptBenchError: The message names the key.
    """
    for key in ("sequence", "general", "tiers"):
        given = suite.get(key) or []
        if not isinstance(given, list) or not all(isinstance(name, str | int) for name in given):
            what = f"{key}: not a list of names, but {shown(suite[key])}"
            raise CptBenchError(what, where=where, todo=f"Write {key}: [NAME, NAME]")
    require_mappings(suite, "protocols", where)
    bases = suite.get("other_bases") or {}
    if not isinstance(bases, dict) or not all(isinstance(b, str | dict) for b in bases.values()):
        what = f"other_bases: not a mapping of names to base models, but {shown(bases)}"
        raise CptBenchError(what, where=where, todo="Write other_bases: {NAME: FOLDER}")
    for name in {*map(str, bases)} & {*tiers_of(suite), *protocols_of(suite)}:
        what = f"other_bases: {name!r} is a tier or a protocol already"
        raise CptBenchError(what, where=where, todo="Give the base model another name")
    for name, protocol in protocols_of(suite).items():
        for key in ("prompts", "styles", "suite"):
            if not isinstance(protocol.get(key) or {}, dict):
                what = f"protocol {name}: {key}: not a mapping, but {shown(protocol[key])}"
                raise CptBenchError(what, where=where, todo=f"Write {key}: {{NAME: …}}")
        require_mappings(protocol, "styles", where)


def require_mappings(data: Data, key: str, where: object) -> None:
    """Refuse a key whose value is not a mapping of names to mappings.

    Raises:
        CptBenchError: The message names the key.
    """
    given = data.get(key) or {}
    if not isinstance(given, dict) or not all(isinstance(x or {}, dict) for x in given.values()):
        what = f"{key}: not a mapping of names to mappings, but {shown(given)}"
        raise CptBenchError(what, where=where, todo=f"Write {key}: {{NAME: {{KEY: VALUE}}}}")


def load_card(file: Path, protocol: str = "", style: str = "", tier: str | None = None) -> TaskCard:
    """A card under one protocol, style and tier.

    Raises:
        CptBenchError: It is missing, is not YAML, or has a wrong type.
    """
    declared = read_mapping(file)
    for kind in OVERLAYS:
        require_mappings(declared, kind, file)
    data = card_data(declared, protocol, style, tier)
    return pinned(_validate(TaskCard, {**data, "folder": file.parent}, file))


def pinned(card: TaskCard) -> TaskCard:
    """``card`` with the hashes of its prepared splits, for those that it does not publish.

    This way ledger keys and fingerprints cover the data that is really used.
    """
    if not isinstance(card.source, Hub) or all(s.sha256 for s in card.splits.values()):
        return card
    splits = {
        name: split if split.sha256 else split.model_copy(update={"sha256": recorded(card, name)})
        for name, split in card.splits.items()
    }
    return card.model_copy(update={"splits": splits})


def _validate(model: type[M], data: dict[str, Any], file: Path) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise CptBenchError(explain(error), where=file, todo="Correct the file") from None
