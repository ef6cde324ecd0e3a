"""Writes an entry for the Hugging Face hub: a model card, evaluation results, a data set card.

Written offline, as files to upload::

    README.md                     the model card; its metadata hold the numbers as ``model-index``
    .eval_results/<suite>.yaml    the same numbers in the hub's newer format
    dataset/README.md             the card of the suite's gold, for a data set repository
    dataset/eval.yaml             which makes that repository a benchmark
    dataset/gold/<name>.jsonl     the gold, where the suite makes its questions itself
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import jinja2

from cpt_bench.errors import CptBenchError
from cpt_bench.files import digest, fresh_folder
from cpt_bench.leaderboard.board import neighbours
from cpt_bench.leaderboard.hub_dataset import TASK_IDS, write_dataset
from cpt_bench.leaderboard.hub_text import as_yaml, environment, home, write
from cpt_bench.leaderboard.recompute import stage_name
from cpt_bench.leaderboard.site.collect import GAP, Row, by_seed, row_of, with_gaps
from cpt_bench.leaderboard.site.entry_page import (
    HEADLINE,
    citation,
    commands,
    number,
    unseen,
)
from cpt_bench.leaderboard.site.render import TITLES
from cpt_bench.leaderboard.verify import Verified, verify
from cpt_bench.metrics import SIGNED

TASK: Final = {"type": "image-text-to-text", "name": "Continual post-training"}
AFTER: Final = "Accuracy after the last stage, %"

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def export_hub(
    folder: Path,
    out: Path,
    *,
    seed: int | None = None,
    dataset: str | None = None,
    url: str = "",
    suite_spec: str | None = None,
) -> list[Path]:
    """Write what the hub needs of an entry.

    Args:
        folder: The entry; it must verify.
        out: A folder that is not there yet.
        seed: Whose weights the repository holds; None for numbers over all seeds.
        dataset: The data set repository of the suite's gold; ``cptbench/<suite>`` by default.
        url: Where the entry can be read on the web.
        suite_spec: A suite that does not ship with the package.

    Returns:
        The files written.

    Raises:
        CptBenchError: The entry does not verify, has no such seed, or an option is malformed.
    """
    done = verify(folder, suite_spec)
    if done.report.verdict != "verified" or done.entry is None or done.suite is None:
        first = next(iter(done.report.errors), None)
        why = first.line() if first else "its numbers cannot be recomputed here"
        raise CptBenchError(f"does not verify ({why})", where=folder)
    if seed is not None and seed not in done.seeds:
        todo = f"It has {', '.join(map(str, done.entry.seeds))}"
        raise CptBenchError(f"has no seed {seed}", where=folder, todo=todo)
    target = dataset or f"cptbench/{done.suite.name}"
    if not _REPO.fullmatch(target) or "--" in target or ".." in target:
        what = f"{target!r} is not the name of a repository"
        raise CptBenchError(what, where="--dataset", todo="Give OWNER/NAME")
    if url and not url.startswith("https://"):
        raise CptBenchError(f"{url!r} is not an https:// link", where="--url")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CptBenchError("is there already", where=out, todo="Give another --out")
    row = _with_gap(done, suite_spec)
    results = evaluation_results(row, seed, target, url)
    env = environment()
    if out.exists():
        out.rmdir()
    out.parent.mkdir(parents=True, exist_ok=True)
    with fresh_folder(out) as place:
        write(place / "README.md", _model_card(env, row, seed, results, target))
        name = done.suite.label.replace("@", "-")
        write(place / f".eval_results/{name}.yaml", as_yaml(results))
        write_dataset(place / "dataset", env, done.suite)
    return sorted(file for file in out.rglob("*") if file.is_file())


def _with_gap(done: Verified, suite_spec: str | None) -> Row:
    """The entry's row, with its gap to the joint entry of its board if there is one."""
    assert done.entry is not None
    row = row_of(done, "/".join(done.folder.parts[-4:]))
    rows = [row]
    for other in neighbours(done.folder, done.entry):
        if other.entry.division == "joint":
            found = verify(other.folder, suite_spec)
            if found.report.verdict == "verified":
                rows.append(row_of(found, "/".join(other.place)))
    return with_gaps(rows)[0]


# -------------------------------------------------------------------------------------- numbers


def _value(row: Row, key: str, seed: int | None) -> float | None:
    """A headline metric: of one seed, or its mean."""
    assert row.verified is not None
    if seed is None:
        return row.metrics[key].mean if key in row.metrics else None
    scores = row.verified.seeds[seed].scores
    if key == GAP or scores is None:
        return None  # a difference of two entries' means
    value: float | None = scores.metrics[key]["value"]
    return value


def final_accuracy(row: Row, name: str, seed: int) -> tuple[float, float, int]:
    """A benchmark's accuracy in percent before and after training, and its number of questions."""
    assert row.verified is not None
    scores = row.verified.seeds[seed].scores
    assert scores is not None
    strict = scores.outcomes[name].strict
    return 100 * float(strict[0].mean()), 100 * float(strict[-1].mean()), strict.shape[1]


def _seeds(row: Row) -> list[int]:
    return sorted(by_seed(row))


def evaluation_results(row: Row, seed: int | None, dataset: str, url: str) -> list[dict[str, Any]]:
    """``.eval_results/*.yaml``: one item a benchmark and a headline metric, in percent."""
    seeds = _seeds(row) if seed is None else [seed]
    values = {
        TASK_IDS[key]: value for key in HEADLINE if (value := _value(row, key, seed)) is not None
    }
    for name in (*row.tasks, *row.general):
        after = [final_accuracy(row, name, n)[1] for n in seeds]
        values[name] = sum(after) / len(after)
    shown = (
        f"seed {seeds[0]}" if len(seeds) == 1 else f"mean over seeds {', '.join(map(str, seeds))}"
    )
    notes = f"{row.suite}, {row.division} division, {shown}; recomputed from the predictions"
    source = {"source": {"url": url, "name": "cptbench leaderboard entry"}} if url else {}
    return [
        {
            "dataset": {"id": dataset, "task_id": task},
            "value": round(value, 4) + 0.0,
            "date": row.date,
            **source,
            "notes": notes,
        }
        for task, value in values.items()
    ]


# --------------------------------------------------------------------------------------- cards


def _model_card(
    env: jinja2.Environment, row: Row, seed: int | None, results: list[dict[str, Any]], dataset: str
) -> str:
    from importlib.metadata import version

    done = row.verified
    assert done is not None and done.entry is not None and done.suite is not None
    seeds = _seeds(row)
    base = done.suite.base_model.id
    owner, slash, _ = base.rpartition("/")
    metadata = {
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": TASK["type"],
        "tags": ["cptbench", "continual-learning", "post-training", done.entry.trainer[:60]],
        "datasets": [dataset],
        **({"base_model": base} if slash and owner[:1] not in ("", ".") else {}),
        "model-index": [_model_index(row, seed, results, dataset)],
    }
    ties = [
        {
            "seed": n,
            "manifest": digest(done.folder / f"seed-{n}/manifest.json"),
            "weights": _last_weights(done, n),
        }
        for n in seeds
    ]
    return env.get_template("model_card.md").render(
        metadata=as_yaml(metadata),
        row=row,
        entry=done.entry,
        home=home(),
        version=version("cptbench"),
        seed=seed,
        seeds=seeds,
        headline=_headline(row, seeds),
        benchmarks=_benchmarks(row, seeds),
        commands=commands(row),
        ties=ties,
        unseen=unseen(row),
        citation=citation(row),
    )


def _last_weights(done: Verified, seed: int) -> str:
    manifest = done.seeds[seed].manifest
    return manifest.weights.get(stage_name(manifest.order, len(manifest.order)), "")


def _model_index(
    row: Row, seed: int | None, results: list[dict[str, Any]], dataset: str
) -> dict[str, Any]:
    """The numbers as ``model-index`` has them: one result a data set, its metrics in a list."""
    titles = {task: key for key, task in TASK_IDS.items()}
    own = [r for r in results if r["dataset"]["task_id"] in titles]
    whole = {
        "task": TASK,
        "dataset": {"name": f"cptbench {row.suite}", "type": dataset, "split": "test"},
        "metrics": [
            {"type": task, "name": f"{titles[task]}, {_unit(titles[task])}", "value": r["value"]}
            for r in own
            for task in [r["dataset"]["task_id"]]
        ],
    }
    each = [
        {
            "task": TASK,
            "dataset": {
                "name": f"cptbench {row.suite}: {name}", "type": dataset, "config": name,
                "split": "test",
            },
            "metrics": [{"type": "accuracy", "name": AFTER, "value": r["value"]}],
        }
        for r in results
        if (name := r["dataset"]["task_id"]) not in titles
    ]  # fmt: skip
    return {"name": row.name, "results": [whole, *each]}


def _unit(key: str) -> str:
    return "percentage points" if key in SIGNED else "%"


def _headline(row: Row, seeds: list[int]) -> list[dict[str, Any]]:
    out = []
    for key in HEADLINE:
        if key not in row.metrics:
            continue
        mean, signed = row.metrics[key], key in SIGNED
        values = [number(_value(row, key, n), signed, 2) for n in seeds]
        shown = number(mean.mean, signed, 2), number(mean.half, False, 2)
        out.append(
            {"key": key, "mean": shown[0], "half": shown[1], "by_seed": values,
             "meaning": TITLES[key]}
        )  # fmt: skip
    return out


def _benchmarks(row: Row, seeds: list[int]) -> list[dict[str, Any]]:
    out = []
    for name in (*row.tasks, *row.general):
        found = [final_accuracy(row, name, n) for n in seeds]
        after = [f[1] for f in found]
        base = sum(f[0] for f in found) / len(found)
        out.append(
            {"name": name, "mean": number(sum(after) / len(after)), "base": number(base),
             "by_seed": [number(v) for v in after], "n": found[0][2]}
        )  # fmt: skip
    return out
