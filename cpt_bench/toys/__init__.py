"""Examples small enough to see through, that tie the theory of forgetting to code.

``python -m cpt_bench.toys.mixture`` and ``python -m cpt_bench.toys.digits`` run in seconds and
print what the published results say should come out; ``tests/toys/test_toys.py`` holds them to it.
"""
