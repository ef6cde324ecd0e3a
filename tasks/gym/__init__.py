"""The gym suite: text tasks made from a seed, on a small language model that was pre-trained."""

from pathlib import Path

FOLDER = Path(__file__).parent
