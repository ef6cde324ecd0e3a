"""Makes text from models and plug-ins safe to show, by escaping invisible characters."""

from __future__ import annotations

import unicodedata

LONGEST = 2_000
"""How many characters of a reply are shown; of the rest, only the number."""


def visible(text: str, longest: int = LONGEST, lines: bool = True) -> str:
    """``text`` with control, format and surrogate characters escaped, cut to ``longest``.

    Right-to-left overrides, escape sequences and zero-width characters can make a text look like
    another one, or control a terminal; here they appear as ``<U+202E>``.

    Args:
        text: Any text.
        longest: Maximal number of its characters that are shown.
        lines: Keep line breaks and tabs; else they become spaces.
    """
    head = text[:longest]
    plain = head.replace("\n", "").replace("\t", "") if lines else head
    shown = head if plain.isprintable() else "".join(_shown(c, lines) for c in head)
    return shown if len(text) <= longest else f"{shown}… ({len(text):,} characters in all)"


def _shown(character: str, lines: bool) -> str:
    if character in "\n\t\r":
        return character if lines and character != "\r" else " "
    kind = unicodedata.category(character)
    if kind in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return f"<U+{ord(character):04X}>"
    return character
