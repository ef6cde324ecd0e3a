"""One resolver for everything that has a name: trainers, suites, graders, engines.

Four spellings: a built-in name (``rft``); ``package/name`` of an installed package, or
``folder/name`` of a folder that ``$CPTBENCH_PLUGINS`` names; a place in Python (``module:Class``);
a file (``./file.py:Class``).

What a folder offers stands in its ``plugins.yaml``: name to target and one line about it, so that
listing imports nothing. The folders of this package are read like everybody else's. Suites need no
line: a folder with a ``suite.yaml`` in such a folder is one. ``docs/plugins.md`` has the format.

A name is sought in the folder that it names, and in no other: trainers are found again where they
train, and the folders of suites are closed to them there.
"""

from cpt_bench.plugins.imports import code_files
from cpt_bench.plugins.index import (
    SUITE,
    Offer,
    builtin,
    default,
    folders,
    package_folder,
    preloaded,
    suite_folders,
)
from cpt_bench.plugins.resolving import (
    Listing,
    Located,
    Resolved,
    code_digest,
    listing,
    load,
    locate,
    resolve,
    value_of,
)

__all__ = [
    "SUITE",
    "Listing",
    "Located",
    "Offer",
    "Resolved",
    "builtin",
    "code_digest",
    "code_files",
    "default",
    "folders",
    "listing",
    "load",
    "locate",
    "package_folder",
    "preloaded",
    "resolve",
    "suite_folders",
    "value_of",
]
