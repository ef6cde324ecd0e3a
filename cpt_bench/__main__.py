"""``python -m cpt_bench`` is ``cptbench``."""

from cpt_bench.cli.main import entry

if __name__ == "__main__":
    entry()
