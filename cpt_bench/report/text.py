"""Text from models and plug-ins, made safe to show: what cannot be seen becomes visible."""

from __future__ import annotations

import unicodedata

LONGEST = 2_000
"""Characters of a reply that are shown; the rest is counted."""


def visible(text: str, longest: int = LONGEST, lines: bool = True) -> str:
    """``text`` with control, format and surrogate characters spelled out, cut to ``longest``.

    Right-to-left overrides, escape sequences and zero-width characters can make a text look like
    another, or a terminal do things; here they appear as ``<U+202E>``.

    Args:
        text: Anything.
        longest: Characters kept.
        lines: Keep line breaks and tabs; else they become spaces.
    """
    kept = text[:longest]
    plain = kept.replace("\n", "").replace("\t", "") if lines else kept
    shown = kept if plain.isprintable() else "".join(_shown(c, lines) for c in kept)
    return shown if len(text) <= longest else f"{shown}… ({len(text):,} characters in all)"


def _shown(character: str, lines: bool) -> str:
    if character in "\n\t\r":
        return character if lines and character != "\r" else " "
    kind = unicodedata.category(character)
    if kind in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return f"<U+{ord(character):04X}>"
    return character
