"""What ``cptbench plan`` needs of a model, read from its ``config.json`` alone.

The weights of the plain text models and of Qwen2.5-VL are counted by formulas, so that a light
installation can plan them. For every other family transformers lays the model out without memory
for its weights, and they are counted there: exactly, whatever the family is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cpt_bench.errors import CptBenchError

QWEN = "qwen2_5_vl"
BIASED = ("qwen2", QWEN, "qwen2_vl")
"""Families whose q, k and v have a bias."""
HEAD_NORMS = ("qwen3", "gemma3_text")
"""Families that normalise each head's queries and keys."""
PLAIN = ("llama", "qwen2", "qwen3", "gemma3_text")
"""Text models that consist of attention, a gated perceptron, norms and tables of words."""
TIED = ("gemma3_text",)
"""Families whose output head is the embedding table unless the config sets another."""
EDGE_TILES = 13
"""Tiles of a picture of 4 to 3 whose longest edge is four tiles: 12, and the whole in small."""

Config = Mapping[str, Any]


class Architecture(NamedTuple):
    """The size of a model.

    Attributes:
        kind: Its ``model_type``.
        layers: Layers of the language model.
        width: Width of the language model.
        words: Entries of its vocabulary.
        language: Weights of the language model, tables of words included.
        active: Those of them that a token passes through; fewer in a mixture of experts.
        vision: Weights of the vision tower and of what joins it to the language model; 0 without.
        adapted: Inputs and outputs of all layers that adapters are put on, added up.
        square: Side in pixels of the square of a picture that is one token; 0 where a picture is
            cut into tiles.
        tile: Side of a tile in pixels; 0 where all pictures are brought to one size.
        tile_tokens: Tokens of a tile, or of the picture where there is one size.
        tiles: Tiles of a picture where their number does not depend on its size; 0: it does.
        merge: Patches that the tower computes for a token of a picture, square root.
    """

    kind: str
    layers: int
    width: int
    words: int
    language: int
    active: int
    vision: int
    adapted: int
    square: int = 0
    tile: int = 0
    tile_tokens: int = 0
    tiles: int = 1
    merge: float = 1

    @classmethod
    def of(cls, config: Config) -> Architecture:
        """From ``config.json``; one without a ``model_type`` is taken for a Qwen2.5-VL's.

        Raises:
            CptBenchError: transformers is needed to count its weights and is not installed, or
                does not know the model.
            KeyError: A size is missing.
        """
        kind = config.get("model_type", QWEN)
        if kind == QWEN:
            return _qwen(config)
        return _plain(config, kind) if kind in PLAIN else _laid_out(config, kind)

    @property
    def parameters(self) -> int:
        return self.language + self.vision

    def image_tokens(self, pixels: float) -> int:
        """Tokens of a picture of so many pixels; 0 for a model that reads none."""
        if self.square:
            return max(1, round(pixels / self.square**2))
        if self.tile and not self.tiles:
            cut = max(1, round(pixels / self.tile**2))
            return (cut + (cut > 1)) * self.tile_tokens  # several, and the picture in small
        return self.tiles * self.tile_tokens

    def forward(self, words: float, image: float) -> float:
        """Floating-point operations of a pass over a sequence: 2 a weight and token.

        Attention's own products are left out; an image token costs merge^2 patches in the tower.
        """
        return 2 * (self.active * (words + image) + self.vision * image * self.merge**2)


def text_of(config: Config) -> Config:
    """The part of a ``config.json`` that describes the language model; old layouts are flat."""
    return config.get("text_config") or config


def text_weights(text: Config, kind: str, tied: bool) -> int:
    """Weights of a plain text model."""
    width, layers = text["hidden_size"], text["num_hidden_layers"]
    queries, keys = _heads(text)
    biases = queries + 2 * keys if kind in BIASED else 0
    if text.get("attention_bias"):
        biases = queries + 2 * keys + width
    attention = width * (2 * queries + 2 * keys) + biases
    size = queries // text["num_attention_heads"]
    norms = 2 * width + (2 * size if kind in HEAD_NORMS else 0)
    norms += 2 * width if kind == "gemma3_text" else 0
    perceptron = 3 * width * text["intermediate_size"]
    if text.get("mlp_bias"):
        perceptron += 2 * text["intermediate_size"] + width
    tables = (1 if tied else 2) * text["vocab_size"] * width
    return int(layers * (attention + norms + perceptron) + width + tables)


def _heads(text: Config) -> tuple[int, int]:
    """The widths of queries and of keys."""
    heads = text["num_attention_heads"]
    size = text.get("head_dim") or text["hidden_size"] // heads
    return heads * size, (text.get("num_key_value_heads") or heads) * size


def text_adapted(text: Config) -> int:
    """Inputs and outputs of the linear layers of a plain text model."""
    width, inner = text["hidden_size"], text["intermediate_size"]
    queries, keys = _heads(text)
    ends = 2 * (width + queries) + 2 * (width + keys) + 3 * (width + inner)
    return int(text["num_hidden_layers"] * ends)


def _tied(config: Config, kind: str) -> bool:
    text = text_of(config)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", kind in TIED))
    return bool(tied)


def _plain(config: Config, kind: str) -> Architecture:
    weights = text_weights(config, kind, _tied(config, kind))
    return Architecture(
        kind=kind,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        words=config["vocab_size"],
        language=weights,
        active=weights,
        vision=0,
        adapted=text_adapted(config),
    )


def _qwen(config: Config) -> Architecture:
    """Qwen2.5-VL, old layout or new."""
    text, vision = text_of(config), config["vision_config"]
    w, inner = vision["hidden_size"], vision["intermediate_size"]
    merge, width = vision["spatial_merge_size"], text["hidden_size"]
    merged = w * merge**2
    block = w * 3 * w + 3 * w + w * w + w + 3 * w * inner + 2 * inner + w + 2 * w
    patches = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2 * w
    merger = w + merged**2 + merged + merged * width + width
    language = text_weights(text, QWEN, _tied(config, QWEN))
    return Architecture(
        kind=QWEN,
        layers=text["num_hidden_layers"],
        width=width,
        words=text["vocab_size"],
        language=language,
        active=language,
        vision=patches + vision["depth"] * block + merger,
        adapted=text_adapted(text) + vision["depth"] * ((w + 3 * w) + (w + w) + 3 * (w + inner)),
        square=vision["patch_size"] * merge,
        merge=merge,
    )


def _laid_out(config: Config, kind: str) -> Architecture:
    """Any other model: transformers lays it out on the device without memory."""
    model = on_meta(config, kind)
    settings = model.config.to_dict()
    text = text_of(settings)
    language = vision = experts = adapted = 0
    head = model.get_output_embeddings()
    seen = set()
    for name, weight in model.named_parameters():
        if id(weight) in seen:
            continue
        seen.add(id(weight))
        if _sees(name):
            vision += weight.numel()
            continue
        language += weight.numel()
        experts += weight.numel() if ".experts." in name else 0
    for module in _linear(model):
        if module is not head:
            adapted += module.in_features + module.out_features
    chosen = text.get("num_experts_per_tok") or 0
    number = text.get("num_experts") or text.get("num_local_experts") or 0
    idle = experts - experts * chosen // number if experts and number else 0
    return Architecture(
        kind=kind,
        layers=text["num_hidden_layers"],
        width=text["hidden_size"],
        words=text["vocab_size"],
        language=language,
        active=language - idle,
        vision=vision,
        adapted=adapted,
        **_pictures(settings, kind),
    )


def _sees(name: str) -> bool:
    """Whether a weight belongs to a vision tower, or to what joins it to the language model."""
    parts = name.split(".")
    marks = ("visual", "vision", "multi_modal", "connector", "image_newline", "projector")
    return any(part.startswith(marks) for part in parts)


def _linear(model: Any) -> Iterator[Any]:
    import torch

    return (module for module in model.modules() if isinstance(module, torch.nn.Linear))


def on_meta(config: Config, kind: str) -> Any:
    """The model that a ``config.json`` describes, without memory for its weights.

    Raises:
        CptBenchError: transformers is not installed, or does not know the model.
    """
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    except ImportError as error:
        raise CptBenchError(
            f"to count the weights of model_type {kind!r}, transformers is needed",
            todo="Install it with: pip install 'cptbench[train]'",
        ) from error
    from cpt_bench.models.families import reads_pictures

    auto = AutoModelForImageTextToText if reads_pictures(kind) else AutoModelForCausalLM
    settings = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = auto.from_config(AutoConfig.for_model(kind, **settings))
    model.tie_weights()
    return model


def _pictures(config: Config, kind: str) -> dict[str, Any]:
    """How a picture is cut into tokens: the fields of :class:`Architecture` for it."""
    vision = config.get("vision_config")
    if not vision:
        return {}
    patch = _side(vision.get("patch_size", 14))
    if "spatial_merge_size" in vision:
        merge = vision["spatial_merge_size"]
        return {"square": patch * merge, "merge": merge}
    side = _side(vision.get("image_size", 224))
    patches = (side // patch) ** 2
    if (tokens := config.get("mm_tokens_per_image")) is not None:
        return {"tile_tokens": tokens, "merge": (patches / tokens) ** 0.5}
    if (scale := config.get("scale_factor")) is not None:
        tokens = patches // scale**2
        return {"tile": side, "tile_tokens": tokens, "tiles": EDGE_TILES, "merge": scale}
    if (ratio := config.get("downsample_ratio")) is not None:
        tokens = round(patches * ratio**2)
        return {"tile": side, "tile_tokens": tokens, "tiles": 0, "merge": 1 / ratio}
    if config.get("image_grid_pinpoints"):
        return {"tile": side, "tile_tokens": patches, "tiles": 0}
    return {"tile_tokens": patches}


def _side(size: Any) -> int:
    """One side of a square, which some configs give as a pair."""
    return int(size[0] if isinstance(size, list | tuple) else size)
