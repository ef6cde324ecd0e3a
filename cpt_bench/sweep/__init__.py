"""Many runs from one file: trainers x recipes x seeds x orders x learning rates.

A sweep decides which runs there are, which of them share stages, and when each may start. Each run
is a ``cptbench run`` in a separate process, on this machine or on a Ray cluster; finished steps are
in the runs' own ledgers, so that the same command resumes after any interruption.
"""
