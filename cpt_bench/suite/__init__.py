"""What a benchmark is: suites, tasks, samples and the protocol, as declared data.

A suite is a folder: ``suite.yaml`` and one card a task. Everything that makes two numbers
comparable stands there and nowhere else: order, splits with their hashes, prompts, decoding,
grader, version. Nothing here knows torch or a task by name.
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
