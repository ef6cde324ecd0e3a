"""``cptbench suite new``: a suite's folder, or a package, from data or from nothing."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml

from cpt_bench.errors import CptBenchError
from cpt_bench.scaffold.hub import published, sizes_of, source_of
from cpt_bench.scaffold.proposal import (
    Data,
    Proposal,
    data_sets,
    first_rows,
    names_pictures,
    propose,
)
from cpt_bench.sources import load_split
from cpt_bench.sources.declared import drawn_rows, usable_rows
from cpt_bench.sources.hub import prepare
from cpt_bench.sources.leakage import leaks
from cpt_bench.sources.loading import made_split
from cpt_bench.suite.columns import Files
from cpt_bench.suite.origins import Draw
from cpt_bench.suite.reading import load_card

REPO = re.compile(r"[\w.-]+/[\w.-]+")
"""The id of a data set of the hub."""

TESTED, SHARE = 500, 5
"""The most test questions that are drawn, and one in how many rows is one."""

COPIED = "data"
"""The folder of a suite that data are copied to."""

RECIPE = "suite_recipe_"


def new_suite(
    name: str,
    parent: Path,
    origin: str | None,
    *,
    package: bool = False,
    copy: bool = False,
    copies: Path | None = None,
) -> tuple[Path, list[str]]:
    """Write a suite called ``name``.

    Args:
        name: Of the suite, and of the package.
        parent: The folder to make it in.
        origin: A file, a folder, or the id of a data set of the hub; None for an example whose
            samples are made by a function.
        package: Whether to make a package that can be installed, with its data in it.
        copy: Whether to copy the data into the suite; a package always has its own.
        copies: Where to take data sets of the hub from; None: the hub.

    Returns:
        The suite's folder, and remarks on what was guessed.

    Raises:
        CptBenchError: The name is none, the folder exists, or the data cannot be read.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        todo = "Use small letters, digits and hyphens"
        raise CptBenchError(f"{name!r} is no name for a suite", todo=todo)
    top = parent / name
    if top.exists():
        raise CptBenchError("exists already", where=top, todo="Choose another name")
    repo = origin if origin and not Path(origin).exists() and REPO.fullmatch(origin) else None
    found = [] if origin is None or repo else data_sets(Path(origin))
    made = [(data, propose([*first_rows(data)], data.root)) for data in found]
    folder = top / "src" / name.replace("-", "_") if package else top
    folder.mkdir(parents=True)
    try:
        if package:
            _package(top, name, folder)
        if origin is None:
            remarks = _example(folder, name)
        elif repo:
            remarks = _hub(folder, name, repo, copies)
        else:
            remarks = [*_cards(folder, name, made, copy or package)]
    except BaseException:
        shutil.rmtree(top, ignore_errors=True)
        raise
    return folder, remarks


def _hub(folder: Path, name: str, repo: str, copies: Path | None) -> list[str]:
    """A suite of one task, whose data set is fetched now."""
    found = published(repo, copies)
    proposal = found.proposal
    sizes = sizes_of(found, TESTED, SHARE)
    _write(
        folder / f"{found.name}.yaml",
        "suite_card.yaml.txt",
        **_words(found.name, "hub", {"splits": source_of(repo, found)}, proposal),
        splits=_splits(sizes),
    )
    card = load_card(folder / f"{found.name}.yaml")
    for split in card.splits:
        prepare(card, split, copies)
    card = load_card(folder / f"{found.name}.yaml")
    longest = max(len(s.answers[0]) for s in load_split(card, "test"))
    _suite(folder, name, [found.name], longest)
    return [f"{found.name}: {remark}" for remark in proposal.remarks]


def _package(top: Path, name: str, folder: Path) -> None:
    _write(top / "pyproject.toml", "suite_pyproject.toml.txt", name=name, module=folder.name)
    (folder / "__init__.py").write_text(f'"""The suite {name}: suite.yaml and its cards."""\n')


def _write(file: Path, template: str, **names: str) -> None:
    text = (importlib.resources.files(__package__) / template).read_text(encoding="utf-8")
    file.write_text(Template(text).substitute(names), encoding="utf-8")


def _example(folder: Path, name: str) -> list[str]:
    """Two tasks whose samples a function makes."""
    _write(folder / "samples.py", "suite_samples.py.txt")
    for task, grader, kind in (("sums", "number", "number"), ("alphabet", "exact", "word")):
        names = {"task": task, "grader": grader, "kind": kind}
        _write(folder / f"{task}.yaml", "suite_generated.yaml.txt", **names)
    _suite(folder, name, ["sums", "alphabet"], longest=4)
    return []


def _suite(folder: Path, name: str, tasks: Sequence[str], longest: int) -> None:
    names = {
        "name": name,
        "title": ", then ".join(tasks),
        "sequence": ", ".join(tasks),
        "tokens": str(32 if longest <= 24 else 4 * (longest // 4) + 32),
    }
    _write(folder / "suite.yaml", "suite.yaml.txt", **names)
    (folder / "recipes").mkdir()
    for template in importlib.resources.files(__package__).iterdir():
        if template.name.startswith(RECIPE):  # RECIPE + the trainer's name + .yaml.txt
            recipe = template.name.removeprefix(RECIPE).removesuffix(".txt")
            _write(folder / "recipes" / recipe, template.name, name=name)


def _cards(folder: Path, name: str, made: Sequence[tuple[Data, Proposal]], copy: bool) -> list[str]:
    remarks, longest = [], 0
    for data, proposal in made:
        root = _placed(folder, data, copy)
        longest = max(longest, _card(folder, data, proposal, root))
        remarks += [f"{data.name}: {remark}" for remark in proposal.remarks]
    _suite(folder, name, [data.name for data, _ in made], longest)
    return remarks


def _placed(folder: Path, data: Data, copy: bool) -> str:
    """The source's root, from the card; the data are copied there if wanted."""
    if not copy:
        return os.path.relpath(data.root.resolve(), folder.resolve())
    target = folder / COPIED / data.name
    file = data.root / data.files[0] if len(data.files) == 1 else data.root
    if file.is_file() and not names_pictures(data):
        target.mkdir(parents=True)
        shutil.copy(file, target)
    else:
        shutil.copytree(data.root, target)
    return f"{COPIED}/{data.name}"


def _card(folder: Path, data: Data, proposal: Proposal, root: str) -> int:
    """Write the card of a data set; returns the length of its longest gold answer."""
    source: dict[str, Any] = {"root": root} if root != "." else {}
    if data.splits:
        source["splits"] = {s: {"files": list(names)} for s, names in data.splits.items()}
    else:
        source["files"] = list(data.files)
    names = _words(data.name, data.kind, source, proposal)
    file = folder / f"{data.name}.yaml"
    unread = {"train": {"n": 1, "sha256": None}, "test": {"n": 1, "sha256": None}}
    _write(file, "suite_card.yaml.txt", **names, splits=_splits(unread))
    shared = {s: {**unread[s], "draw": {"seed": 0}} for s in unread} if not data.splits else unread
    _write(file, "suite_card.yaml.txt", **names, splits=_splits(shared))
    sizes = _sizes(file, data)
    _write(file, "suite_card.yaml.txt", **names, splits=_splits(sizes))
    card = load_card(file)
    samples = {split: made_split(card, split, check=False) for split in sizes}
    if not data.splits and leaks(samples["train"], samples["test"]) != ([], []):
        by = proposal.map.get("images") if isinstance(proposal.map.get("images"), str) else None
        sizes = _sizes(file, data, by or _template(card.source))
        _write(file, "suite_card.yaml.txt", **names, splits=_splits(sizes))
        samples = {split: made_split(load_card(file), split, check=False) for split in sizes}
    return max(len(s.answers[0]) for part in samples.values() for s in part)


def _words(name: str, kind: str, source: dict[str, Any], proposal: Proposal) -> dict[str, str]:
    """What the template of a card is filled with, but its splits."""
    return {
        "name": name,
        "title": name.replace("-", " ").capitalize(),
        "kind": kind,
        "place": "".join(f"\n  {key}: {_flow(value)}" for key, value in source.items()),
        "map": "".join(f"\n    {key}: {_flow(value)}" for key, value in proposal.map.items()),
        "grader": proposal.grader,
        "kinds": ", ".join(proposal.kinds),
        "remarks": "".join(f"\n# Look at this: {remark}" for remark in proposal.remarks),
    }


def _template(source: Any) -> str:
    assert isinstance(source, Files)
    return source.map.question.replace("{options}", "").strip()


def _sizes(file: Path, data: Data, by: str = "") -> dict[str, dict[str, Any]]:
    """How many samples each split has, and which draw they are from."""
    card = load_card(file)
    if data.splits:
        return {s: {"n": len(usable_rows(card, s)), "sha256": None} for s in ("train", "test")}
    draw: dict[str, Any] = {"seed": 0, **({"by": by} if by else {})}
    card = card.model_copy(
        update={
            "splits": {
                s: x.model_copy(update={"draw": _draw(draw)}) for s, x in card.splits.items()
            }
        }
    )
    usable = usable_rows(card, "test")
    ranked = drawn_rows(usable, _draw(draw), len(usable))
    n = min(TESTED, max(1, len(ranked) // SHARE))
    while by and n < len(ranked) and ranked[n].group == ranked[n - 1].group:
        n += 1  # a split ends where a group ends
    if n >= len(ranked):
        raise CptBenchError(
            f"has {len(ranked)} rows that can be asked: too few for a train and a test split",
            where=data.root / data.files[0],
            todo="Give more rows, or other files for the two splits",
        )
    return {
        "train": {"n": len(ranked) - n, "sha256": None, "draw": {**draw, "skip": n}},
        "test": {"n": n, "sha256": None, "draw": draw},
    }


def _draw(given: dict[str, Any]) -> Draw:
    return Draw(**given)


def _splits(sizes: dict[str, dict[str, Any]]) -> str:
    return "".join(f"\n  {split}: {_flow(size)}" for split, size in sizes.items())


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value, ensure_ascii=False)
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip()
