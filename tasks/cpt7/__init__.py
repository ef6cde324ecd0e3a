"""The cpt7 suite: seven published data sets in sequence, three general benchmarks."""

from pathlib import Path

FOLDER = Path(__file__).parent
