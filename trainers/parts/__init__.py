"""Parts that combine with SFT and with RFT: replay, penalties on the loss, rules for adapters.

Each part is one file with its paper and equation; :mod:`cpt_bench.trainers.parts.part` describes
when a trainer calls it. A setting switches a part on (``--set replay=100``), under any trainer.
"""
