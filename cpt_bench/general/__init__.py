"""General benchmarks measured by the field's own harnesses: lm-eval and VLMEvalKit.

``--general lm-eval:mmlu_pro`` or ``--general vlmevalkit:POPE`` names one. The evaluator, its
version and its task are part of each number: they are written to the provenance file next to the
per-sample scores, and into the benchmark's name in the metrics. A suite also measures its own
general benchmarks with its own graders, so that no run depends on a second harness.

Neither harness may answer from its cache: the keys of both caches do not include the weights, so
that they would return the previous stage's answers. Results stored here are keyed by the weights'
digest.
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
