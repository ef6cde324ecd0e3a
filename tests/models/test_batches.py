"""Batches of prompts with the same number of pictures."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cpt_bench.models.batches import of_equal_pictures

PROMPTS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=30)


@given(PROMPTS, st.integers(1, 7), st.integers(1, 20))
def test_each_prompt_is_in_one_batch_with_its_like(
    prompts: list[tuple[int, int]], most: int, cells: int
) -> None:
    pictures, lengths = [p for p, _ in prompts], [n for _, n in prompts]

    def fitting(ahead: Sequence[int]) -> int:
        return max(1, cells // lengths[ahead[-1]])

    for fits in (len, fitting):
        found = list(of_equal_pictures(pictures, lengths, most, fits))
        assert sorted(i for batch in found for i in batch) == list(range(len(prompts)))
        # By pictures, then by length, then as they came.
        assert [i for batch in found for i in batch] == sorted(
            range(len(prompts)), key=lambda i: (*prompts[i], i)
        )
        for batch in found:
            assert 1 <= len(batch) <= most and len({pictures[i] for i in batch}) == 1
            if fits is fitting and len(batch) > 1:
                assert len(batch) * max(lengths[i] for i in batch) <= cells


def test_a_batch_is_as_large_as_it_may_be() -> None:
    assert list(of_equal_pictures([1, 0, 1, 0, 1], [1] * 5, 2)) == [[1, 3], [0, 2], [4]]
    assert list(of_equal_pictures([0, 0, 1], [1] * 3, 4)) == [[0, 1], [2]]
