"""Packs finished runs of one method into an entry; refuses, with a reason, what cannot be one."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cpt_bench.errors import CptBenchError, explain
from cpt_bench.files import HALVES, digest, fresh_folder, read_jsonl
from cpt_bench.hub.names import parse
from cpt_bench.leaderboard import checks
from cpt_bench.leaderboard.entry import FORMAT, Entry, portable_origin
from cpt_bench.leaderboard.extras import forced_path, kl_path
from cpt_bench.leaderboard.gold import base_row, gold_of, sample_hash
from cpt_bench.leaderboard.packable import Run, alike, open_run
from cpt_bench.leaderboard.recompute import expected_cells, stage_name, stages_of
from cpt_bench.leaderboard.rules import LATEST
from cpt_bench.leaderboard.tables import (
    ABRIDGED,
    LONG_THOUGHT,
    abridge,
    answers_digest,
    hashed,
    response_style,
)
from cpt_bench.results.losses import prefixes
from cpt_bench.run.ledger import step_key
from cpt_bench.suite import Suite


class About(NamedTuple):
    """What people say of an entry; see :class:`cpt_bench.leaderboard.entry.Entry`.

    No division is the runs' own: ``joint`` of joint training, else ``closed``.
    """

    name: str
    authors: tuple[str, ...]
    division: str | None = None
    paper: str = ""
    code: str = ""
    checkpoints: str = ""
    notes: str = ""
    supersedes: str = ""
    extra_data: str = ""
    model: str | None = None
    date: str | None = None


def pack(
    runs: Sequence[Path],
    about: About,
    root: Path,
    *,
    extra_questions: Path | None = None,
    with_thoughts: bool = True,
) -> Path:
    """Write an entry below ``root`` (a ``leaderboards/`` folder).

    Args:
        runs: Run folders, one a seed.
        about: What people say of it.
        root: Where boards live.
        extra_questions: JSON Lines of training questions that are not the suite's.
        with_thoughts: Keep long thoughts in full, in side files.

    Returns:
        The entry's folder.

    Raises:
        CptBenchError: A run is limited, incomplete, altered or of another method.
    """
    checked = sorted((open_run(folder) for folder in runs), key=lambda run: run.seed)
    alike(checked)
    entry = _entry(checked, about)
    target = root / entry.place()
    if target.exists():
        raise CptBenchError(
            "there is an entry already",
            where=target,
            todo="Give another --name; before it is published, you may delete it",
        )
    marks = _question_hashes(extra_questions, checked[0].suite) if extra_questions else None
    target.parent.mkdir(parents=True, exist_ok=True)
    with fresh_folder(target) as folder:
        _write_yaml(folder / "entry.yaml", entry)
        for run in checked:
            _pack_seed(run, entry, folder / f"seed-{run.seed}", marks, with_thoughts)
    return target


# ------------------------------------------------------------------------------------- writing


def _entry(runs: Sequence[Run], about: About) -> Entry:
    from pydantic import ValidationError

    first = runs[0]
    weights, suite = (first.facts.get("base") or {}).get("weights", ""), first.suite
    if not weights and about.model is None:
        what = "does not say which model it started from"
        raise CptBenchError(what, where=first.folder, todo="Name it with --model")
    try:
        return Entry.model_validate(
            {
                "format": FORMAT,
                "rules": LATEST,
                "suite": checks.suite_ref(suite).model_dump(),
                "division": about.division or _division(first),
                "name": about.name,
                "trainer": first.facts["trainer"],
                "date": about.date or datetime.datetime.now(datetime.UTC).date().isoformat(),
                "model": {"name": about.model or model_name(first), "weights": weights},
                "lane": first.lane,
                "seeds": [run.seed for run in runs],
                "privileges": first.facts["privileges"],
                "response_style": _style(runs),
                "authors": list(about.authors),
                **{
                    key: getattr(about, key)
                    for key in ("paper", "code", "checkpoints", "notes", "supersedes", "extra_data")
                },
            }
        )
    except ValidationError as error:
        raise CptBenchError(explain(error), where="the entry", todo="Correct the option") from None


def _division(run: Run) -> str:
    """The division where none is named: the closed one is for the suite's own base model."""
    if run.joint:
        return "joint"
    return "closed" if _is_own(run) else "open"


def _is_own(run: Run) -> bool:
    """Whether a run started from its suite's own base model."""
    published, base = base_row(run.suite), run.facts.get("base") or {}
    if published is not None:
        return bool(published.weights == base.get("weights"))
    return not run.suite.variant.base and base.get("path") in (None, run.suite.base_model.id)


def model_name(run: Run) -> str:
    """What a run's base model is called.

    That is the suite's published name for it, its name on the hub, the suite's and its variant's
    name, or a part of its digest.
    """
    published, base = base_row(run.suite), run.facts.get("base") or {}
    if published is not None and _is_own(run):
        return published.model
    named = parse(str(base.get("path")))
    if named is not None and (base.get("revision") or _is_own(run)):
        return named.id.rpartition("/")[2]
    other = run.suite.variant.base
    if other and base.get("path") == run.suite.base_model.id:
        return f"{run.suite.name}-{other}"
    return f"{run.suite.name}-base" if _is_own(run) else f"weights-{str(base['weights'])[:12]}"


def _style(runs: Sequence[Run]) -> str:
    thinking = total = 0
    for run in runs:
        form, last = run.suite.protocol.form, len(run.suite.sequence)
        for name in (*run.suite.sequence, *run.suite.general):
            for row in read_jsonl(run.paths.predictions(last, name)):
                total += 1
                thinking += form.begins_with_thought(row["reply"])
    return response_style(thinking, total)


def _write_yaml(path: Path, entry: Entry) -> None:
    data = entry.model_dump(mode="json")
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(text, encoding="utf-8", newline="\n")


def _pack_seed(
    run: Run, entry: Entry, folder: Path, marks: list[str] | None, with_thoughts: bool
) -> None:
    """One seed's folder; the manifest last, over all that was written before it."""
    folder.mkdir()
    order = run.suite.sequence
    _json(folder / "matrix.json", run.scores.matrix_json())
    _json(folder / "metrics.json", run.scores.metrics)
    _json(folder / "environment.json", _environment(run.facts))
    chosen = {k: run.facts[k] for k in ("budget", "launch", "engine") if run.facts.get(k)}
    recipe = {"config": run.facts["config"], "origin": portable_origin(run.facts["origin"])}
    _json(folder / "recipe.json", recipe | chosen)
    optional, ledger = [], list(run.ledger)
    for t, name in expected_cells(run.suite, order, run.joint):
        path = f"{stage_name(order, t)}/{name}.jsonl.zst"
        source = run.paths.predictions(t, name)
        side, answers = _pack_answers(source, folder, path, run, with_thoughts)
        optional += [side] if side else []
        if answers and run.ledger:
            ledger.append(_cut_record(f"stage-{t}/abridge/{name}", digest(source), answers))
    if run.ledger:
        zst(folder / "ledger.jsonl.zst", (_line(record) for record in ledger))
    _pack_extras(run, folder)
    if marks is not None:
        zst(folder / "extra-data.txt.zst", (f"{mark}\n".encode() for mark in marks))
    files = {
        file.relative_to(folder).as_posix(): {"sha256": digest(file), "bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = {
        "format": FORMAT,
        "package": f"cptbench {run.facts['versions'].get('cptbench', '')}".strip(),
        "suite": checks.suite_ref(run.suite).model_dump(),
        "protocol": checks.protocol_ref(run.suite).model_dump(),
        "data": checks.data_refs(run.suite),
        "order": list(order),
        "seed": run.seed,
        "lane": run.lane,
        "trainer": entry.trainer,
        "origin": portable_origin(run.facts["origin"]),
        "privileges": run.facts["privileges"],
        "base": entry.model.model_dump(),
        "weights": _weights(run),
        "files": files,
        "optional": optional,
    }
    _json(folder / "manifest.json", manifest)


def _cut_record(step: str, predictions: str, answers: str) -> dict[str, Any]:
    """What ties a table with cut thoughts to what the run wrote, whole thoughts at hand or not."""
    inputs, facts = {"predictions": predictions}, {"answers": answers}
    key = step_key(step, inputs)
    return {
        "step": step, "key": key, "inputs": inputs, "outputs": {}, "facts": facts, "seconds": 0.0
    }  # fmt: skip


def _pack_answers(
    source: Path, folder: Path, path: str, run: Run, with_thoughts: bool
) -> tuple[str, str]:
    """The answers of one cell as they are; only thoughts beyond a length go to a side file.

    Returns:
        The side file's path below the seed, or nothing; and of a cell whose thoughts were cut the
        digest of its answers, or nothing.
    """
    target = folder / "predictions" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    form, raw = run.suite.protocol.form, source.read_bytes()
    rows, whole, canonical = [], [], []
    for row in read_jsonl(source):
        canonical.append(_line(row))
        cut = abridge(row["reply"], form, LONG_THOUGHT)
        if cut != row["reply"]:
            whole.append({"id": row["id"], "reply": row["reply"]})
            row = {**row, "reply": cut, ABRIDGED: hashed(row["reply"])}
        rows.append(row)
    if run.ledger and not whole and b"".join(canonical) != raw:
        raise CptBenchError("is not written as the package writes it", where=source)
    zst(target, (_line(row) for row in rows))
    answers = answers_digest(iter(rows)) if whole else ""
    if not whole or not with_thoughts:
        return "", answers
    side = folder / "replies" / path
    side.parent.mkdir(parents=True, exist_ok=True)
    zst(side, (_line(row) for row in whole))
    return f"replies/{path}", answers


def _pack_extras(run: Run, folder: Path) -> None:
    """Replies with a forced beginning, and KL rows, where the run measured them."""
    order, last = run.suite.sequence, len(run.suite.sequence)
    found = {
        forced_path(prefix, name): run.paths.forced(last, prefix, name)
        for prefix in prefixes(run.suite.protocol)
        for name in (*order, *run.suite.general)
    } | {kl_path(order, t): run.paths.divergence(t) for t in range(1, last + 1)}
    for path, source in found.items():
        if source.is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            zst(folder / path, [source.read_bytes()])


def _weights(run: Run) -> dict[str, str]:
    """Stage folder to weights digest, from the ledger or from ``run.json`` of another lane."""
    order = run.suite.sequence
    weights = {stage_name(order, 0): run.facts["base"]["weights"]} if run.ledger else {}
    trained = {r["step"]: r["facts"] for r in run.ledger if r["step"].endswith("/train")}
    evaluated = {
        r["step"].partition("/")[0]: r["facts"] for r in run.ledger if "/evaluate/" in r["step"]
    }
    for t in stages_of(order, run.joint)[1:]:
        facts = trained.get(f"stage-{t}/train") or evaluated.get(f"stage-{t}")
        if facts is None or "weights" not in facts:
            return {}
        weights[stage_name(order, t)] = facts["weights"]
    return weights


def _environment(facts: dict[str, Any]) -> dict[str, Any]:
    keys = ("versions", "hardware", "git", "sessions", "threads")
    return {key: facts[key] for key in keys if key in facts}


def _question_hashes(file: Path, suite: Suite) -> list[str]:
    """Hashes of training questions from elsewhere; a test question among them is refused.

    Each line is ``{"question": …, "images": [paths, relative to the file]}``.
    """
    tests = {}
    for name in (*suite.sequence, *suite.general):
        gold = gold_of(suite, name)
        if not isinstance(gold, str):
            tests.update(dict.fromkeys(gold.hashes, name))
    marks = set()
    for number, row in enumerate(read_jsonl(file), 1):
        try:
            images = tuple((file.parent / path).read_bytes() for path in row.get("images", ()))
        except OSError as error:
            what = f"line {number}: its picture cannot be read ({error})"
            raise CptBenchError(what, where=file) from None
        mark = sample_hash(str(row.get("question", "")), images)
        if mark in tests:
            raise CptBenchError(
                f"line {number} is a test question of {tests[mark]}",
                where=file,
                todo="A method trained on it has no entry",
            )
        marks.add(mark)
    return sorted(marks)


def _json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode(errors=HALVES)


def zst(path: Path, parts: Iterable[bytes]) -> None:
    """One zstd frame with its size and a checksum: the only kind that ``verify`` reads."""
    import zstandard

    data = b"".join(parts)
    # Level 19's window for large inputs is 8 MiB, the most that verify gives a file.
    settings = zstandard.ZstdCompressionParameters.from_level(
        19, source_size=len(data), window_log=min(23, max(10, len(data).bit_length())),
        write_checksum=True, write_content_size=True,
    )  # fmt: skip
    path.write_bytes(zstandard.ZstdCompressor(compression_params=settings).compress(data))
