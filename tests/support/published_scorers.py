"""The data sets' own scorers, rebuilt from their definitions, to hold ours against.

Plain and literal, quirks included, and written apart from ``cpt_bench.grading``: nothing of ours is
imported here. Where the published code guesses at random, these give None. Ours may be cleverer;
``test_agreement`` lists every kind of reply on which it then says something else, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# ------------------------------------------------------------------------------------- MMMU

SIGNALS = ["could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result "]
WITH_COMMAS = r"-?\b\d{1,3}(?:,\d{3})+\b"
WITH_EXPONENT = r"-?\d+(?:\.\d+)?[eE][+-]?\d+"
WITHOUT_EITHER = r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"


def mmmu_letter(reply: str, options: dict[str, str]) -> str | None:
    """MMMU: '(X)' anywhere, else ' X ', else an option's words in a reply of more than 5 words."""
    for mark in [",", ".", "!", "?", ";", ":", "'"]:
        reply = reply.strip(mark)
    reply = " " + reply + " "
    places = {x: reply.rfind(f"({x})") for x in options}
    if max(places.values()) < 0:
        places = {x: reply.rfind(f" {x} ") for x in options}
    if max(places.values()) < 0 and len(reply.split()) > 5:
        places = {x: reply.lower().rfind(words.lower()) for x, words in options.items()}
    last = max(places.values())
    return None if last < 0 else next(x for x in options if places[x] == last)


def mmmu_forms(text: str) -> list[str | float]:
    """MMMU: a number to two decimals; words in lower case; one character only beside a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        pass
    text = text.lower()
    return [" " + text, text + " "] if len(text) == 1 else [text]


def mmmu_said(reply: str) -> list[str | float]:
    """MMMU: all that an open reply is taken to say."""
    reply = reply.strip().strip(".").lower()
    lines, pieces = re.split(r"\.\s(?=[A-Z])|\n", reply), []
    for number, line in enumerate(lines, 1):
        shortest = None
        for signal in SIGNALS + (["="] if number == len(lines) else []):
            if signal not in line:
                continue
            tail = line.split(signal)[-1].strip()
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in [":", ",", ".", "!", "?", ";", "'"]:
            pieces.append(shortest)
    pieces = pieces or [reply]
    numbers = []
    for piece in pieces:
        for pattern in (WITH_COMMAS, WITH_EXPONENT, WITHOUT_EITHER):
            numbers += re.findall(pattern, piece)
    return [form for piece in pieces + numbers for form in mmmu_forms(piece)]


def mmmu_open(reply: str, golds: Sequence[str]) -> bool:
    """MMMU: a gold number among the numbers said, or gold words inside what was said."""
    wanted = [form for gold in golds for form in mmmu_forms(gold)]
    for said in mmmu_said(reply):
        if isinstance(said, float):
            if said in wanted:
                return True
        elif any(isinstance(gold, str) and gold in said for gold in wanted):
            return True
    return False


# --------------------------------------------------------------------------------- MMLU-Pro


def mmlu_pro(reply: str, level: int) -> str | None:
    """MMLU-Pro's first pattern, its first two, or all three."""
    patterns = [r"answer is \(?([A-J])\)?", r".*[aA]nswer:\s*([A-J])"]
    for pattern in patterns[:level]:
        found = re.search(pattern, reply)
        if found:
            return found[1]
    last = re.search(r"\b[A-J]\b(?!.*\b[A-J]\b)", reply, re.DOTALL) if level == 3 else None
    return last[0] if last else None


# -------------------------------------------------------------------------------- ScienceQA


def scienceqa(reply: str, n_options: int) -> str | None:
    """LLaVA's: one of A to E alone or with '. ' behind it in front, else one sentence."""
    five = ["A", "B", "C", "D", "E"]
    if reply in five:
        said = reply
    elif len(reply) >= 3 and reply[0] in five and reply[1:3] == ". ":
        said = reply[0]
    else:
        sentences = re.findall(r"The answer is ([A-Z]).", reply)
        said = sentences[0] if len(sentences) == 1 else "FAILED"
    return said if said in five[:n_options] else None


# ------------------------------------------------------------------------------------- POPE


def pope(reply: str) -> str:
    """POPE: no where the first sentence has the word No, no or not, else yes."""
    words = reply.split(".")[0].replace(",", "").split(" ")
    return "no" if "No" in words or "not" in words or "no" in words else "yes"


def pope_figures(said: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """POPE: accuracy, precision, recall, F1 and the share of yes, from the four counts."""
    pairs = list(zip(said, golds, strict=True))
    tp, fp = pairs.count(("yes", "yes")), pairs.count(("yes", "no"))
    tn, fn = pairs.count(("no", "no")), pairs.count(("no", "yes"))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return {
        "accuracy": (tp + tn) / (tp + tn + fp + fn),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_share": (tp + fp) / len(pairs),
    }


# -------------------------------------------------------------------------------------- VQA

PUNCTUATION = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@",
               "`", ",", "?", "!"]  # fmt: skip
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def vqa_words(text: str, contractions: dict[str, str]) -> str:
    """VQA: punctuation, full stops, number words, articles and contractions."""
    out = text
    for mark in PUNCTUATION:
        drop = mark + " " in text or " " + mark in text or re.search(r"\d,\d", text) is not None
        out = out.replace(mark, "" if drop else " ")
    out = re.sub(r"(?!<=\d)\.(?!\d)", "", out, count=32)
    words = []
    for word in out.lower().split():
        word = "0" if word == "none" else str(NUMBERS.index(word)) if word in NUMBERS else word
        if word not in ("a", "an", "the"):
            words.append(contractions.get(word, word))
    return " ".join(words)


def vqa(reply: str, annotators: Sequence[str], contractions: dict[str, str]) -> float:
    """The VQA evaluation: normalised only where the annotators do not all agree."""
    reply, *annotators = (
        text.replace("\n", " ").replace("\t", " ").strip() for text in (reply, *annotators)
    )
    if len(set(annotators)) > 1:
        annotators = [vqa_words(text, contractions) for text in annotators]
        reply = vqa_words(reply, contractions)
    return leave_one_out(reply, annotators)


def textvqa(reply: str, annotators: Sequence[str], contractions: dict[str, str]) -> float:
    """TextVQA's: always normalised, a possessive apart, commas and question marks dropped."""
    forms = []
    for text in (reply, *annotators):
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
        text = text.replace("\n", " ").replace("\t", " ").strip()
        forms.append(vqa_words(text, contractions))
    return leave_one_out(forms[0], forms[1:])


def leave_one_out(reply: str, annotators: Sequence[str]) -> float:
    """The mean over all sets without one annotator of min(1, matches / 3)."""
    scores = []
    for left_out in range(len(annotators)):
        others = [a for i, a in enumerate(annotators) if i != left_out]
        scores.append(min(1.0, others.count(reply) / 3))
    return sum(scores) / len(scores)
