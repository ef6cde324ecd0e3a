"""Reading a suite: ``suite.yaml`` and its cards become checked data; a mistake is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cpt_bench.errors import CptBenchError, explain
from cpt_bench.plugins import resolve
from cpt_bench.suite.cards import TaskCard
from cpt_bench.suite.origins import Generator
from cpt_bench.suite.prepared import recorded
from cpt_bench.suite.suite import Suite
from cpt_bench.suite.variants import card_data, choose, split_spec, suite_data

# libyaml where PyYAML has it: ten times as quick, and every command reads cards.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

M = TypeVar("M", bound=BaseModel)


def open_suite(spec: str) -> Suite:
    """A suite by its plug-in name (``nano``), or a folder that holds a ``suite.yaml``.

    ``@`` names a variant: ``cpt7@mini``, ``cpt7@paper``, ``cpt7@paper.direct+mini``.
    """
    name, tag = split_spec(spec)
    folder = Path(name)
    if not (folder / "suite.yaml").is_file():
        folder = Path(resolve("suites", name).value)
    return _load(folder, tag)


def load_suite(folder: Path) -> Suite:
    """Read ``suite.yaml`` and its cards from ``folder``, which may end in ``@variant``.

    Raises:
        CptBenchError: A file is missing, is not YAML, or has a wrong type; the line says which key.
    """
    name, tag = split_spec(str(folder))
    return _load(Path(name), tag)


def _load(folder: Path, tag: str) -> Suite:
    main = folder / "suite.yaml"
    declared = _read_yaml(main)
    variant = choose(tag, declared, main)
    data = suite_data(declared, variant, main)
    protocol = data.get("protocol") or {}
    ruler = (str(protocol.get("name")), str(protocol.get("style")), data.get("tier"))
    cards = {}
    for name in (*data.get("sequence", ()), *data.get("general", ())):
        file = folder / f"{name}.yaml"
        card = _validate(TaskCard, card_data(_read_yaml(file), *ruler), file)
        cards[str(name)] = pinned(card)
    return _validate(Suite, {**data, "cards": cards, "folder": folder, "variant": variant}, main)


def pinned(card: TaskCard) -> TaskCard:
    """``card`` with the hashes of its prepared splits, where it publishes none.

    So that ledger keys and fingerprints hold the data that was really used.
    """
    if isinstance(card.source, Generator) or all(s.sha256 for s in card.splits.values()):
        return card
    splits = {
        name: split if split.sha256 else split.model_copy(update={"sha256": recorded(card, name)})
        for name, split in card.splits.items()
    }
    return card.model_copy(update={"splits": splits})


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        raise CptBenchError("no such file", where=file) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise CptBenchError(f"not valid YAML ({problem})", where=f"{file}{line}") from None
    if not isinstance(data, dict):
        raise CptBenchError("not a mapping of keys to values", where=file)
    return data


def _validate(model: type[M], data: dict[str, Any], file: Path) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise CptBenchError(explain(error), where=file, todo="Correct the file") from None
