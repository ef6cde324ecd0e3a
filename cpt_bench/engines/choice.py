"""Which engine answers for a run, as plain data."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any, NamedTuple

from cpt_bench.engines import find_engine, setting_types
from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import builtin
from cpt_bench.settings import assigned, value_of

MEMORY = 0.5
"""vLLM's share of its GPU in a run: KL and diagnosis put a transformers model or two beside it."""


class EngineChoice(NamedTuple):
    """An engine under its settings.

    Attributes:
        name: What :func:`cpt_bench.engines.open_engine` takes.
        settings: Its keyword arguments, as JSON.
        origin: Of a plug-in: all that tells two of one name apart.
        swaps: Whether another checkpoint can be put into it.
        kept: Keep one process and its engine for all checkpoints; changes no number, and is no part
            of a run's identity.
    """

    name: str = "transformers"
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed
    origin: dict[str, str] | None = None
    swaps: bool = True
    kept: bool = False

    def identity(self) -> dict[str, Any]:
        """What can change a reply; empty for the engine that answers when none is chosen."""
        plain = EngineChoice()
        if (self.name, self.settings, self.origin) == (plain.name, plain.settings, plain.origin):
            return {}
        origin = {"origin": self.origin} if self.origin else {}
        return {"name": self.name, "settings": self.settings, **origin}

    @property
    def gpus(self) -> int:
        """How many GPUs it answers on."""
        return int(self.settings.get("tensor_parallel", 1)) if self.name == "vllm" else 1


def choose(name: str, settings: Iterable[str]) -> EngineChoice:
    """The engine of ``--engine`` and ``--engine-set KEY=VALUE``, checked before anything starts.

    Raises:
        CptBenchError: There is none, it has no such setting, or it cannot take a run's checkpoints.
    """
    if name == "endpoint":
        raise CptBenchError(
            "a server cannot be given the checkpoints of a run",
            where="--engine endpoint",
            todo="cptbench eval --endpoint URL evaluates what a server serves",
        )
    texts = assigned(settings, "--engine-set")
    found = find_engine(name, texts) if texts else None
    kinds = setting_types(found.value) if found else {}
    values = {key: value_of(text, kinds.get(key, Any)) for key, text in texts.items()}
    if name == EngineChoice().name and not values:
        return EngineChoice()
    found = found or find_engine(name, values)
    if name == "vllm":
        if importlib.util.find_spec("vllm") is None:
            raise CptBenchError(
                "vLLM is not installed", todo="Install it with: pip install 'cptbench[vllm]'"
            )
        values.setdefault("memory", MEMORY)
        if not isinstance(values.get("tensor_parallel", 1), int):
            raise CptBenchError(f"tensor_parallel={values['tensor_parallel']} is no whole number")
    origin = None if name in builtin("engines") else found.origin
    return EngineChoice(name, values, origin, hasattr(found.value, "swap"))
