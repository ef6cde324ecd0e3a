"""What worker processes do: a module for each kind of job.

A job is plain data, so that it reaches a worker by pickling and could as well be JSON. Each module
imports no more than its job needs: the digest of that code is part of the step's key
(:mod:`cpt_bench.run.code`).
"""
