"""What stored runs say of published claims: figures, laws and verdicts, recomputed by one command.

The runs are those of ``docs/study/sweep.yaml``, the claims those of ``docs/study/claims.yaml``.
Nothing here trains, and nothing needs torch.
"""
