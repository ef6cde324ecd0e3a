"""Many runs from one file: trainers x recipes x seeds x orders x learning rates.

A sweep decides which runs there are, which of them share stages, and when each may start. The
doing is that of ``cptbench run``, in a process a run, on this machine or on a Ray cluster; what is
done is in each run's own ledger, so that the same command goes on after any interruption.
"""
