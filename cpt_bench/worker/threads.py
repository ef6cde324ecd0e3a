"""CPU settings of a worker process."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def set_threads(threads: int) -> None:
    """Compute on ``threads`` cores, and reuse the memory of freed tensors.

    Tensors of a megabyte come and go with each operation. glibc would return each to the system,
    which clears the pages again: a third of the time of an evaluation.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    with contextlib.suppress(OSError, TypeError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
