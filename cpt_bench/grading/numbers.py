"""Numbers as people and models write them: other minus signs, other digits, separators."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from math import isfinite

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u02d7\u2796\ufe58\ufe63\uff0d"
_PLUSES = "\ufe62\uff0b\u2795"
SIGNS = str.maketrans({**dict.fromkeys(_DASHES, "-"), **dict.fromkeys(_PLUSES, "+")})
"""Characters that stand for a minus or a plus -> the ASCII one."""

# A space between groups of three digits, if it is non-breaking or too thin to separate numbers.
_THIN = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_RAISED = ("<super>", "<sub>", "<fraction>")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


def plain(text: str) -> str:
    """``text`` with full-width and styled characters, signs and thin spaces converted to ASCII.

    A raised or lowered character changes a number's value (``5²`` is not 52): text with one is
    returned unchanged.
    """
    if text.isascii() or any(unicodedata.decomposition(c).startswith(_RAISED) for c in text):
        return text
    signed = _THIN.sub(",", text.translate(SIGNS))
    return unicodedata.normalize("NFKC", signed).translate(SIGNS)


@lru_cache(maxsize=4096)  # the same gold answers and short replies occur many times
def as_number(text: str) -> float | None:
    """The finite number that the entire ``text`` spells, or None."""
    text = plain(text).strip()
    if not _NUMBER.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if isfinite(value) else None
