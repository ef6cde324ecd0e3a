"""General benchmarks measured by the field's own harnesses: lm-eval and VLMEvalKit.

``--general lm-eval:mmlu_pro`` or ``--general vlmevalkit:POPE`` names one. Which evaluator, which
version and which of its tasks made a number is part of the number: it stands in the provenance
file beside the per-sample scores, and in the benchmark's name in the metrics. A suite measures its
own general benchmarks with its own graders as well, so that no run depends on a second harness.

Neither harness may answer from a cache: both key theirs without the weights, and would return the
last stage's answers for this one. What is kept here is kept by the weights' digest.
"""

from cpt_bench.general.measurement import (
    EVALUATORS,
    Measured,
    Spec,
    delta,
    display_name,
    evaluator,
    found_in,
    installed,
    parse,
    paths,
    read,
    write,
)

__all__ = [
    "EVALUATORS",
    "Measured",
    "Spec",
    "delta",
    "display_name",
    "evaluator",
    "found_in",
    "installed",
    "parse",
    "paths",
    "read",
    "write",
]
