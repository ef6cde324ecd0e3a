"""The source reasoning-gym: splits made from seeds, entries found from ids, the package's scores."""

from __future__ import annotations

import os
import random
import string
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.grading import find_matcher
from cpt_bench.sources import load_split, reasoning_gym, require_packages, split_digest
from cpt_bench.suite import Sample, TaskCard
from cpt_bench.suite.origins import ReasoningGym, Split
from tests.support.stages import TINY

package = pytest.importorskip("reasoning_gym", reason="needs cptbench[gym]")

VERSION = "0.1.25"
SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def card(task: str = "chain_sum", n: int = 40, **source: object) -> TaskCard:
    given = {"settings": SUMS, "version": VERSION, "seeds": {"train": 1000, "test": 7}, **source}
    return TaskCard(
        name="t", title="t", description="t", version=1, grader="reasoning-gym", licence="x",
        source=ReasoningGym(kind="reasoning-gym", task=task, **given),  # type: ignore[arg-type]
        splits={"train": Split(n=2 * n, sha256=None), "test": Split(n=n, sha256=None)},
        answer_kinds=("number",), instruction=" Go.",
    )  # fmt: skip


def split(card: TaskCard, name: str) -> list[Sample]:
    return load_split(card, name, check=False)


def test_a_split_is_the_same_every_time_and_its_ids_make_its_entries_again() -> None:
    made = split(card(), "test")
    assert split_digest(made) == split_digest(split(card(), "test"))
    theirs = package.create_dataset("chain_sum", seed=7, size=500, **SUMS)
    for sample in made:
        entry = theirs[int(sample.id.rpartition("[")[2][:-1])]
        assert sample.question == entry["question"].strip() + " Go."
        assert sample.answers == (entry["answer"],)
    assert made[3].id.startswith("chain_sum(max_digits=1,max_terms=2,min_digits=1,min_terms=2,seed")


@pytest.mark.slow
def test_a_split_is_the_same_in_every_process() -> None:
    """ransom_note draws letters from a set, whose order differs with Python's seed of hashes."""
    program = (
        "import reasoning_gym as r; d = r.create_dataset('ransom_note', seed=7, size=9);"
        "print([d[i]['question'] for i in range(9)])"
    )
    as_package, as_ours = set(), set()
    ours = program.replace("import reasoning_gym as r; d = r.create_dataset('ransom_note', seed=7, size=9);", (
        "from cpt_bench.sources.reasoning_gym import _drawn, call_of;"
        "d = [{'question': q} for _, (q, _) in _drawn(call_of('ransom_note', {}, 7), 9)];"
    ))  # fmt: skip
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        for text, found in ((program, as_package), (ours, as_ours)):
            found.add(subprocess.check_output([sys.executable, "-c", text], env=env))
    assert (len(as_package), len(as_ours)) == (2, 1)


def test_no_test_question_is_in_the_train_split_even_where_seeds_overlap() -> None:
    near = card(seeds={"train": 8, "test": 7})  # the same questions, one place on
    asked = {reasoning_gym.words(s.question) for s in split(near, "test")}
    assert len(asked) == 40
    assert asked.isdisjoint(reasoning_gym.words(s.question) for s in split(near, "train"))


def test_questions_repeat_where_the_card_lets_them() -> None:
    assert len({s.question for s in split(card(repeats=True), "train")}) < 80
    assert len({s.question for s in split(card(), "train")}) == 80


def test_no_answer_is_the_gold_of_more_than_its_share() -> None:
    settings = {"invalid_ratio": 0.9}
    found = split(card("syllogism", settings=settings, most_alike=0.5), "test")
    assert [s.answers[0] for s in found].count("No") == 20
    raw = split(card("syllogism", settings=settings), "test")
    assert [s.answers[0] for s in raw].count("No") > 25


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"task": "chain_sums"}, "reasoning-gym refuses chain_sums"),
        ({"settings": {"terms": 2}}, "unexpected keyword argument 'terms'"),
        ({"settings": {"min_terms": 5, "max_terms": 2}}, "max_terms must be >= min_terms"),
        ({"version": "0.1.24"}, "reasoning-gym 0.1.25 is installed, and the questions are those of 0.1.24"),
        ({"seeds": {"train": 1}}, "no seed for the test split"),
        ({"n": 300}, "questions for the test split under these settings, not 300"),
    ],
)  # fmt: skip
def test_a_card_that_cannot_be_made_is_one_line(change: dict[str, object], line: str) -> None:
    with pytest.raises(CptBenchError) as raised:
        split(card(**{"task": "chain_sum", **change}), "test")  # type: ignore[arg-type]
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(reasoning_gym, "version", absent)
    for what in (
        lambda: split(card(), "test"),
        lambda: require_packages(TINY.model_copy(update={"cards": {"t": card()}})),
        lambda: reasoning_gym.Helper().ask("score", "chain_sum(seed=7)", 1, "1"),
    ):
        with pytest.raises(CptBenchError, match=r"not installed\. Install it with: pip install"):
            what()


@pytest.mark.parametrize(
    "id", ["7", "chain_sum(seed=7)", "chain_sum(seed=7)[x]", "text-test-00001"]
)
def test_an_id_of_another_source_is_refused(id: str) -> None:
    sample = Sample(id=id, question="?", answers=("1",), kind="number")
    with pytest.raises(CptBenchError, match="is not the id of a question of reasoning-gym"):
        find_matcher("reasoning-gym")("1", sample)


def test_an_id_is_data_and_is_never_run() -> None:
    with pytest.raises(CptBenchError, match="refuses"):
        reasoning_gym.score("1", "chain_sum(seed=__import__('os').getpid())[1]", "1")


def test_a_question_of_another_version_is_refused() -> None:
    sample = split(card(), "test")[0].model_copy(update={"answers": ("-999",)})
    with pytest.raises(CptBenchError, match="makes another question"):
        find_matcher("reasoning-gym")("1", sample)


# ------------------------------------------------------------------------ the package's own scores

TASKS = {
    "chain_sum": {}, "products": {}, "gcd": {"max_value": 50}, "lcm": {"max_value": 20},
    "syllogism": {}, "word_sorting": {}, "number_sorting": {},
    "spell_backward": {}, "palindrome_generation": {}, "needle_haystack": {"max_num_statements": 12},
    "simple_equations": {}, "calendar_arithmetic": {}, "base_conversion": {}, "binary_matrix": {},
    "rotate_matrix": {}, "string_manipulation": {}, "ab": {},
    "complex_arithmetic": {}, "family_relationships": {}, "letter_counting": {}, "count_bits": {},
    "jugs": {}, "caesar_cipher": {}, "number_sequence": {},
}  # fmt: skip
REPLIES = 10_000


def tempting(gold: str, others: list[str], rng: random.Random) -> list[str]:
    """Right replies, nearly right ones, and nonsense."""
    return [
        gold, f" {gold}", f"{gold}.", gold.lower(), gold.upper(), gold[::-1], gold[:-1], gold + "0",
        f"{gold} or {rng.choice(others)}", f"The answer is {gold}", gold.replace(" ", ""),
        gold.replace(",", ";"), f"not {gold}", f"<answer>{gold}</answer>", f"**{gold}**",
        rng.choice(others), f"{gold} {gold}", "", "-1", "0", "[]", "None", "nan", "1e400", "{", "\\x",
        "".join(rng.choices(string.printable, k=12)),
    ]  # fmt: skip


def test_scores_are_the_package_s_own_on_ten_thousand_replies() -> None:
    strict, partial = find_matcher("reasoning-gym"), find_matcher("reasoning-gym-partial")
    rng, compared, full, part = random.Random(0), 0, 0, 0
    each = -(-REPLIES // len(TASKS))
    for task, settings in TASKS.items():
        theirs = package.create_dataset(task, seed=31, size=100, **settings)
        entries = [theirs[i] for i in range(18)]
        golds = [str(entry["answer"]) for entry in entries]
        name = reasoning_gym.call_of(task, settings, 31)
        for i in range(each):
            entry = entries[i % 18]
            reply = rng.choice(tempting(str(entry["answer"]), golds, rng))
            sample = Sample(
                id=f"{name}[{i % 18}]", question="?", answers=(golds[i % 18],), kind="line"
            )
            right = theirs.score_answer(reply, entry)
            assert partial(reply, sample) == right, (task, reply)
            assert strict(reply, sample) == (1.0 if right >= 1 else 0.0), (task, reply)
            compared += 1
            full, part = full + (right >= 1), part + (0 < right < 1)
    assert compared >= REPLIES and full > 1000 and part > 1000
