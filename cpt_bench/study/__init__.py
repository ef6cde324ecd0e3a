"""Tests published claims on stored runs: figures, fits and verdicts, recomputed by one command.

The runs are those of ``docs/study/sweep.yaml``, the claims those of ``docs/study/claims.yaml``.
Nothing here trains, and nothing needs torch.
"""
