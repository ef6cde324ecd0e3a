"""Joint multi-task training: all tasks at once, in one stage, in random order.

The usual upper bound (Caruana 1997; the "MTL" row of arXiv 2507.05386, table 1: one epoch of SFT
over the mix). It sees all data at once, which continual post-training by definition does not, so it
declares the privilege ``joint`` and is not a method to compare. The nano recipe draws as many
prompts as the seven stages of sequential training together.
"""

from __future__ import annotations

from cpt_bench.trainer import Privileges
from cpt_bench.trainers.rft import RFT
from cpt_bench.trainers.sft import SFT


class Joint(SFT):
    """SFT on every task's train split in one stage."""

    privileges = Privileges(joint=True)


class JointRFT(RFT):
    """RFT on every task's train split in one stage."""

    privileges = Privileges(joint=True)
