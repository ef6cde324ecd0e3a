"""What has never run on a GPU, turned into measurements by one command.

    python -m benchmarks.gpu --minutes 8 --out FOLDER

runs the parts of :mod:`benchmarks.gpu.parts` in order of worth, each in a process of its own, and
writes ``FOLDER/<part>.json`` as soon as one is done. Nothing is downloaded; cptbench itself need
not be installed. ``make gpu-wheels`` collects the packages that such a machine lacks.
"""
