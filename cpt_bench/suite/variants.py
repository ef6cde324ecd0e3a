"""Variants of a suite: ``cpt7@paper.direct+mini`` names a protocol, a style and a tier.

A suite may declare several protocols and several sizes. Cards and protocols give only the
differences, as overlays; the result is plain data without any trace of the overlays, so that a
fingerprint covers exactly what is used.

``SUITE@NAME`` may also name another base model. It asks the same questions in the same way, so it
is the same suite with the same fingerprint; runs differ by the weights that they start from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError, did_you_mean

Data = dict[str, Any]


class Variant(NamedTuple):
    """Which of a suite's protocols, styles, tiers and base models; None is the suite's default."""

    protocol: str | None = None
    style: str | None = None
    tier: str | None = None
    base: str | None = None

    @property
    def tag(self) -> str:
        """``paper.direct+mini``; empty for the defaults."""
        protocol = ".".join(part for part in (self.protocol, self.style) if part)
        return "+".join(part for part in (protocol, self.tier, self.base) if part)


def split_spec(spec: str) -> tuple[str, str]:
    """``cpt7@paper+mini`` -> (``cpt7``, ``paper+mini``); a directory with an @ stays whole."""
    if "@" not in Path(spec).name or Path(spec).exists():
        return spec, ""
    name, _, tag = spec.rpartition("@")
    return name, tag


def compose(spec: str, protocol: str | None, tier: str | None) -> str:
    """``spec`` combined with a protocol and tier given separately, as on the command line."""
    name, tag = split_spec(spec)
    tags = "+".join(part for part in (tag, protocol, tier) if part)
    return f"{name}@{tags}" if tags else name


def choose(tag: str, suite: Data, where: object) -> Variant:
    """The variant that ``tag`` names among those of a ``suite.yaml``.

    Raises:
        CptBenchError: The suite has no such protocol, tier or base model, or the tag names two of
            one kind.
    """
    protocols, tiers, bases = protocols_of(suite), tiers_of(suite), other_bases_of(suite)
    chosen = Variant()
    for part in filter(None, tag.split("+")):
        name, _, style = part.partition(".")
        if part in tiers and chosen.tier is None:
            # Naming the default tier gives the default: each run has only one name.
            chosen = chosen._replace(tier=part)
        elif name in protocols and chosen.protocol is None:
            chosen = chosen._replace(protocol=name, style=style or None)
        elif part in bases and chosen.base is None:
            chosen = chosen._replace(base=part)
        elif part in tiers or name in protocols or part in bases:
            what = f"{tag!r} names two protocols, two tiers or two base models"
            raise CptBenchError(what, where=where)
        else:
            raise CptBenchError(
                f"no protocol, tier or base model is called {part!r}",
                where=where,
                todo=did_you_mean(part, [*protocols, *tiers, *bases]),
            )
    if tiers and chosen.tier == tiers[0]:
        chosen = chosen._replace(tier=None)
    if chosen.style and chosen.style == protocols[str(chosen.protocol)].get("style"):
        chosen = chosen._replace(style=None)
    if chosen.style is None and protocols and chosen.protocol == default_protocol(suite):
        chosen = chosen._replace(protocol=None)
    return chosen


def protocols_of(suite: Data) -> dict[str, Data]:
    """A suite's protocols by name; one that is written out under ``protocol`` is the only one."""
    several = suite.get("protocols")
    if isinstance(several, dict):
        return {str(name): {"name": str(name), **(data or {})} for name, data in several.items()}
    only = suite.get("protocol")
    return {str(only.get("name")): only} if isinstance(only, dict) else {}


def default_protocol(suite: Data) -> str:
    """The protocol that ranks."""
    named = suite.get("protocol")
    return named if isinstance(named, str) else next(iter(protocols_of(suite)), "")


def tiers_of(suite: Data) -> list[str]:
    """A suite's sizes, the default first."""
    return [str(name) for name in suite.get("tiers") or ()]


def other_bases_of(suite: Data) -> Data:
    """The base models besides the suite's own, by name."""
    return {str(name): base for name, base in (suite.get("other_bases") or {}).items()}


def suite_data(suite: Data, variant: Variant, where: object) -> Data:
    """``suite.yaml`` with one protocol, in one style, from one base model.

    A protocol's ``suite`` replaces what else the suite says, as its sequence or its base model,
    where a publication's numbers are for others.
    """
    protocols = protocols_of(suite)
    name = variant.protocol or default_protocol(suite)
    if name not in protocols:
        if "protocols" not in suite:
            return suite  # validation of the model reports it
        raise CptBenchError(
            f"protocol: {name!r} is not among protocols",
            where=where,
            todo=did_you_mean(name, [*protocols]),
        )
    protocol = dict(protocols[name])
    styles = protocol.pop("styles", {}) or {}
    style = variant.style or protocol.get("style")
    if variant.style is not None:
        known = [str(s) for s in protocol.get("prompts", {})]
        if variant.style not in known:
            raise CptBenchError(
                f"protocol {name} has no style {variant.style!r}",
                where=where,
                todo=did_you_mean(variant.style, known),
            )
        protocol["style"] = variant.style
    changes = dict(protocol.pop("suite", None) or {})
    protocol = overlay(protocol, styles.get(style) or {})
    rest = {key: value for key, value in suite.items() if key not in CHOICES}
    rest.update(changes)
    if variant.base is not None:
        rest.pop("base_package", None)  # has the suite's own
        rest["base_model"] = other_bases_of(suite)[variant.base]
    tier = variant.tier or next(iter(tiers_of(suite)), None)
    return {**rest, "protocol": protocol, **({"tier": tier} if tier else {})}


def card_data(card: Data, protocol: str, style: str, tier: str | None) -> Data:
    """A card for one protocol, style and tier."""
    out = {key: value for key, value in card.items() if key not in OVERLAYS}
    for path in overlays(card, protocol, style, tier):
        out = overlay(out, card[path[0]][path[1]] or {})
    return out


CHOICES = ("protocols", "tiers", "other_bases")
"""The keys of ``suite.yaml`` that offer what a variant chooses from."""
OVERLAYS = ("tiers", "protocols")
"""The keys of a card whose values are overlays by name."""


def overlays(card: Data, protocol: str, style: str, tier: str | None) -> list[tuple[str, str]]:
    """The keys of the overlays that a card has for one variant, in the order they are applied."""
    wanted = [("tiers", tier), ("protocols", protocol), ("protocols", f"{protocol}.{style}")]
    return [(kind, name) for kind, name in wanted if name and name in (card.get(kind) or {})]


def place_of_split(
    card: Data, split: str, protocol: str, style: str, tier: str | None
) -> tuple[str, ...]:
    """The keys of the overlay that decides a variant's samples; empty where it is the card itself.

    A split's size and hash belong there: written above it, they would be another variant's.
    """
    place: tuple[str, ...] = ()
    for kind, name in overlays(card, protocol, style, tier):
        changes = card[kind][name] or {}
        if split in (changes.get("splits") or {}) or changes.keys() & {"source", "answer_kinds"}:
            place = (kind, name)
    return place


def variants_of(suite: Data) -> list[Variant]:
    """Every protocol, style and tier of a ``suite.yaml`` by their full names.

    Other base models are left out: they change no sample and no prompt.
    """
    tiers: list[str | None] = [*tiers_of(suite)]
    return [
        Variant(name, style, tier)
        for tier in tiers or [None]
        for name, protocol in protocols_of(suite).items()
        for style in map(str, protocol.get("prompts") or ())
    ]


def overlay(base: Data, changes: Data) -> Data:
    """``base`` updated with ``changes``: mappings are merged by key, other values replaced."""
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        out[key] = overlay(old, value) if both else value  # type: ignore[arg-type]
    return out
