"""VQA soft accuracy: agreement with ten annotators (Antol et al. 2015, arXiv 1505.00468).

The score is the mean over the ten sets of nine annotators of min(1, matches / 3): with 0, 1, 2, 3
and 4 or more of ten agreeing it is 0, .3, .6, .9 and 1. Annotators are left out by place: code that
leaves them out by equality drops all who agree at once where answers carry no id. Where there are
fewer than ten, it is min(1, matches / 3) over all of them, or matches / n of one or two.

Three ways to make answers comparable are in use, and they differ:

* ``official``: the VQA evaluation code. It compares raw text when all annotators agree, and its
  full-stop pattern has a look-behind with a typo, so that any full stop before a non-digit goes.
* ``evalai``: TextVQA's and LLaVA's. A possessive is a word of its own (``john 's``).
* ours, for ranking: the official one, always applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cpt_bench.suite import Sample

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# (?!<=\d) is the official typo for (?<!\d): it looks ahead for the text '<=' and a digit.
_STOP = re.compile(r"(?!<=\d)\.(?!\d)")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
} | {"none": "0"}


_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""


def _contractions() -> dict[str, str]:
    """Contractions that lack one of their apostrophes -> with all of them."""
    table = {}
    for word in _CONTRACTED.split():
        for place in (i for i, c in enumerate(word) if c == "'"):
            table[word[:place] + word[place + 1 :]] = word
    # The published table has this one the wrong way round.
    return table | {"hed": "he'd", "somebody'd": "somebodyd"}


CONTRACTIONS = _contractions()


def _without_punctuation(text: str) -> str:
    """Punctuation removed next to a space or as a number's comma, else replaced by a space."""
    out = text
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    for mark in _PUNCTUATION:
        at_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if at_space or in_number else " ")
    # re.UNICODE stands where the count should, and its value is 32.
    return _STOP.sub("", out, count=int(re.UNICODE))


def _plain_words(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    rest = (word for word in words if word not in _ARTICLES)
    return " ".join(CONTRACTIONS.get(word, word) for word in rest)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalise_official(text: str) -> str:
    """The VQA evaluation code's form of an answer."""
    return _plain_words(_without_punctuation(_one_line(text)))


def normalise_evalai(text: str) -> str:
    """TextVQA's form of an answer: lower case, no comma or question mark, possessives split."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _plain_words(_without_punctuation(_one_line(text)))


def soft_accuracy(answer: str, annotators: Sequence[str]) -> float:
    """Mean over leave-one-out sets of min(1, matches / 3), in [0, 1]; an empty answer scores 0."""
    if not answer or not annotators:
        return 0.0
    matches = sum(annotator == answer for annotator in annotators)
    if len(annotators) < 10:
        return min(1.0, matches / min(3, len(annotators)))
    # Leaving out one who agrees takes one match away; one who does not takes none.
    others = matches * min(3, matches - 1) + (len(annotators) - matches) * min(3, matches)
    return others / 3 / len(annotators)


def _annotators(sample: Sample) -> Sequence[str]:
    return sample.annotators or sample.answers


def _score(answer: str, sample: Sample, normalise: Callable[[str], str]) -> float:
    def form(text: str) -> str:
        # An article or a mark alone normalises to nothing, and is then compared as it stands.
        return normalise(text) or text.strip().lower()

    return soft_accuracy(form(answer), [form(a) for a in _annotators(sample)])


def vqa(answer: str, sample: Sample) -> float:
    """Agreement with ten annotators, in steps of .3; the official normalisation, always applied."""
    return _score(answer, sample, normalise_official)


def vqa_official(answer: str, sample: Sample) -> float:
    """Agreement as in the VQA code: normalised only if annotators disagree."""
    if len({_one_line(annotator) for annotator in _annotators(sample)}) > 1:
        return _score(answer, sample, normalise_official)
    return _score(answer, sample, _one_line)


def vqa_evalai(answer: str, sample: Sample) -> float:
    """Agreement as in TextVQA's evaluation on EvalAI."""
    return _score(answer, sample, normalise_evalai)
