"""What combines with SFT and with RFT: replay, penalties on the loss, rules for adapters.

Each part is one file with its paper and equation; :mod:`cpt_bench.trainers.parts.part` says how a
trainer meets them. A part is switched on by a setting (``--set replay=100``), under any trainer.
"""
