"""Batches of prompts that a processor encodes together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


def of_equal_pictures(
    pictures: Sequence[int],
    lengths: Sequence[int],
    most: int,
    fitting: Callable[[Sequence[int]], int] = len,
) -> Iterator[list[int]]:
    """Batches of prompts that have the same number of pictures and similar lengths.

    A processor takes pictures for each prompt of a batch or for none, and the closer the lengths,
    the less padding a batch has.

    Args:
        pictures: How many pictures each prompt has.
        lengths: How long each prompt is, in any unit.
        most: Prompts in a batch, at most.
        fitting: How many of the next prompts fit into a batch. It is given their numbers, by
            rising length.

    Yields:
        The prompts of a batch, by number; all batches together have each prompt once.
    """
    order = sorted(range(len(pictures)), key=lambda i: (pictures[i], lengths[i], i))
    done = 0
    while done < len(order):
        ahead = order[done : done + most]
        alike = [i for i in ahead if pictures[i] == pictures[ahead[0]]]
        batch = alike[: fitting(alike)]
        yield batch
        done += len(batch)
