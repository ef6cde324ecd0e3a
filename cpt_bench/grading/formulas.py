"""Finds the formula in an answer, by removing a name before it, a unit after it, and markup.

People write ``m∠4 = 79``, ``79º``, ``79 cm`` and ``6√3``; math-verify reads only LaTeX, and stops
where it does not understand. So all patterns here are exact, and text that fits none of them is not
a formula.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from cpt_bench.grading.numbers import SIGNS


class Formula(NamedTuple):
    """A formula in LaTeX, and its unit ('' for none; ``cm2`` for square centimetres)."""

    latex: str
    unit: str = ""


# ------------------------------------------------------------------- other characters for the same

_GREEK = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "θ": "theta"},
    **{"ϑ": "theta", "λ": "lambda", "μ": "mu", "ρ": "rho", "σ": "sigma", "τ": "tau"},
    **{"φ": "phi", "ϕ": "phi", "ω": "omega"},
}
_GREEK_NAMES = "|".join(sorted(set(_GREEK.values())))
_LOOKALIKES = {
    **dict.fromkeys("º˚∘\u030a", "°"),  # ordinal, ring above, ring operator, combining ring
    **dict.fromkeys("∡∢", "∠"),
    **dict.fromkeys("⋅∙•", "·"),
    **dict.fromkeys("∕⁄", "/"),
    **dict.fromkeys("\u00a0\u2009\u202f", "\u202f"),  # between digits; no space that parts numbers
    **{"◠": "⌒", "△": "", "≈": "=", "′": "'"},
}
_RAISED = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_THOUSANDS = re.compile(r"(?<=\d)(?:,(?:\s*\\!)?|\{\s*,\s*\}|\\[, ]|~|\u202f)(?=\d{3}(?!\d))")


def _characters(text: str) -> str:
    """Replace full-width, raised and look-alike characters by LaTeX or ASCII."""
    if text.isascii():
        return text
    raised = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    return "".join(map(_character, raised.translate(SIGNS))).translate(SIGNS)


def _character(character: str) -> str:
    if character in _LOOKALIKES:
        return _LOOKALIKES[character]
    folded = unicodedata.normalize("NFKC", character)
    if unicodedata.decomposition(character).startswith("<fraction>"):
        over, _, under = folded.partition("\u2044")
        return rf"\frac{{{over}}}{{{under}}}" if under else character
    return folded


# ------------------------------------------------------------------------ a name: what is left of =

_STANDS_FOR = (
    (r"\\(?:overset|stackrel)\s*\{\s*(?:\\[lL]arge|\\small)?\s*\\frown\s*\}", "⌒"),
    (r"\\(?:widehat|wideparen|overarc|overparen|arc|hat|frown)(?![A-Za-z])|\barc\b", "⌒"),
    (r"\\(?:measured)?angle(?![A-Za-z])|\bangle\b", "∠"),
    (r"\\(?:overline|overleftrightarrow|overrightarrow|bar|triangle)(?![A-Za-z])", ""),
    (r"\\(?:text|textit|textbf|mathrm|mathit|mathbf|operatorname|rm|left|right)(?![A-Za-z])", ""),
    (r"\b[Mm]easure\s+of\b", "m"),
    (r"(?i:\b(?:area|perimeter|length|width|height|radius|diameter|circumference)\b)", "A"),
    (rf"\\(?:{_GREEK_NAMES})(?![A-Za-z])|[{''.join(_GREEK)}]", "x"),
    (r"\\[,;:! ]|[{}()|\s]|~", ""),
)
_NAME = re.compile(
    r"m?∠(?:\d{1,2}|[A-Za-z]{1,4}'?)"  # an angle, by its number or its letters
    r"|m?⌒[A-Za-z]{1,4}"  # an arc
    r"|m?[A-Za-z]{1,3}'?(?:_[A-Za-z0-9]{1,3})?"  # a variable, a segment; mAB is an arc
)


def _is_name(text: str) -> bool:
    r"""Whether ``text`` only names what equals the answer: ``m∠4``, ``\widehat{AB}``, ``x``."""
    for pattern, sign in _STANDS_FOR:
        text = re.sub(pattern, sign, text)
    return not text or _NAME.fullmatch(text) is not None


# -------------------------------------------------------------------------- a unit: behind a number

_UNITS = {
    "mm": r"mm|millimet(?:er|re)s?",
    "cm": r"cms?|centimet(?:er|re)s?",
    "dm": r"dm|decimet(?:er|re)s?",
    "km": r"kms?|kilomet(?:er|re)s?",
    "m": r"m|met(?:er|re)s?",
    "in": r"in(?:\.|ch(?:es)?)?",
    "ft": r"ft\.?|foot|feet",
    "yd": r"yds?\.?|yards?",
    "mi": r"mi\.?|miles?",
    "unit": r"units?",
    "deg": r"deg(?:rees?)?",
    "rad": r"rad(?:ians?)?",
    "percent": r"\\?%|per ?cent",
}
_UNIT = re.compile(
    r"(?<=[\d}\s)])(?:\\[,;: ]|[\s~\u202f])*"
    r"(?:(?P<square>sq(?:uare|\.)?|cu(?:bic|\.)?)\s*)?"
    rf"(?:{'|'.join(f'(?P<{name}>{words})' for name, words in _UNITS.items())})"
    r"(?:(?:\s*\^\s*)?(?P<power>[23])|\s*\^\s*\{\s*(?P<braced>[23])\s*\})?$"
)
_IN_TEXT = re.compile(
    r"\\(?:text|textrm|mathrm|textit|mathit|operatorname|mbox)\s*"
    r"\{(?:\\[,; ]|[\s~])*(?P<words>[A-Za-z. ]+?)\s*\}(?P<power>\s*\^\s*\{?\s*[23]\s*\}?)?$"
)
_DEGREES = re.compile(r"\^\s*\{?\s*(?:\\circ|\\degree|°)\s*\}?|°|\\degree|\\circ(?![A-Za-z])")
_CURRENCY = re.compile(r"^\\?\$(?=[\d.])|(?<=^[-+])\\?\$(?=[\d.])")


def _without_unit(text: str) -> tuple[Formula, bool]:
    """The part before a unit at the end, and whether that unit may be a variable: 3 m^2."""
    wrapped = _IN_TEXT.search(text)
    if wrapped is not None:  # \text{ cm}^2 -> cm^2
        text = f"{text[: wrapped.start()]} {wrapped['words']}{wrapped['power'] or ''}"
    found = _UNIT.search(text)
    if found is None:
        return Formula(text), False
    name = next(name for name in _UNITS if found[name])
    raised = found["power"] or found["braced"] or ""
    power = raised or {"s": "2", "c": "3"}.get((found["square"] or " ")[0], "")
    variable = found["m"] == "m" and raised != "" and wrapped is None
    return Formula(text[: found.start()].strip(), name + power), variable


def same_unit(one: str, other: str) -> bool:
    """Whether two units agree: one is not given, they are the same, or one is just 'units'."""
    if not one or not other or one == other:
        return True
    powers = {unit.lstrip("abcdefghijklmnopqrstuvwxyz") for unit in (one, other)}
    return "unit" in (one.rstrip("23"), other.rstrip("23")) and len(powers) == 1


# ------------------------------------------------------------------------------------- the formula

# The parts of a formula: commands, single letters, numbers, operators. A word is not a formula.
_FORMULA = re.compile(
    r"(?:\\(?:frac|dfrac|tfrac|sqrt(?=\s*[{\[])|pi|cdot|times|left|right|div|pm|circ"
    rf"|(?:{_GREEK_NAMES})(?![A-Za-z])"
    r"|(?:text|mathrm)(?![^}]*\d)|angle|degree|sin|cos|tan|,|;|!|\s)"
    r"|\d|[A-Za-z](?![A-Za-z])|[-+*/^=().,{}\[\]\s]|°|×|÷)+"
)
_AS_LATEX = (
    (r"√|(?<![\\A-Za-z])sqrt", r"\\sqrt "),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"\\sqrt\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}"),
    (r"π|(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
    (r"·|(?<=\d)\s*(?=(?:\\left\s*)?\()", r"\\cdot "),  # it takes 6(3) for the mixed number 9
    (r"^(-?\d+)\s+(\d+)\s*/\s*(\d+)$", r"\1\\frac{\2}{\3}"),  # a mixed number: 4 4/11
    *((symbol, rf"\\{name} ") for symbol, name in _GREEK.items()),
)
"""Notations that are not LaTeX, and their replacements that math-verify can read."""
_WITH_EXPONENT = re.compile(r"[-+]?\d+(?:\.\d+)?[eE][-+]?\d{1,3}")
_MULTIPLE = re.compile(r"\s*-?\d+(?:\.\d+)?\s*\*?\s*[A-Za-z]\s*=")
"""2x = 79 gives x, which is not 79."""
_TOWER = re.compile(r"\^\s*\{?\s*-?\s*(?:\d{3,}|.{0,12}\^)|\*\s*\*")
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


@lru_cache(maxsize=4096)
def readings(answer: str) -> tuple[Formula, ...]:
    """The entire ``answer`` as a formula, with zero, one or two possible readings.

    There are two if an ``m`` after a number may be a variable or metres; the variable is first.
    """
    text = answer.strip().rstrip(".")
    for opening, closing in _DELIMITERS:
        inside = text.removeprefix(opening)
        if text.startswith(opening) and inside.endswith(closing):
            text = inside.removesuffix(closing)
            break
    if len(text) > 400:
        return ()
    text = re.sub(r"\\approx(?![A-Za-z])", "=", _characters(text))
    while "=" in text and _is_name(text.partition("=")[0]):
        text = text.partition("=")[2]
    if _MULTIPLE.match(text):
        return ()
    text = _THOUSANDS.sub("", text.strip())
    degrees = "deg" if _DEGREES.search(text) else ""
    text = _CURRENCY.sub("", _DEGREES.sub("", text).strip())
    formula, variable = _without_unit(text)
    found = [Formula(text, degrees)] if variable else []
    found.append(formula._replace(unit=formula.unit or degrees))
    as_latex = [f._replace(latex=_as_latex(f.latex)) for f in found]
    return tuple(f for f in as_latex if _is_formula(f.latex))


def _as_latex(text: str) -> str:
    if _WITH_EXPONENT.fullmatch(text):
        return f"{Decimal(text):f}"
    for pattern, latex in _AS_LATEX:
        text = re.sub(pattern, latex, text)
    return text


def _is_formula(text: str) -> bool:
    if not text or len(text) > 200 or not _FORMULA.fullmatch(text) or _TOWER.search(text):
        return False
    return re.search(r"\d|\\pi|[A-Za-z]", text) is not None


def parse_math(answer: str) -> str | None:
    """The entire ``answer`` as a formula in LaTeX, without a unit; None if it is not a formula."""
    found = readings(answer)
    return found[-1].latex if found else None
