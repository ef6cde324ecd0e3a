"""The scores of TRACE (arXiv 2310.06762), a reply at a time, in [0, 1].

Written from what its repository computes over a whole file: each of its scores is a mean over
replies, in which an empty reply counts 0. Accuracy is equality of the whole text; of ScienceQA only
the first character counts. ROUGE-L is that of the package ``rouge``. Edit similarity is that of
fuzzywuzzy without python-Levenshtein, that is difflib's, rounded to percent. SARI is the mean over
1- to 4-grams of keeping and adding (F1) and deleting (precision), of Xu et al., TACL 2016.
"""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher

from cpt_bench.errors import CptBenchError
from cpt_bench.suite import Sample


def equal(reply: str, sample: Sample) -> float:
    """1 when the reply is the gold answer, letter by letter."""
    return float(reply.strip() == sample.answers[0].strip() != "")


def first_letter(reply: str, sample: Sample) -> float:
    """1 when the reply begins with the character that the gold answer begins with."""
    return float(reply[:1] == sample.answers[0][:1] != "")


def rouge_l(reply: str, sample: Sample) -> float:
    """ROUGE-L F of the package ``rouge``, 1.0.1."""
    try:
        from rouge import Rouge
    except ModuleNotFoundError:
        todo = "Install it with: pip install rouge==1.0.1"
        raise CptBenchError("this grader needs rouge", where="trace", todo=todo) from None
    if not reply.strip(" .\n") or not sample.answers[0].strip(" .\n"):
        return 0.0
    scores = Rouge(metrics=["rouge-l"]).get_scores(sample.answers[0], reply, avg=True)
    return round(float(scores["rouge-l"]["f"]), 7)  # its f is 5e-9 short of 1 at best


_LITERAL = re.compile(r"<(STR|NUM|CHAR)_LIT:(.*?)>", re.S)


def literals(code: str) -> str:
    """Code with Py150's marks of literals replaced by what they stand for."""
    for mark, plain in (("<NUM_LIT>", "0"), ("<STR_LIT>", ""), ("<CHAR_LIT>", "")):
        code = code.replace(mark, plain)
    return _LITERAL.sub(lambda found: found[2], code)


def edit_similarity(reply: str, sample: Sample) -> float:
    """How much of reply and gold is common, in whole percent, as a share."""
    given, gold = literals(reply), literals(sample.answers[0])
    if not given or not gold:
        return 0.0
    return round(100 * SequenceMatcher(None, given, gold).ratio()) / 100


def sari(reply: str, sample: Sample) -> float:
    """SARI of a reply against one reference; the source is the question, in ``category``."""
    texts = [_words(text) for text in (sample.category, reply, *sample.answers)]
    scores = [_sari(*(_grams(text, n) for text in texts)) for n in (1, 2, 3, 4)]
    return sum(scores) / len(scores)


def _words(text: str) -> list[str]:
    """Lower-case words, signs apart: the split that sacrebleu's 13a makes of plain text."""
    plain = re.sub(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 ", f" {text.lower()} ")
    plain = re.sub(r"([^0-9])([\.,])", r"\1 \2 ", plain)
    plain = re.sub(r"([\.,])([^0-9])", r" \1 \2", plain)
    return re.sub(r"([0-9])(-)", r"\1 \2 ", plain).split()


def _grams(words: list[str], n: int) -> Counter[str]:
    return Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))


def _sari(source: Counter[str], reply: Counter[str], *golds: Counter[str]) -> float:
    """The mean of keep, delete and add for one length of n-grams."""
    many = len(golds)
    gold: Counter[str] = sum(golds, Counter())
    before = Counter({gram: count * many for gram, count in source.items()})
    after = Counter({gram: count * many for gram, count in reply.items()})

    kept, good = before & after, before & gold
    right = kept & gold
    precision = _mean([right[gram] / kept[gram] for gram in right], len(kept))
    recall = _ratio(sum(right.values()), sum(good.values()))
    keep = 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    gone = before - after
    delete = _mean([(gone - gold)[gram] / gone[gram] for gram in gone], len(gone))

    new, wanted = set(after) - set(before), set(gold) - set(before)
    precision, recall = _ratio(len(new & wanted), len(new)), _ratio(len(new & wanted), len(wanted))
    add = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return (keep + delete + add) / 3


def _mean(values: list[float], n: int) -> float:
    return sum(values) / n if n else 1.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
