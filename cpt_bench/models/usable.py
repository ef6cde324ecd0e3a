"""A torchvision that was built for another torch is hidden, so that everything goes on without it.

transformers takes whatever is installed under that name, and then opens no model at all: it fails
in the middle of its own imports. The models here do without torchvision. This has to be called
before transformers is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

NAME = "torchvision"


def hide_unusable_torchvision() -> bool:
    """Whether torchvision is installed and does not import; then nobody finds it any more."""
    if NAME in sys.modules:
        return sys.modules[NAME] is None
    if importlib.util.find_spec(NAME) is None:
        return False
    try:
        importlib.import_module(NAME)
    except Exception:  # whatever a library for another torch raises
        for module in [name for name in sys.modules if name.partition(".")[0] == NAME]:
            del sys.modules[module]
        sys.modules[NAME] = None  # type: ignore[assignment]  # to import and to find_spec: not there
        return True
    return False
