"""The nano suite: seven small tasks and three general probes, made from a seed."""

from pathlib import Path

FOLDER = Path(__file__).parent
