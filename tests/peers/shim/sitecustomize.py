"""Lets vLLM's CPU build run in an environment that plain pip made. Python imports it when it starts.

PyPI's torchvision is built for CUDA, and its extension cannot be loaded with a torch for CPUs. vLLM
takes from it only transforms of pictures, which need no extension; but on import torchvision
describes two of the extension's operators, which are declared here. Nothing needs audio or video:
torchaudio and torchcodec, which fail in the same way, are made to look absent. LLaMA-Factory, whose
environment this also mends, imports torchaudio whether or not it is there: it gets an empty one.

A torchvision that fits its torch is left alone.
"""

import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
import types

NOT_FOR_CUDA = "+cpu"


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return NOT_FOR_CUDA


class _Declare(importlib.abc.MetaPathFinder):
    """Declares the operators just before torchvision is imported; finds nothing itself."""

    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            sys.declared_for_torchvision = library  # its operators go when it does
        return None


if NOT_FOR_CUDA in _version("torch") and NOT_FOR_CUDA not in _version("torchvision"):
    sys.modules["torchaudio"] = sys.modules["torchcodec"] = None
    if _version("llamafactory") != NOT_FOR_CUDA:
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
        sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.meta_path.insert(0, _Declare())
