"""Families of models in other programs: vLLM's replies are those of transformers, token by token; transformers serve, too.

With torchvision, so that processors are transformers' own; tests/models/test_families.py has them without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from cpt_bench.engines import open_engine
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.errors import CptBenchError
from tests.support.families import TEXT
from tests.support.picture_families import PICTURES, maker
from tests.support.questions import of_family as asked
from tests.support.serving import Server, any_model

ELSEWHERE = {
    "Gemma 3": "vLLM could not open the checkpoint",  # 0.30 does not know the names that 5.23 saves
    "LLaVA-OneVision": "vLLM could not open the checkpoint",
}
"""Families that vLLM 0.30 for CPUs does not open, and what is said then."""
HERE = [family for family in [*TEXT, *PICTURES] if family not in ELSEWHERE]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return maker(tmp_path_factory.mktemp("families"))


@pytest.mark.parametrize("family", HERE)
def test_vllm_answers_as_transformers_does(family: str, models: Callable[[str], Path]) -> None:
    """It opens only after every tensor was compared with the file."""
    place, requests = models(family), asked(family)
    vllm = open_engine("vllm", place, eager=True, max_model_len=512, max_images=1)
    assert vllm.generate(requests, 8) == TransformersEngine(place, device="cpu").generate(
        requests, 8
    )


@pytest.mark.parametrize("family", ELSEWHERE)
def test_what_vllm_does_not_open_is_one_line(family: str, models: Callable[[str], Path]) -> None:
    with pytest.raises(CptBenchError, match=ELSEWHERE[family]):
        open_engine("vllm", models(family), eager=True, max_model_len=512, max_images=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with any_model(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("family", [*TEXT, *PICTURES])
def test_transformers_serve_answers_as_transformers_does(
    family: str, models: Callable[[str], Path], server: Server
) -> None:
    place, requests = models(family), asked(family)
    # While the server loads a model it may drop a connection that it kept open.
    served = open_engine("endpoint", server.url, model=str(place), nonce="one", retries=3)
    own = TransformersEngine(place, device="cpu").generate(requests, 8)
    assert served.generate(requests, 8) == own
