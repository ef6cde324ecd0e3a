"""cpt7 as it is declared: its sequence, sizes, variants, prompts and published lists of ids."""

from __future__ import annotations

import pytest

pytest.importorskip("datasets")
from cpt_bench.errors import CptBenchError
from cpt_bench.files import read_json
from cpt_bench.sources.cache import ids_digest
from cpt_bench.suite import open_suite
from cpt_bench.suite.origins import Hub
from tests.support.cpt7_fixtures import GENERAL, TASKS
from tests.support.places import PUBLISHED


def test_published_id_lists_are_those_of_the_rule() -> None:
    from cpt_bench.tasks.cpt7.publish import known_ids, listed

    checked = 0
    for tier in ("full", "mini"):
        suite = open_suite(f"cpt7@{tier}")
        for name, card in suite.cards.items():
            for split, published in card.splits.items():
                ids = known_ids(name, split)
                if ids is None:
                    continue
                assert published.ids == ids_digest(listed(ids, published)), (
                    name,
                    split,
                    tier,
                )
                checked += 1
    assert checked >= 16


def test_published_id_lists_of_mmlu_pro_and_mmmu_are_of_the_published_ids() -> None:
    import json
    import zipfile

    published = PUBLISHED
    if not published.is_dir():
        pytest.skip("the published outputs are not here")
    with zipfile.ZipFile(published / "mmlu_pro/model_outputs_Llama-2-7b-hf_5shots.zip") as archive:
        rows = json.loads(archive.read(archive.namelist()[0]))
    ids = {"mmlu_pro": [str(row["question_id"]) for row in rows],
           "mmmu": list(read_json(published / "mmmu/answer_dict_val.json"))}  # fmt: skip
    from cpt_bench.tasks.cpt7.publish import listed

    for name, known in ids.items():
        split = open_suite("cpt7@mini").card(name).splits["test"]
        assert split.ids == ids_digest(listed(known, split))


def test_the_paper_s_prompts_word_for_word() -> None:
    paper = open_suite("cpt7@paper")
    assert paper.protocol.prompt("Q") == (
        "Q You FIRST think about the reasoning process as an internal monologue and then provide the final "
        "answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST "
        "BE put in \\boxed{}."
    )  # fmt: skip
    assert (
        open_suite("cpt7@paper.nocot").protocol.prompt("Q")
        == "Q You MUST provide the final answer directly."
    )
    assert paper.protocol.decoding.temperature == 0.5 and paper.protocol.reward.accuracy == 0.9
    assert paper.card("pathvqa").instruction == "" and paper.card("textvqa").instruction
    direct = open_suite("cpt7@paper.direct")
    assert (
        direct.card("geometry3k").instruction
        == "\nAnswer the question using a single word or phrase."
    )
    assert (direct.card("vizwiz").grader, direct.protocol.form.kind) == ("exact-case", "whole")
    assert direct.protocol.target("B") == "B" and paper.protocol.target("B") == "\\boxed{B}"
    assert direct.protocol.decoding.temperature == 0 and direct.protocol.reward.format == 0


@pytest.mark.parametrize(
    ("tag", "label", "style", "tier"),
    [
        ("cpt7", "cpt7", "neutral", "full"),
        ("cpt7@unified", "cpt7", "neutral", "full"),
        ("cpt7@full", "cpt7", "neutral", "full"),
        ("cpt7@mini", "cpt7-mini", "neutral", "mini"),
        ("cpt7@paper.reasoning", "cpt7-paper", "reasoning", "full"),
        ("cpt7@mini+paper.direct", "cpt7-paper-direct-mini", "direct", "mini"),
        ("cpt7@unified.direct", "cpt7-unified-direct", "direct", "full"),
    ],
)  # fmt: skip
def test_variants_by_name(tag: str, label: str, style: str, tier: str) -> None:
    from cpt_bench.suite import load_suite

    suite = open_suite(tag)
    assert (suite.label, suite.protocol.style, suite.tier) == (label, style, tier)
    assert load_suite(suite.place).fingerprint() == suite.fingerprint()  # what a worker opens


@pytest.mark.parametrize(
    ("tag", "complaint"),
    [
        ("cpt7@papr", "no protocol, tier or base model is called 'papr'. Did you mean 'paper'?"),
        ("cpt7@paper+unified", "names two protocols, two tiers or two base models"),
        ("cpt7@paper.cot", "protocol paper has no style 'cot'"),
        ("nano@mini", "no protocol, tier or base model is called 'mini'"),
    ],
)
def test_an_unknown_variant_is_named(tag: str, complaint: str) -> None:
    with pytest.raises(CptBenchError, match=complaint):
        open_suite(tag)


def test_cpt7_has_the_paper_s_sequence_and_sizes() -> None:
    suite = open_suite("cpt7")
    assert list(suite.sequence) == TASKS and list(suite.general) == GENERAL
    sizes = {n: [suite.card(n).splits[s].n for s in ("train", "test")] for n in TASKS}
    assert sizes == {
        "scienceqa": [6218, 2017], "textvqa": [34602, 5000], "vizwiz": [20523, 4319], "gqa": [80000, 12578],
        "geometry3k": [2101, 601], "pathvqa": [19654, 6719], "superclevr": [8000, 642],
    }  # fmt: skip
    assert [suite.card(n).splits["test"].n for n in GENERAL] == [900, 12032, 9000]
    mini = open_suite("cpt7@mini")
    assert {c.splits["test"].n for c in mini.cards.values()} == {240}
    assert {mini.card(n).splits["train"].n for n in TASKS} == {2000}
    for card in suite.cards.values():
        assert isinstance(card.source, Hub) and card.licence and card.citation and card.notes


def test_a_card_that_uses_nothing_new_is_the_same_card() -> None:
    """nano's fingerprint must not move: runs made before would no longer be scorable."""
    dump = open_suite("nano").model_dump(mode="json")
    assert "tier" not in dump and "kind" not in dump["protocol"]["form"]
    assert set(dump["protocol"]["decoding"]) == {"max_new_tokens"}
    card = dump["cards"]["science"]
    assert set(card["splits"]["test"]) == {"n", "sha256"} and set(card["source"]) == {
        "kind",
        "target",
        "options",
    }
    assert not {"instruction", "notes"} & set(card)
