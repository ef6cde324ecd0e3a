"""Checks a run's ledger: one chain of known steps, each with everything that cptbench records.

What is missing from a ledger cannot be compared, so nothing may be missing: each kind of step has
its inputs. A ledger that lacks some passes only if the repository lists it as an old one
(:mod:`cpt_bench.leaderboard.before`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from cpt_bench.files import digest, digest_json
from cpt_bench.leaderboard.before import LEDGERS
from cpt_bench.leaderboard.entry import Manifest, portable_origin
from cpt_bench.leaderboard.extras import Extras, check_recorded
from cpt_bench.leaderboard.findings import Refused, Report, Status
from cpt_bench.leaderboard.recompute import expected_cells, stage_name, stages_of
from cpt_bench.leaderboard.strict import lines, read_json, row_of
from cpt_bench.leaderboard.tables import Table, answers_digest, table_rows
from cpt_bench.run.ledger import step_key
from cpt_bench.run.plan import stage_seed
from cpt_bench.suite import Suite

Records = dict[str, dict[str, Any]]

_COMMON: Final = {"limit", "threads", "versions"}
_TRAIN_BEFORE: Final = _COMMON | {
    "task", "protocol", "parent", "earlier", "origin", "config", "seed",
}  # fmt: skip
_TRAIN: Final = _TRAIN_BEFORE - {"task"} | {"tasks", "index", "state", "privileges", "budget"}
_ASK: Final = _COMMON | {"weights", "card", "protocol", "engine"}
INPUTS: Final = {
    "train": _TRAIN,
    "evaluate": _ASK,
    "kl": _ASK | {"base", "prompts"},
    "diagnose": _ASK | {"forced", "ids"},
    "general": _COMMON | {"weights", "benchmark", "harness"},
    "abridge": {"predictions"},
}
"""Kind of step to the inputs that every record of it has; where something was chosen it has more
(``launch``, ``engine_chosen``, the digests of the files that come with the weights)."""


class Ledger(NamedTuple):
    """The content of a ledger file.

    Attributes:
        where: What findings call it.
        records: Step name to record.
        old: Whether the repository lists it as one from before.
    """

    where: str
    records: Records
    old: bool


def read_ledger(file: Path, where: str) -> Ledger:
    """Read a ledger, strictly.

    Raises:
        Refused: It is not a valid ledger; the error names the reason.
    """
    records: Records = {}
    for number, line in enumerate(lines(file, 64 << 20), 1):
        try:
            record = row_of(line)
        except Refused as error:
            raise Refused(error.code, f"line {number} {error.what}") from None
        step = record.get("step")
        parts = record.get("inputs"), record.get("outputs") or {}, record.get("facts") or {}
        if not isinstance(step, str) or not all(isinstance(part, dict) for part in parts):
            raise Refused("schema", f"line {number} is not a step's record")
        if step in records:
            raise Refused("duplicate-id", f"has two records of {step!r}")
        records[step] = {**record, "outputs": parts[1], "facts": parts[2]}
    return Ledger(where, records, digest(file) in LEDGERS)


def open_ledger(folder: Path, manifest: Manifest, report: Report) -> Ledger | None:
    """The ledger of a seed; None where it has none, or none that can be read."""
    file, where = folder / "ledger.jsonl.zst", f"{folder.name}/ledger.jsonl.zst"
    if not file.is_file():
        if manifest.lane == "trainer":
            report.error("missing-file", where, "the trainer lane keeps the run's ledger")
        return None
    try:
        return read_ledger(file, where)
    except Refused as error:
        report.error(error.code, where, error.what)
        return None


def check_ledger(
    folder: Path,
    manifest: Manifest,
    suite: Suite,
    ledger: Ledger,
    tables: dict[tuple[int, str], Table],
    extras: Extras,
    report: Report,
) -> None:
    """Check that the records form one chain: stage after stage, each evaluated, nothing limited."""
    where, records = ledger.where, ledger.records
    before = len(report.errors)
    recipe = {"budget": {"samples": None}, **read_json(folder / "recipe.json")}
    ran = read_json(folder / "environment.json")
    known = set(_steps(manifest, suite))
    for step, record in records.items():
        inputs = record["inputs"]
        if record.get("key") != step_key(step, inputs):
            report.error("ledger-key", where, f"{step}: its key is not the hash of its inputs")
        if inputs.get("limit") is not None:
            report.error("limited", where, f"{step}: ran on {inputs['limit']} samples only")
        if step not in known and not _is_general(step, manifest):
            what = f"has a record of {step!r}, which is no step of this run"
            report.error("ledger-step", where, what)
            continue
        _check_inputs(step, inputs, ledger, report)
        _check_common(step, inputs, manifest, suite, ran, where, report)
    if manifest.lane == "trainer":  # other lanes trained elsewhere: nothing recorded it
        _check_chain(manifest, recipe, ledger, report)
    _check_evaluations(folder, manifest, recipe, records, tables, where, report)
    check_recorded(folder, records, extras, report)
    if len(report.errors) == before:
        how = "records and files form one chain; that training did what they record is not shown"
        name = f"{folder.name}: chain of checkpoints"
        report.claim(name, f"{len(records)} steps", Status.self_reported, how)


# ---------------------------------------------------------------------------------- which steps


def _steps(manifest: Manifest, suite: Suite) -> Iterator[str]:
    """Every step that such a run can have, but for the benchmarks of other harnesses."""
    order, last = manifest.order, len(manifest.order)
    stages = stages_of(order, manifest.joint)
    if manifest.lane == "trainer":
        yield from (f"stage-{t}/train" for t in stages[1:])
    yield from (f"stage-{t}/kl" for t in stages[1:])
    yield from (f"stage-{last}/diagnose/{name}" for name in (*order, *suite.general))
    for t, name in expected_cells(suite, order, manifest.joint):
        yield f"stage-{t}/evaluate/{name}"
        yield f"stage-{t}/abridge/{name}"


def _is_general(step: str, manifest: Manifest) -> bool:
    """Whether a step measured a benchmark of another harness, after a stage of this run."""
    stages = stages_of(manifest.order, manifest.joint)
    return any(
        step.startswith(f"stage-{t}/general/") and step.count("/") == 2 and not step.endswith("/")
        for t in stages
    )


def _check_inputs(step: str, inputs: dict[str, Any], ledger: Ledger, report: Report) -> None:
    kind = step.split("/")[1]
    wanted = _TRAIN_BEFORE if kind == "train" and ledger.old else INPUTS[kind]
    absent = sorted(wanted - inputs.keys())
    if kind == "train" and "privileges" in absent:
        absent.remove("privileges")
        what = f"{step}: does not record which privileges it ran with"
        report.error("privilege", ledger.where, what)
    if absent:
        what = f"{step}: does not record {', '.join(absent)}, as every such step does"
        report.error("ledger-inputs", ledger.where, what)


def _check_common(
    step: str,
    inputs: dict[str, Any],
    manifest: Manifest,
    suite: Suite,
    ran: dict[str, Any],
    where: str,
    report: Report,
) -> None:
    """What steps of every kind record: the protocol, the cards, the packages."""
    if "protocol" in inputs and digest_json(inputs["protocol"]) != manifest.protocol.sha256:
        report.error("protocol", where, f"{step}: was asked under another protocol")
    _, kind, *rest = step.split("/")
    if "card" in inputs and kind in ("evaluate", "diagnose"):
        data = manifest.data.get(rest[0])
        if data is not None and digest_json(inputs["card"]) != data.card:
            report.error("data", where, f"{step}: was asked with another card than {rest[0]}'s")
    if "card" in inputs and kind == "kl":
        t = int(step.partition("/")[0].removeprefix("stage-"))
        cards = inputs["card"] if isinstance(inputs["card"], dict) else {}
        wanted = {manifest.order[t - 1], *suite.general}
        if len(wanted) == 1 and cards.get("name") in wanted:
            cards = {cards["name"]: cards}  # of one benchmark, the card itself is recorded
        if cards.keys() != wanted or any(
            digest_json(card) != manifest.data[name].card
            for name, card in cards.items()
            if name in manifest.data
        ):
            report.error("data", where, f"{step}: was asked with other cards than the suite's")
    for key in ("versions", "threads"):
        if key in inputs and key in ran and inputs[key] != ran[key]:
            what = f"{step}: its {key} are not those of environment.json"
            report.error("environment", where, what)


# ------------------------------------------------------------------------------------- training


def _check_chain(
    manifest: Manifest, recipe: dict[str, Any], ledger: Ledger, report: Report
) -> None:
    where, before = ledger.where, 0
    for t in stages_of(manifest.order, manifest.joint)[1:]:
        step = f"stage-{t}/train"
        record = ledger.records.get(step)
        if record is None:
            report.error("ledger-step", where, f"has no record of {step}")
            continue
        inputs, facts = record["inputs"], record["facts"]
        parent = manifest.weights.get(stage_name(manifest.order, before))
        own = manifest.weights.get(stage_name(manifest.order, t))
        if inputs.get("parent") != parent:
            what = f"{step}: did not start from the weights of stage {before}"
            report.error("chain", where, what)
        if facts.get("weights") != own:
            report.error("chain", where, f"{step}: wrote other weights than the manifest lists")
        if inputs.get("index", t) != t:
            report.error("chain", where, f"{step}: was stage {inputs['index']!r}")
        if inputs.get("seed") != stage_seed(manifest.seed, t):
            what = f"{step}: seed {inputs.get('seed')!r} is not stage {t}'s of seed {manifest.seed}"
            report.error("seed-mismatch", where, what)
        if inputs.get("config") != recipe.get("config"):
            report.error("recipe", where, f"{step}: ran with other settings than recipe.json")
        _check_tasks(step, inputs, manifest, t, where, report)
        ran = inputs.get("origin")
        if not isinstance(ran, dict) or portable_origin(ran) != recipe.get("origin"):
            report.error("recipe", where, f"{step}: ran other code than recipe.json names")
        before = t
        if ledger.old:
            continue
        if inputs.get("privileges", manifest.privileges) != manifest.privileges:
            report.error("privilege", where, f"{step}: ran with other privileges than the manifest")
        for key in ("budget", "launch"):
            if inputs.get(key) != recipe.get(key):
                what = f"{step}: its {key} is {inputs.get(key)!r}, not {recipe.get(key)!r}"
                report.error("recipe", where, what)


def _check_tasks(
    step: str, inputs: dict[str, Any], manifest: Manifest, t: int, where: str, report: Report
) -> None:
    """A stage has one task, a joint one all of them; ledgers of before name the one apart."""
    wanted = list(manifest.order) if manifest.joint else [manifest.order[t - 1]]
    found = inputs.get("tasks", [inputs.get("task")])
    tasks = [task for task in found if isinstance(task, dict)] if isinstance(found, list) else []
    if [task.get("name") for task in tasks] != wanted:
        report.error("order", where, f"{step}: trained another task than {', '.join(wanted)}")
        return
    for task in tasks:
        data = manifest.data.get(task["name"])
        if data is not None and data.card != digest_json(task):
            what = f"{step}: trained on another version of the card of {task['name']}"
            report.error("data", where, what)


# ----------------------------------------------------------------------------------- evaluating


def _check_evaluations(
    folder: Path,
    manifest: Manifest,
    recipe: dict[str, Any],
    records: Records,
    tables: dict[tuple[int, str], Table],
    where: str,
    report: Report,
) -> None:
    cut = 0
    for (t, name), table in tables.items():
        step = f"stage-{t}/evaluate/{name}"
        record = records.get(step)
        if record is None:
            report.error("ledger-step", where, f"has no record of {step}")
            continue
        stage = stage_name(manifest.order, t)
        weights = manifest.weights.get(stage)
        if any(record[part].get("weights") != weights for part in ("inputs", "facts")):
            report.error("chain", where, f"{step}: evaluated other weights than those of {stage}")
        frame = (records.get(f"stage-{t}/train") or record)["facts"].get("frame")
        if frame is not None and record["inputs"].get("frame") != frame:
            what = f"{step}: evaluated with other processor or chat files than {stage} has"
            report.error("chain", where, what)
        if record["inputs"].get("engine_chosen") != recipe.get("engine"):
            report.error("recipe", where, f"{step}: another engine answered than recipe.json names")
        path = f"stages/{stage}/predictions/{name}.jsonl"
        wrote = record["outputs"].get(path)
        if record["outputs"].keys() - {path}:
            report.error("ledger-step", where, f"{step}: wrote more than {path}")
        if wrote is None:
            report.error("ledger-step", where, f"{step}: does not record what it wrote")
        elif table.cut:
            cut += table.cut
            file = folder / "predictions" / stage / f"{name}.jsonl.zst"
            _check_cut(step, wrote, file, table, records, where, report)
        elif wrote != table.raw:
            what = f"{step}: wrote predictions {str(wrote)[:12]}…; packed are {table.raw[:12]}…"
            report.error("predictions-changed", where, what)
    if cut:
        how = "compared by the hashes of the whole replies; all others as they are"
        report.claim(f"{folder.name}: replies with a cut thought", cut, Status.self_reported, how)


def _check_cut(
    step: str, wrote: str, file: Path, table: Table, records: Records, where: str, report: Report
) -> None:
    """A table with cut replies is what the run wrote: its digest is taken over hashed replies."""
    record = records.get(step.replace("/evaluate/", "/abridge/"))
    if record is None:
        what = f"{step}: {table.cut} of its replies are cut, and no record has their digest"
        report.error("predictions-changed", where, what)
        return
    if record["inputs"].get("predictions") != wrote:
        what = f"{step}: other predictions were cut than {str(wrote)[:12]}…, which it wrote"
        report.error("predictions-changed", where, what)
    found, recorded = answers_digest(table_rows(file)), record["facts"].get("answers")
    if recorded != found:
        what = f"{step}: answers {str(recorded)[:12]}… were cut; packed are {found[:12]}…"
        report.error("predictions-changed", where, what)
