"""Defines a benchmark as declared data: suites, tasks, samples and the protocol.

A suite is a folder with ``suite.yaml`` and one card per task. Everything that makes two numbers
comparable is there and nowhere else: order, splits with their hashes, prompts, decoding, grader,
version. Nothing here imports torch or names a task.
"""

from cpt_bench.suite.cards import Sample, TaskCard
from cpt_bench.suite.protocol import AnswerForm, Decoding, Protocol, RewardWeights, Style
from cpt_bench.suite.reading import load_suite, open_suite
from cpt_bench.suite.suite import Suite

__all__ = [
    "AnswerForm",
    "Decoding",
    "Protocol",
    "RewardWeights",
    "Sample",
    "Style",
    "Suite",
    "TaskCard",
    "load_suite",
    "open_suite",
]
