"""Checkpoints in Hugging Face format, and what differs between families of models."""
