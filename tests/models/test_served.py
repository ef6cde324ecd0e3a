"""Every family over ``transformers serve``: the column *endpoint* of docs/models.md, without torchvision."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openai")
pytestmark = pytest.mark.slow

from PIL import Image

from cpt_bench.engines import open_engine
from cpt_bench.engines.hf import TransformersEngine
from cpt_bench.engines.serve import decoded
from tests.support.families import TEXT
from tests.support.picture_families import PICTURES, maker
from tests.support.questions import of_family
from tests.support.serving import AnyModel, any_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return maker(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyModel]:
    """One server for all families."""
    with any_model(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("family", [*TEXT, *PICTURES])
def test_a_family_is_asked_over_an_endpoint(
    family: str, models: Callable[[str], Path], server: AnyModel
) -> None:
    """The replies are those of the transformers engine, word for word."""
    place, asked = models(family), of_family(family)
    assert bool(asked[0].images) == (family in PICTURES)
    # While the server loads a model it may drop a connection that it kept open.
    served = open_engine("endpoint", server.url, model=str(place), nonce="one", retries=3)
    own = TransformersEngine(place, device="cpu").generate(asked, 8)
    assert served.generate(asked, 8) == own and all(reply.tokens for reply in own)


def test_a_picture_is_decoded_as_everywhere_else() -> None:
    """Also where transformers would have torchvision decode it."""
    picture = Image.effect_noise((20, 12), 80).convert("CMYK")
    stream = io.BytesIO()
    picture.save(stream, "JPEG")
    data = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    found = decoded(data)
    assert (found.shape, found.dtype) == ((3, 12, 20), torch.uint8)
    assert found.permute(1, 2, 0).numpy().tobytes() == Image.open(stream).convert("RGB").tobytes()
