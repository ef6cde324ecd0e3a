"""Checks that each name is what it looks like, and looks like no other.

People read a board by eye. A name with a Cyrillic letter, a second space or a letter of another
width is a different name for a program, but the same one for a reader.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from cpt_bench.leaderboard.findings import Report, printable

_LETTERS: Final = {
    # Letters of other scripts, and rarer Latin ones, that are drawn like these (a part of
    # Unicode's list of confusables, UTS 39). Greek letters that only resemble Latin ones are left
    # out: 'αGRPO' and 'μP' are honest names.
    "A": "АΑᎪ", "B": "ВΒᏴ", "C": "СᏟ", "D": "Ꭰ", "E": "ЕΕᎬ", "G": "Ԍ", "H": "НΗᎻ", "I": "ІΙӀ",
    "J": "ЈᎫ", "K": "КΚᏦ", "L": "Ꮮ", "M": "МΜᎷ", "N": "Ν", "O": "ОΟՕ", "P": "РΡᏢ", "Q": "Ԛ",
    "R": "Ꭱ", "S": "ЅՏᏚ", "T": "ТΤᎢ", "U": "Ս", "V": "ѴᏙ", "W": "ԜᎳ", "X": "ХΧ", "Y": "УΥҮ",
    "Z": "ΖᏃ", "a": "аɑᴀ", "b": "Ьʙ", "c": "сϲᴄ", "d": "ԁᴅ", "e": "еᴇ", "f": "ꜰ", "g": "ɡɢ",
    "h": "һհʜ", "i": "іıɪι", "j": "јϳᴊ", "k": "ᴋ", "l": "ӏʟ", "m": "ᴍ", "n": "ոɴ", "o": "оοօᴏ",
    "p": "рᴘ", "q": "ԛ", "r": "гʀ", "s": "ѕꜱ", "t": "ᴛ", "u": "սᴜ", "v": "ѵνᴠ", "w": "ԝᴡ",
    "x": "хᚷ", "y": "уʏ", "z": "ᴢ",
}  # fmt: skip
_SAME: Final = {char: latin for latin, chars in _LETTERS.items() for char in chars}
_DRAWN: Final = str.maketrans({
    **_SAME, "0": "o", "1": "l", "|": "l",
    **dict.fromkeys("‐‑‒–—−﹣－", "-"), **dict.fromkeys("’‘ʼ`´", "'"),
})  # fmt: skip
"""For comparing only: digits that are drawn like letters, dashes and apostrophes, too."""

_HONEST: Final = "ıµ"
"""Turkish names have the one, and the other is what keyboards give for a small mu."""
_WORD: Final = re.compile(r"[^\W\d_]+")
_BLANK: Final = "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and symbols that are drawn as nothing."""


def skeleton(text: str) -> str:
    """What a name looks like: two names with one skeleton cannot be distinguished by eye."""
    folded = unicodedata.normalize("NFKC", text).translate(_DRAWN).casefold().translate(_DRAWN)
    visible = "".join(c for c in folded if c not in _BLANK and unicodedata.category(c) != "Cf")
    return " ".join(visible.replace("i", "l").split())


def plain(text: str) -> str:
    """A name as people retype it: its case and spaces are folded, nothing else."""
    return " ".join(text.casefold().split())


def look_alike(one: str, two: str) -> bool:
    """Whether two names that are not the same look the same."""
    return plain(one) != plain(two) and skeleton(one) == skeleton(two)


def faults(text: str) -> Iterator[str]:
    """In words, what makes a name look like something that it is not."""
    words = _WORD.findall(text)
    scripts = [{unicodedata.name(c, "?").split()[0] for c in word} for word in words]
    for word, here in zip(words, scripts, strict=True):
        foreign = next((c for c in word if c in _SAME and c not in _HONEST), None)
        posing = all(c in _SAME for c in word) and any("LATIN" in other for other in scripts)
        if foreign is not None and (len(here) > 1 or "LATIN" in here or posing):
            yield f"has {_called(foreign)}, which looks like {_SAME[foreign]!r}"
    for char in text:
        category = unicodedata.category(char)
        compatible = unicodedata.normalize("NFKC", char) != char and char not in _HONEST
        if char in _BLANK or (category in ("Zs", "Zl", "Zp") and char != " "):
            yield f"has {_called(char)}, which looks like a space or like nothing"
        elif category in ("Cf", "Cn", "Co"):
            yield f"has {_called(char)}, which cannot be seen"
        elif compatible and category.startswith("L"):
            yield f"has {_called(char)}, a letter in another dress; write it plainly"
    if text != " ".join(text.split(" ")).strip() or "  " in text:
        yield "begins or ends with a space, or has two in a row"
    if re.search(r"[\u0300-\u036f]{3}", text):
        yield "has letters with three marks and more"


def _called(char: str) -> str:
    return f"U+{ord(char):04X} ({unicodedata.name(char, 'unnamed')})"


def check_names(names: dict[str, str], where: str, report: Report) -> None:
    """Each of ``names`` (what it is, to the name) is written as it looks."""
    for what, name in names.items():
        for fault in dict.fromkeys(faults(name)):
            report.error("look-alike", where, f"{what} {printable(ascii(name), 100)} {fault}")
