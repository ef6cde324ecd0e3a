"""One resolver for everything that has a name: trainers, suites, graders, engines.

Three spellings: a built-in name (``rft``), an installed package's (``pkg/name``, entry-point group
``cpt_bench.<kind>``), or a place in Python (``module:Class``, ``./file.py:Class``). Built-ins are
tables of names, so that listing them imports nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError, did_you_mean

BUILTIN: dict[str, dict[str, tuple[str, str]]] = {
    "trainers": {
        "sft": ("cpt_bench.trainers.sft:SFT", "supervised fine-tuning on the gold answers"),
        "rft": (
            "cpt_bench.trainers.rft:RFT",
            "reinforcement fine-tuning on verifiable rewards: algorithm=grpo|rloo|remax",
        ),
        "joint": (
            "cpt_bench.trainers.joint:Joint",
            "SFT on all tasks at once: the upper bound, no method",
        ),
        "rft-joint": ("cpt_bench.trainers.joint:JointRFT", "RFT on all tasks at once"),
        "sft-low": ("cpt_bench.trainers.sft:SFT", "SFT at a low learning rate"),
        "sft-lora": ("cpt_bench.trainers.methods:LoRA", "SFT of low-rank adapters"),
        "olora": (
            "cpt_bench.trainers.methods:OLoRA",
            "SFT of adapters, each task's in a subspace orthogonal to those before",
        ),
        "replay": (
            "cpt_bench.trainers.methods:Replay",
            "SFT with samples of earlier tasks mixed in",
        ),
        "rft-replay": (
            "cpt_bench.trainers.methods:ReplayRFT",
            "RFT with prompts of earlier tasks mixed in",
        ),
        "ewc": ("cpt_bench.trainers.methods:EWC", "SFT with elastic weight consolidation"),
        "rft-ewc": ("cpt_bench.trainers.methods:EWCRFT", "RFT with elastic weight consolidation"),
        "lwf": (
            "cpt_bench.trainers.methods:LwF",
            "SFT with distillation from the task's start policy: learning without forgetting",
        ),
        "rft-lwf": (
            "cpt_bench.trainers.methods:LwFRFT",
            "RFT with distillation from the task's start policy",
        ),
        "flow": ("cpt_bench.trainers.flow:FLOW", "SFT that weighs easy samples up"),
        "self-sft": (
            "cpt_bench.trainers.selfsft:SelfSFT",
            "SFT on the policy's own right replies, drawn once a stage",
        ),
        "iterative-sft": (
            "cpt_bench.trainers.selfsft:IterativeSFT",
            "SFT on the policy's own right replies, drawn again on the way",
        ),
        "rationale-sft": (
            "cpt_bench.trainers.rationale:RationaleSFT",
            "SFT on a thought in the base's own style and the answer",
        ),
        "rft-kl": (
            "cpt_bench.trainers.methods:KLRFT",
            "RFT with a KL penalty: reference=start|base",
        ),
        "rft-direct": (
            "cpt_bench.trainers.methods:DirectRFT",
            "RFT on rollouts that answer directly",
        ),
        "rif-rft": (
            "cpt_bench.trainers.rif:RIF",
            "RFT on prompts that pass a filter of own rollouts: keep=solvable|informative",
        ),
        "rapo": (
            "cpt_bench.trainers.rapo:RaPO",
            "GRPO with a retention reward and cross-task advantage normalisation",
        ),
    },
    "suites": {
        "nano": ("cpt_bench.tasks.nano:FOLDER", "seven small tasks, on a laptop CPU in minutes"),
        "cpt7": ("cpt_bench.tasks.cpt7:FOLDER", "seven published data sets, on GPUs"),
    },
    "engines": {
        "transformers": (
            "cpt_bench.engines.hf:TransformersEngine",
            "batched greedy generation in this process, on CPU or one GPU",
        ),
        "vllm": ("cpt_bench.engines.vllm:VLLMEngine", "vLLM in this process, on GPUs or a CPU"),
        "endpoint": (
            "cpt_bench.engines.endpoint:EndpointEngine",
            "any OpenAI-compatible server: vLLM, SGLang, transformers serve",
        ),
    },
}


class Resolved(NamedTuple):
    """What a name stands for, and where it came from.

    Attributes:
        name: A short name fit for a folder and a table.
        value: The object.
        origin: ``spec`` and ``module`` as given, ``distribution`` and ``version`` of what was
            installed, ``sha256`` over the code: all that tells two methods of one name apart.
        folder: Where its code lies.
    """

    name: str
    value: Any
    origin: dict[str, str]
    folder: Path


class Located(NamedTuple):
    """A name that was found; nothing of it is imported yet.

    Attributes:
        name: A short name.
        target: ``module:attribute``, or ``./file.py:attribute``.
        origin: What is known of it without importing.
    """

    name: str
    target: str
    origin: dict[str, str]


def locate(kind: str, spec: str) -> Located:
    """Find what ``spec`` names among the ``kind`` of plug-ins, importing nothing.

    Raises:
        CptBenchError: Nothing has that name.
    """
    builtin = BUILTIN.get(kind, {})
    if spec in builtin:
        origin = {"spec": spec, "distribution": "cptbench", "version": version("cptbench")}
        return Located(spec, builtin[spec][0], origin)
    if ":" in spec:
        place, _, attribute = spec.rpartition(":")
        if place.endswith(".py") and not Path(place).is_file():
            raise CptBenchError("no such file", where=place, todo="Give ./file.py:Class")
        return Located(attribute, spec, {"spec": spec})
    packaged = {f"{e.dist.name}/{e.name}": e for e in _installed(kind) if e.dist}
    if spec in packaged:
        entry = packaged[spec]
        assert entry.dist is not None
        origin = {"spec": spec, "distribution": entry.dist.name, "version": entry.dist.version}
        return Located(entry.name, entry.value, origin)
    known = [*builtin, *packaged]
    if "/" in spec and not packaged:
        todo = f"No installed package offers {kind}"
    else:
        todo = did_you_mean(spec, known)
    raise CptBenchError(f"no {kind[:-1]} is called {spec!r}", todo=todo)


def resolve(kind: str, spec: str) -> Resolved:
    """Find what ``spec`` names among the ``kind`` of plug-ins, and import it.

    Raises:
        CptBenchError: Nothing has that name, or what has it cannot be imported.
    """
    found = locate(kind, spec)
    place, _, attribute = found.target.rpartition(":")
    module = _from_file(place) if place.endswith(".py") else _import(place, spec)
    value = _attribute(module, attribute, spec)
    file, package = Path(module.__file__ or ""), module.__package__ or ""
    # A module of a package may lean on all of it. This one's own trainers lean on their folder and
    # on what the version names.
    top = file.parent if spec in BUILTIN.get(kind, {}) else file.parents[package.count(".")]
    sha256 = code_digest(top if package else file)
    origin = {**found.origin, "module": found.target, "sha256": sha256}
    return Resolved(found.name, value, origin, file.parent)


def code_digest(place: Path) -> str:
    """SHA-256 of a file of Python, or of all that a folder and those below it hold, with names."""
    total = hashlib.sha256()
    for part in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        name = part.relative_to(place if place.is_dir() else place.parent)
        total.update(name.as_posix().encode() + part.read_bytes())
    return total.hexdigest()


def _installed(kind: str) -> list[EntryPoint]:
    return sorted(entry_points(group=f"cpt_bench.{kind}"), key=lambda e: e.name)


def _from_file(place: str) -> ModuleType:
    file = Path(place)
    # Registered under a name of its own, so that a worker process can unpickle what it defines.
    module_name = f"cptbench_plugin_{file.stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, file)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise CptBenchError(f"{type(error).__name__}: {error}", where=place) from error
    return module


def _import(module_name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("torch", "transformers", "trl", "datasets", "accelerate", "tokenizers"):
            raise CptBenchError(
                f"{spec!r} needs {missing}, which is not installed",
                todo="Install it with: pip install 'cptbench[train]'",
            ) from error
        raise CptBenchError(f"cannot import {module_name!r} ({error})", where=spec) from error
    except Exception as error:
        problem = f"importing {module_name!r} failed ({type(error).__name__}: {error})"
        raise CptBenchError(problem, where=spec) from error


def _attribute(module: ModuleType, attribute: str, spec: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise CptBenchError(
            f"{module.__name__} has no {attribute!r}",
            where=spec,
            todo=did_you_mean(attribute, names),
        ) from None


class Listing(NamedTuple):
    """One row of ``cptbench list``."""

    name: str
    summary: str
    origin: str


def listing(kind: str) -> list[Listing]:
    """All that :func:`resolve` finds by name, importing nothing."""
    rows = [Listing(n, summary, "built in") for n, (_, summary) in BUILTIN.get(kind, {}).items()]
    for entry in _installed(kind):
        if entry.dist:
            origin = f"{entry.dist.name} {entry.dist.version}"
            rows.append(Listing(f"{entry.dist.name}/{entry.name}", entry.value, origin))
    return rows
