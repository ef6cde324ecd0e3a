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
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError, did_you_mean

BUILTIN: dict[str, dict[str, tuple[str, str]]] = {
    "trainers": {
        "sft": ("cpt_bench.trainers.sft:SFT", "supervised fine-tuning on the gold answers"),
        "rft": (
            "cpt_bench.trainers.rft:RFT",
            "reinforcement fine-tuning on verifiable rewards: algorithm=grpo|rloo|remax",
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
        "vllm": ("cpt_bench.engines.vllm:VLLMEngine", "vLLM in this process, on GPUs"),
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
        origin: ``spec``, ``module``, and the distribution's version or the file's SHA-256.
    """

    name: str
    value: Any
    origin: dict[str, str]


def resolve(kind: str, spec: str) -> Resolved:
    """Find what ``spec`` names among the ``kind`` of plug-ins.

    Raises:
        CptBenchError: Nothing has that name, or what has it cannot be imported.
    """
    builtin = BUILTIN.get(kind, {})
    if spec in builtin:
        target = builtin[spec][0]
        origin = {"spec": spec, "module": target, "cptbench": version("cptbench")}
        return Resolved(spec, _load(target, spec), origin)
    if ":" in spec:
        return _from_place(spec)
    if "/" in spec:
        return _from_package(kind, spec)
    known = [*builtin, *(f"{e.dist.name}/{e.name}" for e in _installed(kind) if e.dist)]
    raise CptBenchError(f"no {kind[:-1]} is called {spec!r}", todo=did_you_mean(spec, known))


def _installed(kind: str) -> list[EntryPoint]:
    return sorted(entry_points(group=f"cpt_bench.{kind}"), key=lambda e: e.name)


def _from_package(kind: str, spec: str) -> Resolved:
    package, _, name = spec.partition("/")
    for entry in _installed(kind):
        if entry.dist and entry.name == name and entry.dist.name == package:
            origin = {"spec": spec, "module": entry.value, package: entry.dist.version}
            return Resolved(name, _load(entry.value, spec), origin)
    known = [f"{e.dist.name}/{e.name}" for e in _installed(kind) if e.dist]
    todo = did_you_mean(spec, known) if known else f"No installed package offers {kind}"
    raise CptBenchError(f"no {kind[:-1]} is called {spec!r}", todo=todo)


def _from_place(spec: str) -> Resolved:
    place, _, attribute = spec.rpartition(":")
    if not place.endswith(".py"):
        origin = {"spec": spec, "module": spec}
        return Resolved(attribute, _load(spec, spec), origin)
    file = Path(place)
    if not file.is_file():
        raise CptBenchError("no such file", where=place, todo="Give ./file.py:Class")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
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
    return Resolved(
        attribute, _attribute(module, attribute, spec), {"spec": spec, "sha256": sha256}
    )


def _load(target: str, spec: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
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
    return _attribute(module, attribute, spec)


def _attribute(module: Any, attribute: str, spec: str) -> Any:
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
