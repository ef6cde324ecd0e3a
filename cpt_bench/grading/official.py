"""The data sets' own scorers: raw reply -> answer -> score.

Written from their definitions, without their code. Where a scorer guesses at random if it finds no
answer, the reply here is wrong and counted as unparsed, so that equal replies have equal scores.
"""

from __future__ import annotations

import re
from math import isfinite

from cpt_bench.grading.numbers import plain
from cpt_bench.grading.options import gold_letter, gold_yes_no, letters_of
from cpt_bench.suite import Sample

USUAL = 5
"""The number of options, A to E, to assume if a sample does not give them."""


def _right(letter: str | None, sample: Sample) -> float:
    return float(letter == gold_letter(sample))


# -------------------------------------------------------------------------------- ScienceQA

_THE_ANSWER_IS = re.compile(r"The answer is ([A-Z]).")


def parse_scienceqa(reply: str, sample: Sample) -> str | None:
    """LLaVA's: the bare letter, a letter and a full stop in front, or one 'The answer is X'.

    A letter beyond the options is not an answer, neither at the start nor in the sentence.
    """
    letters = letters_of(sample, USUAL)
    text = reply.strip()
    if text[:1] in letters and (len(text) == 1 or text[1:3] == ". "):
        return text[0]
    found = [letter for letter in _THE_ANSWER_IS.findall(text) if letter in letters]
    return found[0] if len(found) == 1 else None


def scienceqa(reply: str, sample: Sample) -> float:
    """LLaVA's ScienceQA evaluation: the letter, 'X. ...', or one 'The answer is X'."""
    return _right(parse_scienceqa(reply, sample), sample)


# --------------------------------------------------------------------------------- MMLU-Pro

_ANSWER_IS = re.compile(r"answer is \(?([A-J])\)?")
_ANSWER = re.compile(r"[aA]nswer:(?=\s*([A-J]))")
_LONE_LETTER = re.compile(r"\b[A-J]\b")


def parse_mmlu_pro(reply: str, level: int = 3) -> str | None:
    """The official patterns up to ``level``: 'answer is (X)', 'Answer: X', the last lone letter.

    The official second and third patterns take time quadratic in the reply's length; these find the
    same in one pass.
    """
    found = _ANSWER_IS.search(reply)
    if found:
        return found[1]
    if level >= 2:
        answers = list(_ANSWER.finditer(reply))
        if answers:
            # The last one on the line of the first: '.*' is greedy and stays on its line.
            end = reply.find("\n", answers[0].start())
            return [m for m in answers if end < 0 or m.start() < end][-1][1]
    if level >= 3:
        letters = _LONE_LETTER.findall(reply)
        if letters:
            return str(letters[-1])
    return None


def mmlu_pro(reply: str, sample: Sample) -> float:
    """MMLU-Pro's first two patterns: 'answer is (X)', else 'Answer: X'."""
    return _right(parse_mmlu_pro(reply, 2), sample)


def mmlu_pro_1(reply: str, sample: Sample) -> float:
    """MMLU-Pro's first pattern alone, as lm-eval: 'answer is (X)'."""
    return _right(parse_mmlu_pro(reply, 1), sample)


def mmlu_pro_3(reply: str, sample: Sample) -> float:
    """As published (any last lone letter counts, also the word I): MMLU-Pro's three patterns."""
    return _right(parse_mmlu_pro(reply, 3), sample)


# ------------------------------------------------------------------------------------- MMMU

_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    # (?<!\d): a number begins where its digits do. Without it, as published, the same is found in
    # time that grows with the square of a long row of digits.
    re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_MARKS = r"[\s\"'*_`()\[\],.!?;:]*"
"""Characters that may surround an answer in words and are not part of it."""


def parse_mmmu_letter(reply: str, sample: Sample) -> str | None:
    """The last '(X)', else the last ' X ', else, in a long reply, the option whose text is last."""
    for mark in ",.!?;:'":  # one after the other, as published: 'C,.' ends in a comma
        reply = reply.strip(mark)
    text = f" {reply} "
    letters = letters_of(sample, USUAL)
    for form in ("({})", " {} "):
        found = [x for x in letters if form.format(x) in text]
        if found:
            return max(found, key=lambda x: text.rfind(form.format(x)))
    if len(text.split()) > 5:
        low = text.lower()
        words = dict(zip(letters, (c.lower() for c in sample.choices), strict=False))
        found = [x for x, words_of_x in words.items() if words_of_x in low]
        if found:
            return max(found, key=lambda x: low.rfind(words[x]))
    return None


def _mmmu_value(text: str) -> str | float:
    """A number to two decimals, or the words in lower case."""
    text = text.strip()
    try:
        return round(float(text.replace(",", "")), 2)
    except ValueError:
        return text.lower()


def _mmmu_forms(text: str) -> list[str | float]:
    value = _mmmu_value(text)
    # A single character must be next to a space.
    return [f" {value}", f"{value} "] if isinstance(value, str) and len(value) == 1 else [value]


def _mmmu_ends(text: str) -> list[str]:
    """The ends of an open reply's key sentences: what follows the last 'is ', 'answer ', '=' ..."""
    text = text.lower()
    # The official split also asks for a capital letter, of which lower case has none.
    sentences = text.split("\n")
    ends = []
    for i, sentence in enumerate(sentences):
        shortest = ""
        for key in (*_KEYS, "=") if i == len(sentences) - 1 else _KEYS:
            if key in sentence:
                end = sentence.rpartition(key)[2].strip()
                # As published, nothing after a key is shorter than what followed another.
                shortest = end if not shortest or len(end) < len(shortest) else shortest
        if shortest and shortest not in list(":,.!?;'"):
            ends.append(shortest)
    return ends or [text]


def _numbers_in(end: str) -> set[str | float]:
    """The numbers in the end of a reply, each once: in 1,249 there is no 249, in 1.5e3 no 3."""
    whole = _mmmu_value(end)
    if isinstance(whole, float) and isfinite(whole):
        return {whole}
    tokens: list[tuple[int, int]] = []
    for start, stop in sorted(m.span() for pattern in _NUMBERS for m in pattern.finditer(end)):
        if tokens and start < tokens[-1][1]:
            tokens[-1] = tokens[-1][0], max(stop, tokens[-1][1])
        else:
            tokens.append((start, stop))
    return {_mmmu_value(end[start:stop]) for start, stop in tokens}


def mmmu(reply: str, sample: Sample) -> float:
    """MMMU's evaluation without its random guesses; an open answer is the reply's end."""
    if sample.kind == "letter":
        return _right(parse_mmmu_letter(reply, sample), sample)
    end = _mmmu_ends(reply.strip().rstrip("."))[-1]
    numbers: set[str | float] | None = None
    for answer in sample.answers:
        value, words = _mmmu_value(plain(answer)), answer.strip().lower()
        if isinstance(value, float) and isfinite(value):
            numbers = _numbers_in(plain(end)) if numbers is None else numbers
            if numbers == {value}:
                return 1.0
        elif words:
            marks = _MARKS if any(map(str.isalnum, words)) else ""
            if re.fullmatch(rf"{marks}(?:an? |the )?{re.escape(words)}{marks}", end):
                return 1.0
    return 0.0


def mmmu_official(reply: str, sample: Sample) -> float:
    """As published (an open gold counts anywhere, also inside a word): MMMU's evaluation."""
    if sample.kind == "letter":
        return _right(parse_mmmu_letter(reply, sample), sample)
    golds = [form for answer in sample.answers for form in _mmmu_forms(answer)]
    ends = _mmmu_ends(reply.strip().strip("."))  # as published: of .25 the full stop goes as well
    numbers = [n for end in ends for pattern in _NUMBERS for n in pattern.findall(end)]
    return float(
        any(
            form == gold if isinstance(form, float) else isinstance(gold, str) and gold in form
            for piece in (*ends, *numbers)
            for form in _mmmu_forms(piece)
            for gold in golds
        )
    )


# ------------------------------------------------------------------------------------- POPE


def parse_pope(reply: str) -> str | None:
    """Yes or no, from the first sentence's words; None if it has neither."""
    words = {w.lower() for w in re.findall(r"\w+", _first_sentence(reply))}
    if words & {"no", "not"}:
        return "no"
    return "yes" if "yes" in words else None


def _first_sentence(reply: str) -> str:
    return reply.partition(".")[0].replace(",", "")


def pope(reply: str, sample: Sample) -> float:
    """POPE's reading of the first sentence; a reply with neither yes nor no is wrong."""
    return float(parse_pope(reply) == gold_yes_no(sample))


def parse_pope_official(reply: str) -> str:
    """No if the first sentence has the word No, no or not; else yes."""
    words = _first_sentence(reply).split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def pope_official(reply: str, sample: Sample) -> float:
    """As published (all but a 'no' in the first sentence counts as yes): POPE's evaluation."""
    return float(parse_pope_official(reply) == gold_yes_no(sample))


# ---------------------------------------------------------------------------------- PathVQA

_NOT_A_LETTER = re.compile(r"[^a-z0-9 ]+")


def _words(text: str) -> list[str]:
    return _NOT_A_LETTER.sub(" ", text.lower()).split()


def pathvqa(answer: str, sample: Sample) -> float:
    """Closed questions: exactly yes or no. Open ones: F1 of the words, so that more words cost."""
    given, gold = _words(answer), _words(sample.answers[0])
    if gold in (["yes"], ["no"]):
        return float(given == gold)
    if not given or not gold:
        return 0.0
    left, shared = list(gold), 0
    for word in given:
        if word in left:
            left.remove(word)
            shared += 1
    return 2 * shared / (len(given) + len(gold))


# ------------------------------------------------------------------------------------- GQA


def gqa(answer: str, sample: Sample) -> float:
    """GQA's equality, in any case."""
    return float(answer.strip().lower() == sample.answers[0].strip().lower())
