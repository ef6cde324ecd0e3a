"""Is a suite in order? What ``cptbench suite check`` looks at, each finding with a cure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from cpt_bench.advice.again import Finding, made_again
from cpt_bench.advice.apart import Splits, across_tasks, apart
from cpt_bench.advice.pins import (
    Written,
    is_pinned,
    pinned,
    sized,
    sized_otherwise,
    unnamed_overlays,
)
from cpt_bench.errors import CptBenchError, shown
from cpt_bench.evaluation.predictions import matcher_of
from cpt_bench.grading import Matcher, grade
from cpt_bench.images import decode
from cpt_bench.sources import load_split
from cpt_bench.sources.checks import problem_of
from cpt_bench.sources.mapping import is_number
from cpt_bench.sources.pictures import check_picture
from cpt_bench.suite import Protocol, Sample, Suite, TaskCard, open_suite

ASKED, SHOWN, WRONG = 500, 2000, 10
"""The most samples of a split whose gold is graded, pictures that are decoded, and wrong replies
that are graded for a sample."""

LARGEST = 0.8
"""The share of the most frequent answer from which a task is called one-sided."""

SIDES = (0.0, 95.0)
"""A base model's accuracy in percent, from which on a task shows neither learning nor loss."""


def check(
    spec: str, *, write: bool = False, tell: Callable[[str], None] = lambda line: None
) -> list[Finding]:
    """Look at a suite, without any model.

    Args:
        spec: The suite.
        write: Write each split's hash and size into its card, if nothing is wrong with it.
        tell: Receives the name of what is looked at.

    Raises:
        CptBenchError: ``suite.yaml`` or a card cannot be read.
    """
    suite = open_suite(spec)
    found: list[Finding] = []
    written: Written | None = {} if write else None
    variants = [*sized_otherwise(suite)]
    made: dict[str, Splits] = {}
    for name in (*suite.sequence, *suite.general):
        tell(name)
        made[name] = {}
        found += _task(suite, suite.card(name), written, made[name])
    for other, name in variants:
        title = f"{name}@{other.variant.tag}"
        tell(title)
        for one in _task(other, other.card(name), written, {}):
            found.append(one._replace(place=one.place.replace(name, title, 1)))
    found += across_tasks(suite, made)
    if write:
        suite = open_suite(spec)
    found += unnamed_overlays(suite)
    found += _prompts(suite)
    if not any(finding.ok is False for finding in found):
        found += made_again(suite)
    return found


# -------------------------------------------------------------------------------------- a task


def _task(
    suite: Suite, card: TaskCard, written: Written | None, splits: Splits
) -> Iterator[Finding]:
    """What is found about a task; its samples are put into ``splits``."""
    write = written is not None
    for split in card.splits:
        try:
            card = sized(suite, card, split) if write else card
            splits[split] = load_split(card, split, check=not write and is_pinned(card, split))
        except CptBenchError as error:
            place = error.where.removeprefix(f"task {card.name}").removeprefix(f", {split} split")
            what = f"{place.removeprefix(': ')}: {error.what}" if place else error.what
            yield Finding(f"{card.name}/{split}", False, what, error.todo)
    if not splits:
        return
    try:
        matcher = matcher_of(card)
    except CptBenchError as error:
        what = f"grader {card.grader}: {error.what}"
        yield Finding(card.name, False, what, error.todo or "Correct the grader")
        return
    found = [
        finding
        for split, samples in splits.items()
        for finding in (
            *_samples(card, split, samples),
            *_pictures(card, split, samples),
            *_gold(card, split, samples, suite.protocol, matcher),
        )
    ]
    if "test" in splits:
        found += _wrong(card, splits["test"], suite.protocol, matcher)
        found += _one_sided(card, splits["test"])
    if {"train", "test"} <= splits.keys():
        found += apart(card, splits["train"], splits["test"])
    if card.licence.strip().lower() in ("", "unknown", "todo", "?"):
        what, cure = f"its licence is {card.licence!r}", "Name the data's licence in the card"
        found.append(Finding(card.name, None, what, cure))
    yield from found
    whole = len(splits) == len(card.splits) and not any(f.ok is False for f in found)
    for split in splits:
        yield from pinned(suite, card, split, written if whole else None)


def _samples(card: TaskCard, split: str, samples: Sequence[Sample]) -> Iterator[Finding]:
    place = f"{card.name}/{split}"
    published = card.splits[split].n
    if len(samples) != published:
        yield Finding(
            place,
            False,
            f"{len(samples)} samples, not {published}",
            f"Set splits.{split}.n: {len(samples)}",
        )
    twice = [name for name, count in Counter(s.id for s in samples).items() if count > 1]
    if twice:
        yield Finding(
            place,
            False,
            f"the id {twice[0]!r} occurs more than once",
            "Give each sample an id of its own",
        )
    for sample in samples:
        if sample.kind == "letter" and not sample.choices:
            continue  # its letters stand in the question's words alone
        if problem := problem_of(sample, False, card.answer_kinds):
            cure = "Correct it, or leave it out; answer_kinds names the kinds that a task may have"
            yield Finding(place, False, f"{sample.id}: {problem}", cure)
            return
    yield from _choices(place, samples)
    golds: dict[tuple[object, ...], Sample] = {}
    for sample in samples:
        first = golds.setdefault((sample.question, tuple(sample.images)), sample)
        if first.answers[0] != sample.answers[0] and split == "test":
            what = f"{first.id} and {sample.id} are one question with two gold answers"
            yield Finding(place, None, what, "Give all accepted answers in one sample")
            return


def _choices(place: str, samples: Sequence[Sample]) -> Iterator[Finding]:
    """Whether a question shows its choices, each once."""
    lettered = [sample for sample in samples if sample.choices and sample.kind == "letter"]
    alike = [s for s in lettered if len({c.casefold() for c in s.choices}) < len(s.choices)]
    if alike:
        what = f"{alike[0].id}: two of its choices are the same"
        yield Finding(place, None, what, "Only one of the two letters is right: leave it out")
    hidden = [s for s in lettered if not all(c.strip() in s.question for c in s.choices)]
    if lettered and len(hidden) == len(lettered):
        what = f"no question shows its choices ({hidden[0].id})"
        yield Finding(
            place, None, what, "Put {options} into map.question, unless pictures show them"
        )


def _pictures(card: TaskCard, split: str, samples: Sequence[Sample]) -> Iterator[Finding]:
    place, seen = f"{card.name}/{split}", set[bytes]()
    for sample in samples:
        for image in sample.images:
            if image in seen or len(seen) >= SHOWN:
                continue
            seen.add(image)
            try:
                check_picture(image, sample.id, "")
                decode(image, f"{sample.id}")
            except CptBenchError as error:
                yield Finding(place, False, str(error), "Save the picture again, or leave it out")
                return


# -------------------------------------------------------------------------------------- grading


def _gold(
    card: TaskCard, split: str, samples: Sequence[Sample], protocol: Protocol, matcher: Matcher
) -> Iterator[Finding]:
    """A gold answer in the protocol's form must earn 1."""
    place = f"{card.name}/{split}"
    for sample in samples[:ASKED]:
        try:
            score = matcher(sample.answers[0], sample)
            if not isinstance(score, int | float) or not 0 <= score <= 1:
                what = f"grader {card.grader} gave {shown(score)} to {sample.id}"
                yield Finding(place, False, what, "A grader returns a number from 0 to 1")
                return
            if (again := matcher(sample.answers[0], sample)) != score:
                yield Finding(place, False, *_unsteady(card, sample, score, again))
                return
            got = grade(protocol.target(sample.answers[0]), sample, protocol.form, matcher)
        except CptBenchError as error:
            yield Finding(place, False, error.what, error.todo or "Choose another grader")
            return
        except (Exception, SystemExit) as error:  # a plug-in's: anything may be wrong with it
            what = f"grader {card.grader} failed on {sample.id} ({type(error).__name__}: {error})"
            yield Finding(place, False, " ".join(what.split()), "Correct the grader")
            return
        if got.score < 1 or not got.format_ok:
            reply = protocol.target(sample.answers[0])
            earned = f"earns {got.score:g}" if got.format_ok else "does not have the form"
            what = f"{sample.id}: its gold answer, written as {shown(reply)}, {earned}"
            yield Finding(
                place,
                False,
                what,
                f"Choose another grader than {card.grader}, or correct the form or the gold",
            )
            return


def _unsteady(card: TaskCard, sample: Sample, score: float, again: float) -> tuple[str, str]:
    """The line and the cure for a grader that scores one answer in two ways."""
    what = f"grader {card.grader} gave {score:g} and then {again:g} to one answer to {sample.id}"
    return what, "A grader is a function of answer and sample alone: no chance, no memory"


def _wrong(
    card: TaskCard, samples: Sequence[Sample], protocol: Protocol, matcher: Matcher
) -> Iterator[Finding]:
    """Ten wrong replies to each of some questions must earn nothing."""
    given: list[float] = []
    for sample in samples[:: max(1, len(samples) // 25)]:
        for answer in wrong_answers(sample, samples):
            try:
                score, again = (
                    grade(protocol.target(answer), sample, protocol.form, matcher).score
                    for _ in range(2)
                )
            except (Exception, SystemExit):  # reported for the gold answers
                continue
            if score != again:
                yield Finding(card.name, False, *_unsteady(card, sample, score, again))
                return
            given.append(score)
            if score >= 1:
                gold = shown(sample.answers[0])
                what = f"{sample.id}: {shown(answer)} earns 1, and the gold answer is {gold}"
                cure = "If both are right, give both as gold; if not, choose a stricter grader"
                yield Finding(card.name, False, what, cure)
                return
    if given and max(given) > 0:
        mean = sum(given) / len(given)
        earn = f"{mean:.2f} on average, and up to {max(given):.2f}"
        what = f"wrong answers earn {earn}: grader {card.grader} gives part credit"
        yield Finding(
            card.name, None, what, "Intended? Then say in the card's notes where its floor is"
        )
    elif given:
        what = f"gold answers earn 1, {len(given)} wrong ones earn 0"
        yield Finding(card.name, True, what)


def wrong_answers(sample: Sample, others: Sequence[Sample]) -> list[str]:
    """Up to ten answers to a question that are not its gold: other questions' gold, and none."""

    def plain(text: str) -> str:
        folded = " ".join(text.casefold().split()).rstrip(".")
        return (
            str(float(folded.replace(",", "")))
            if is_number(folded) and "/" not in folded
            else folded
        )

    right = {plain(x) for x in (*sample.answers, *sample.annotators)}
    if sample.kind == "letter" and sample.choices:
        place = ord(sample.answers[0].strip().upper()[:1] or "?") - ord("A")
        right |= {plain(c) for i, c in enumerate(sample.choices) if i == place}
        rest = [chr(ord("A") + i) for i in range(len(sample.choices)) if i != place]
    elif sample.kind == "yesno":
        rest = ["yes", "no"]
    else:
        rest = [other.answers[0] for other in others[:200]]
    made = [x for x in dict.fromkeys((*rest, "I do not know", "qqq")) if plain(x) not in right]
    return made[-WRONG:]


def _one_sided(card: TaskCard, samples: Sequence[Sample]) -> Iterator[Finding]:
    answer, count = Counter(s.answers[0].casefold() for s in samples).most_common(1)[0]
    share = count / len(samples)
    if share >= LARGEST and len(samples) > 1:
        what = f"{100 * share:.0f} % of its answers are {shown(answer)}"
        what += ": always answering this looks good"
        yield Finding(
            card.name, None, what, "Balance the answers with source.where, or draw others"
        )


# -------------------------------------------------------------------------------------- a suite


def _prompts(suite: Suite) -> Iterator[Finding]:
    form, prompts = suite.protocol.form, suite.protocol.prompts
    named = "\n".join(prompts.values()) + "".join(c.instruction for c in suite.cards.values())
    if form.kind == "" and form.open not in named:
        what = f"no prompt names {form.open}, in which an answer has to stand"
        cure = "Say so in the prompt, or learning the form will look like learning the task"
        yield Finding(suite.name, None, what, cure)
    for style, text in prompts.items():
        rest = text.replace("{question}", "")
        if "{" in rest.replace("\\boxed{", "") and "}" in rest.replace("\\boxed{}", ""):
            what = f"prompt {style} has braces besides {{question}}, which stay as they are"
            yield Finding(suite.name, None, what, "Put columns into the card's map.question")
    used = {*suite.sequence, *suite.general, "suite"}
    spare = [
        file.name
        for file in sorted(suite.folder.glob("*.yaml"))
        if file.stem not in used and file.stem != "plugins"
    ]
    if spare:
        what = f"no sequence names {', '.join(spare)}"
        yield Finding(
            suite.name, None, what, "Name the task under sequence or general, or remove the file"
        )
