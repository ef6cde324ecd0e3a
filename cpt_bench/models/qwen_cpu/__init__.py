"""Qwen2.5-VL arranged for float32 on a CPU: the same numbers, to rounding, in less time."""
