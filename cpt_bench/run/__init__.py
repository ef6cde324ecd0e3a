"""The sequence: train a stage, evaluate it, go on from there; every step in the ledger."""
