"""The GPU figures of the documentation, from the JSON in ``benchmarks/results/gpu``.

    python -m benchmarks.gpu.figures

writes them between two marks into ``docs/status.md`` and ``docs/performance.md``, and what
``cptbench plan`` reads of the card into ``cpt_bench/advice/measured.json``; a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu import card
from benchmarks.gpu.parts import PARTS
from cpt_bench.advice.constants import MEASURED
from cpt_bench.advice.estimate import ASSUMED
from cpt_bench.files import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/gpu"
BEGIN, END = "<!-- benchmarks.gpu.figures -->", "<!-- end of benchmarks.gpu.figures -->"
NONE: Final = (
    "No part of `python -m benchmarks.gpu` has run on a GPU yet: there is no figure. Its code is "
    "run on a CPU at a tiny size by `tests/test_gpu_day.py`."
)

Facts = Mapping[str, Any]


def results(folder: Path = RESULTS) -> dict[str, Any]:
    """Part to what it found on a GPU; what was found on a CPU says nothing of one."""
    found = {part.name: folder / f"{part.name}.json" for part in PARTS}
    read = {name: read_json(file) for name, file in found.items() if file.is_file()}
    return {name: facts for name, facts in read.items() if facts["card"] != "CPU"}


def _nano(facts: Facts) -> str:
    said = [
        f"{name}: {replies['equal']} of {replies['asked']} replies are the CPU's"
        for name, replies in facts["replies"].items()
    ]
    for name, run in facts["runs"].items():
        if "failed" in run:
            said.append(f"{name} failed")
            continue
        ran = f"{name} ran in {run['seconds']:.0f} s"
        if "self_check" in run["self-check"]:
            check = run["self-check"]
            mean, most = check["self_check"], check["self_check_most"]
            ran += f", self-check {mean:.2g} on average, {most:.2g} at most"
            if name.endswith("bfloat16"):
                ran += f" ({facts['tolerance']:g} on average is allowed)"
        said.append(ran)
    return "; ".join(said)


def _planned(facts: Facts) -> str:
    plan = facts["plan"]
    measured, planned = plan["measured"], plan["planned"]
    said = [
        f"{measured[key]:.2f} {key} ({planned[key]:.2f} planned)"
        for key in ("seconds of training a step", "seconds of rollouts a step")
        if planned[key]
    ]
    said.append(f"{measured['gib']:.1f} GiB at most ({planned['gib']['total']:.1f} planned)")
    said += [f"`{name}` would be {value:.3g}" for name, value in plan["constants"].items()]
    return "; ".join(said)


def _evaluation(facts: Facts) -> str:
    said = f"{facts['samples a second']:.2f} samples a second in batches of {facts['batch']}"
    swap = facts["swap"]
    if swap is not None:
        equal = swap["equal to a fresh engine's"]
        said += f"; after a swap {equal} of {swap['replies']} replies are a fresh engine's"
    return said


def _full(facts: Facts) -> str:
    return (
        f"{facts['layers']} of {facts['of']} layers: "
        f"{facts['bytes a weight between steps']:.1f} bytes a weight between steps, "
        f"{facts['bytes a weight at most']:.1f} at most"
    )


def _profile(facts: Facts) -> str:
    kinds = sorted(facts["seconds by kind"].items(), key=lambda pair: -pair[1])[:3]
    shares = ", ".join(f"{k} {v / facts['seconds of the step']:.0%}" for k, v in kinds)
    return f"{facts['step / matrix products']:.2f} times its matrix products' time; {shares}"


def _stage(facts: Facts) -> str:
    step = facts["seconds a step, rollouts left out"]
    end = facts["seconds of the stage's end"]
    ended = "" if end is None else f"{end:.0f} s for the end, "
    return f"{step:.2f} s a step, {ended}{facts['gib at most']:.1f} GiB at most"


def _model(facts: Facts) -> str:
    return f"{facts['weights']:,} weights; the plan counts {facts['weights counted by the plan']:,}"


SHOWN: Final[Mapping[str, Callable[[Facts], str]]] = {
    "nano": _nano, "model": _model, "sft": _planned, "rft": _planned,
    "evaluation": _evaluation, "full": _full, "profile": _profile,
    "lwf": _stage, "rapo": _stage, "ewc": _stage, "ewc-penalty": _stage,
}  # fmt: skip


def performance(found: Mapping[str, Facts]) -> str:
    """The figures, a row for each part, with the card's name."""
    if not found:
        return NONE
    rows = ["| part | card | figure |", "|---|---|---|"]
    for part in PARTS:
        if part.name in found:
            facts = found[part.name]
            rows.append(f"| {part.title} | {facts['card']} | {SHOWN[part.name](facts)} |")
    return "\n".join(rows)


def status(found: Mapping[str, Facts]) -> str:
    """Which parts have run on which card, and which have not."""
    if not found:
        return NONE
    ran = [f"`{name}` ({facts['card']})" for name, facts in found.items()]
    missing = [f"`{part.name}`" for part in PARTS if part.name not in found]
    said = f"Run on one GPU by `python -m benchmarks.gpu`: {', '.join(ran)}."
    return said + (f" Not run: {', '.join(missing)}." if missing else "")


PAGES: Final[Mapping[str, Callable[[Mapping[str, Facts]], str]]] = {
    "docs/status.md": status,
    "docs/performance.md": performance,
}


QUOTIENT = "decode / transformers"


def constants(found: Mapping[str, Facts]) -> dict[str, Any]:
    """A plan's name of each card that was measured, to its name and its constants."""
    made: dict[str, Any] = {}
    for part in ("rft", "sft", "evaluation"):  # where two know a constant, the later counts
        facts = found.get(part)
        key = facts and card.key_of(facts["card"])
        if facts is None or key is None:
            continue
        own = dict(facts.get("plan", facts)["constants"])
        speed = own.pop(QUOTIENT, None)
        if speed:
            # Without vLLM its speed stays assumed; how much slower transformers is follows.
            own["transformers"] = ASSUMED.decode / speed
        row = made.setdefault(key, {"card": facts["card"], "constants": {}})
        row["constants"] |= own
    return made


def between(text: str, inside: str) -> str:
    """A page with ``inside`` between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{inside}\n{END}{after}"


def main() -> None:
    """Write both pages and the constants."""
    found = results()
    for page, made in PAGES.items():
        file = ROOT / page
        write_text(file, between(file.read_text(encoding="utf-8"), made(found)))
    write_json(MEASURED, constants(found))


if __name__ == "__main__":
    main()
