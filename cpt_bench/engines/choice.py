"""A run's choice of engine, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cpt_bench.engines import find_engine, setting_types
from cpt_bench.engines.vllm_open import on_cpu, require_installed
from cpt_bench.errors import CptBenchError
from cpt_bench.plugins import builtin
from cpt_bench.settings import assigned, value_of

MEMORY = 0.5
"""vLLM's share of its GPU in a run: KL and diagnosis load one or two more models on it."""


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


Rules = tuple[tuple[str, str, Callable[[Any], bool]], ...]
"""A setting, the rule for its values, and a function that checks a value."""

VLLM_RULES: Rules = (
    ("tensor_parallel", "a whole number from 1", _count),
    ("max_model_len", "a whole number from 1", _count),
    ("max_images", "a whole number from 1", _count),
    ("memory", "a share in (0, 1]", lambda v: isinstance(v, int | float) and 0 < v <= 1),
    ("eager", "true or false", lambda v: isinstance(v, bool)),
)
"""vLLM's settings; they are checked before anything starts."""

ENDPOINT_RULES: Rules = (
    ("concurrency", "a whole number from 1", _count),
    ("retries", "a whole number from 0", lambda v: v == 0 or _count(v)),
    ("timeout", "a number of seconds", lambda v: isinstance(v, int | float) and v > 0),
    ("extra", "a mapping", lambda v: isinstance(v, dict)),
)
"""The settings of an endpoint, likewise."""


class EngineChoice(NamedTuple):
    """An engine with its settings.

    Attributes:
        name: The name for :func:`cpt_bench.engines.open_engine`.
        settings: Its keyword arguments, as JSON.
        origin: For a plug-in: what distinguishes engines of the same name.
        swaps: Whether the engine can swap in another checkpoint.
        kept: Use one process and engine for all checkpoints; changes no number, and is not part of
            a run's identity.
    """

    name: str = "transformers"
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed
    origin: dict[str, str] | None = None
    swaps: bool = True
    kept: bool = False

    def identity(self) -> dict[str, Any]:
        """The parts that can change a reply; empty for the default engine."""
        plain = EngineChoice()
        if (self.name, self.settings, self.origin) == (plain.name, plain.settings, plain.origin):
            return {}
        origin = {"origin": self.origin} if self.origin else {}
        return {"name": self.name, "settings": self.settings, **origin}

    @property
    def gpus(self) -> int:
        """How many GPUs it uses."""
        return int(self.settings.get("tensor_parallel", 1)) if self.name == "vllm" else 1


def choose(name: str, settings: Iterable[str]) -> EngineChoice:
    """The engine of ``--engine`` and ``--engine-set KEY=VALUE``, checked before anything starts.

    Raises:
        CptBenchError: There is no such engine or setting, or it cannot load a run's checkpoints.
    """
    if name == "endpoint":
        raise CptBenchError(
            "a server cannot be given the checkpoints of a run",
            where="--engine endpoint",
            todo="To evaluate the model that a server serves, use cptbench eval --endpoint URL",
        )
    texts = assigned(settings, "--engine-set")
    found = find_engine(name, texts) if texts else None
    kinds = setting_types(found.value) if found else {}
    values = {key: value_of(text, kinds.get(key, Any)) for key, text in texts.items()}
    if name == EngineChoice().name and not values:
        return EngineChoice()
    found = found or find_engine(name, values)
    if name == "vllm":
        require_installed()
        if not on_cpu():
            values.setdefault("memory", MEMORY)
        _require(values, VLLM_RULES)
    origin = None if name in builtin("engines") else found.origin
    return EngineChoice(name, values, origin, hasattr(found.value, "swap"))


def asking(settings: Iterable[str]) -> dict[str, Any]:
    """The client settings of ``eval --endpoint``: ``--engine-set KEY=VALUE``, checked.

    Raises:
        CptBenchError: The engine has no such setting, or the value is not valid for it.
    """
    from cpt_bench.engines.endpoint import OWN

    texts = assigned(settings, "--engine-set")
    for key in texts:
        if key in OWN:
            raise CptBenchError(
                f"{key} is not set by hand", where="--engine-set", todo="The name is --model's"
            )
    kinds = setting_types(find_engine("endpoint", texts).value)
    values = {key: value_of(text, kinds.get(key, Any)) for key, text in texts.items()}
    _require(values, ENDPOINT_RULES)
    if "key" in texts:
        values["key"] = texts["key"]  # remains text even if it consists of digits
    return values


def _require(values: dict[str, Any], rules: Rules) -> None:
    for key, rule, fits in rules:
        if values.get(key) is not None and not fits(values[key]):
            raise CptBenchError(f"{key}={values[key]} is not {rule}", where="--engine-set")
