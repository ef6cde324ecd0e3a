"""Evaluates an engine on a task (graded predictions), and measures its KL to the base model."""
