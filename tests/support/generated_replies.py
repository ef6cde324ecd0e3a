"""Replies as models write them, from a seeded generator: values, options and words in every dress."""

from __future__ import annotations

import random
from collections.abc import Callable

MINUS = ["-", "-", "-", "−", "–", "－"]
FRAMES = [
    "{}", "{}", "{}", "{}.", " {} \n", "The answer is {}.", "the answer is {}", "So the answer is {}", "x = {}", "= {}",
    "It is {}.", "Answer: {}", "{} it is", "I think it could be {} or {other}", "{other}, no: {}", "{} or {other}",
    "First, {other}\nso {}", "so \nThe final answer {}", "is {}\nThis is it", "**{}**", "\\boxed{{{}}}", "$ {} $", "<answer>{}</answer>",
    "not {}", "The result is: {}!", "Therefore {}, I am sure", "{};", "It is \n {}", "{other} = {}", "No. {}", "answer is ({})",
    "{}\n\nBecause {other} is wrong.", "we have {other}, {other} and {}", "Thus {}\nThus {other}", "({})", "Yes, {}", "not sure, {}",
]  # fmt: skip
UNITS = [
    "",
    "",
    "",
    "",
    " cm",
    "cm",
    "%",
    " %",
    " dollars",
    "°",
    " m/s",
    " units",
    " kg",
    "\\text{ cm}",
]
WORDS = [
    "yes", "no", "not", "No", "Yes", "NO", "YES", "nothing", "unknown", "red", "a red star", "red star", "two", "2", "ten",
    "St. John's", "john's", "dont", "it's", "10:30", "$5.00", "U.S.A.", "a/b", "coca-cola", "the", "a", "?", "none", "stop.",
    "Stop", "STOP", "stop sign", "1,000", "1000", "x-ray (chest)", "pathology", "on", "zero", "subzero", "",
]  # fmt: skip


def numeral(rng: random.Random, value: float) -> str:
    """``value`` in one of its spellings: separators, decimals, exponents, signs, digits, units."""
    whole = value == int(value)
    spell = rng.choice(
        ["plain", "plain", "commas", "commas", "decimals", "exponent", "spaces", "latex"]
    )
    size = abs(value)
    if spell == "commas":
        text = f"{size:,.0f}" if whole else f"{size:,.2f}"
    elif spell == "decimals":
        text = f"{size:.2f}"
    elif spell == "exponent":
        text = rng.choice(["{:e}", "{:.1E}", "{:.3e}"]).format(size)
    elif spell == "spaces":
        text = f"{size:,.0f}".replace(",", rng.choice([" ", "\u202f", "\u2009"]))
    elif spell == "latex":
        text = f"{size:,.0f}".replace(",", rng.choice(["{,}", "\\,", ",\\!"]))
    else:
        text = f"{size:.0f}" if whole else f"{size:g}"
    if rng.random() < 0.03:
        text = text.translate({ord("0") + i: ord("０") + i for i in range(10)})
    sign = rng.choice(MINUS) if value < 0 else rng.choice(["", "", "", "", "+", "$"])
    return f"{sign}{text}{rng.choice(UNITS)}"


def number(rng: random.Random) -> float:
    """A number of any size, often whole, sometimes with decimals, negative or beyond a thousand."""
    size = rng.choice([rng.randrange(10), rng.randrange(1000), rng.randrange(10**7), 1249, 7243000])
    part = rng.choice([0, 0, 0, 0.5, 0.25, round(rng.random(), 2)])
    return (size + part) * rng.choice([1, 1, 1, -1])


def framed(rng: random.Random, said: str, other: Callable[[], str]) -> str:
    """``said`` in a sentence, sometimes with something else beside it."""
    frame = rng.choice(FRAMES)
    return frame.replace("{{", "\0").replace("}}", "\1").replace("{}", said).replace(
        "{other}", other()
    ).replace("\0", "{").replace("\1", "}")  # fmt: skip


def numbers(seed: int, n: int) -> list[tuple[str, str]]:
    """(reply, gold) with numbers: the gold as data sets write it, the reply as models do."""
    rng, out = random.Random(seed), []
    for _ in range(n):
        value = number(rng)
        gold = rng.choice(
            [f"{value:g}" if abs(value) < 1e5 else f"{value:.2f}", f"{value:,.2f}", f"{value:.0f}"]
        )
        meant = value if rng.random() < 0.7 else number(rng)
        out.append((framed(rng, numeral(rng, meant), lambda: numeral(rng, number(rng))), gold))
    return out


def options(rng: random.Random, n: int) -> list[str]:
    """Words of ``n`` options."""
    kinds = [["a cat", "a dog", "two cats", "H. pylori", "the dog", "none", "dog", "cats", "E. coli", "I only"],
             ["12", "1,200", "0.5", "120", "12 cm", "1.2e3", "-12", "3", "33", "333"],
             ["A", "B", "AB", "O", "I", "C", "H", "J", "X", "Y"]]  # fmt: skip
    return rng.sample(rng.choice(kinds), n)


def letters(seed: int, n: int, most: int = 5) -> list[tuple[str, list[str]]]:
    """(reply, options) with options in every dress: letters, words, both, in sentences, beyond."""
    rng, out = random.Random(seed), []
    for _ in range(n):
        words = options(rng, rng.randint(2, most))

        def dressed(words: list[str] = words) -> str:
            i = rng.randrange(min(len(words) + 2, 10))
            letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i]
            word = words[i % len(words)]
            return rng.choice(
                [letter, letter, f"({letter})", f"{letter}.", f"{letter})", f"{letter}:", letter.lower(), f"({letter}) {word}",
                 f"{letter}. {word}", f"{letter}: {word}", word, word.upper(), f"{word}.", f"**{letter}**", f"option {letter}",
                 f"The answer is {letter}.", f"answer is ({letter})", f"Answer: {letter}", f"[{letter}]", f"\\text{{{letter}}}",
                 f"{letter},", f"{letter}.,", f"{letter},.", f"{letter}\n", f"'{letter}'", f"H. pylori causes it. The answer is {letter}."]
            )  # fmt: skip

        out.append((framed(rng, dressed(), dressed), words))
    return out


def answers(seed: int, n: int) -> list[tuple[str, list[str]]]:
    """(reply, ten annotators) of short words, agreeing more or less."""
    rng, out = random.Random(seed), []
    for _ in range(n):
        few = [rng.choice(WORDS) for _ in range(rng.randint(1, 4))]
        weights = [10 ** rng.random() for _ in few]
        said = rng.choice([*few, rng.choice(WORDS)])
        change = rng.choice([str, str, str.upper, str.title, lambda t: f"{t}.", lambda t: f"the {t}", lambda t: f" {t}\n",
                             lambda t: f"{t}!", lambda t: f"{t}, {rng.choice(WORDS)}"])  # fmt: skip
        out.append((change(said), rng.choices(few, weights, k=10)))
    return out


def yes_no(seed: int, n: int) -> list[tuple[str, str]]:
    """(reply, gold) to questions with yes or no, also with neither or both."""
    rng = random.Random(seed)
    starts = ["Yes", "No", "yes", "no", "NO", "YES", "A dog", "not", "I see no dog", "It is not there", "There is", "",
              "Nope", "nothing", "Not at all", "yes no", "No, yes", "yes!", "no!", "no;", "**No**", "(no)", "unknown"]  # fmt: skip
    ends = [
        "",
        "",
        ".",
        ", there is a dog.",
        ". No dog. Yes",
        "\n",
        " it is",
        ". not",
        ",no",
        "-no",
        "!",
    ]
    return [(rng.choice(starts) + rng.choice(ends), rng.choice(["yes", "no"])) for _ in range(n)]
