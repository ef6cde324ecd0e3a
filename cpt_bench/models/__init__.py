"""Checkpoints in Hugging Face format, their processors, and the quick path on a CPU."""
