"""Qwen2.5-VL in float32 on a CPU: the numbers of transformers, up to rounding, in less time.

:mod:`cpt_bench.models.quick` chooses it; nothing else imports it.
"""
