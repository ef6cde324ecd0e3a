"""The nano world: 64x64 pictures on a 4x4 grid of tiles, the same bytes on every machine.

A picture is 16 cells in reading order. Each cell shows one tile: a coloured shape, a letter, a
handwritten digit, a photograph's texture, part of a drawing. Qwen2.5-VL's processor cuts it into
8x8 patches and merges 2x2 of them, so that one cell is one image token.

Every pixel is integer arithmetic on committed tiles and on :meth:`random.Random.randbytes`, which
Python keeps stable across versions and platforms; nothing is drawn at run time.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

ASSETS = Path(__file__).parent / "assets"
GRID, TILE, SIDE = 4, 16, 64
CELLS = GRID * GRID
NAMES = tuple(f"{column}{row}" for row in "1234" for column in "abcd")
"""The names of the cells in reading order, as on a chess board seen from above: a1 b1 c1 …"""

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SIZES = ("small", "large")
SIGN_COLORS = ("red", "green", "blue", "purple")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS = tuple("0123456789")
TEXTURES = ("brick", "grass", "gravel", "tissue", "stars", "page")
STAINS = {"pink": (250, 165, 195), "violet": (165, 125, 240), "brown": (200, 150, 105)}
INKS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "purple": (150, 50, 180),
}
PAPER = (205, 205, 200)

POOLS = {"base": 0, "train": 1, "test": 2}
"""Thirds of each real source: no photograph, handwriting or easy-VQA picture is in two of them."""

Pixels = npt.NDArray[np.uint8]
Cell = tuple[str, ...]
"""What a cell shows: ``(size, color, shape)``, ``("letter", l, color)``, ``("hand", d, color)``,
``("texture", name, stain)``, ``("outline", kind)``, ``("link",)`` or ``("blank",)``."""
BLANK: Cell = ("blank",)


@dataclass(frozen=True)
class Light:
    """How a picture is taken: ``gain`` in percent of full light, ``noise`` in grey levels."""

    gain: int = 100
    noise: int = 14

    @property
    def readable(self) -> bool:
        """Whether a person could still answer from the picture."""
        return self.gain > 15 and self.noise < 150


DARK = (Light(6, 40), Light(10, 60), Light(45, 255))
"""Lights in which a picture is unreadable."""
DIM = (Light(100, 14), Light(40, 40), Light(60, 90), Light(25, 14), Light(25, 40), Light(40, 90))
"""Lights in which a picture can still be read, with difficulty."""


@lru_cache(maxsize=1)
def _tiles() -> tuple[dict[str, list[int]], Pixels]:
    index = json.loads((ASSETS / "tiles.json").read_text())
    sheet = np.asarray(Image.open(ASSETS / "tiles.png").convert("RGB"))
    rows, columns = sheet.shape[0] // TILE, sheet.shape[1] // TILE
    tiles = sheet.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    return index, tiles


@lru_cache(maxsize=1)
def easy_vqa() -> tuple[dict[str, list[tuple[str, str, int]]], Pixels]:
    """Questions of easy-VQA by pool, as (question, answer, picture number), and its pictures."""
    asked = json.loads((ASSETS / "easy_vqa.json").read_text())
    sheet = np.asarray(Image.open(ASSETS / "easy_vqa.png").convert("RGB"))
    columns = sheet.shape[1] // SIDE
    pictures = sheet.reshape(-1, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return {pool: [tuple(q) for q in rows] for pool, rows in asked.items()}, pictures


def _variant(name: str, rng: random.Random, pool: str | None = None) -> Pixels:
    index, tiles = _tiles()
    first, count = index[name]
    if pool is not None:  # real sources: a third each for base, train and test
        count //= len(POOLS)
        first += count * POOLS[pool]
    chosen: Pixels = tiles[first + rng.randrange(count)]
    return chosen


def _ink(mask: Pixels, ink: tuple[int, int, int]) -> Pixels:
    share = mask.astype(np.int32)
    mixed = (share * np.array(ink) + (255 - share) * np.array(PAPER)) // 255
    return np.asarray(mixed, np.uint8)


def tile(cell: Cell, rng: random.Random, pool: str) -> Pixels:
    """One cell's pixels, uint8 (16, 16, 3); ``rng`` picks the variant."""
    kind = cell[0]
    if kind == "hand":
        return _ink(_variant(f"hand/{cell[1]}", rng, pool), INKS[cell[2]])
    if kind == "texture":
        grey = _variant(f"texture/{cell[1]}", rng, pool).astype(np.int32)
        return np.asarray(grey * np.array(STAINS[cell[2]]) // 255, np.uint8)
    return _variant("/".join(cell), rng)


@lru_cache(maxsize=1)
def _lamp() -> npt.NDArray[np.int32]:
    """A warm lamp to the right and a cool one below: ±25 levels of red and blue across a picture.

    Qwen2.5-VL's vision tower knows only relative positions; from this faint gradient a small one
    can find out where in the picture a patch is.
    """
    ramp = (np.arange(SIDE, dtype=np.int32) * 2 - (SIDE - 1)) * 25 // (SIDE - 1)
    lamp = np.zeros((SIDE, SIDE, 3), np.int32)
    lamp[:, :, 0] += ramp[None, :]
    lamp[:, :, 2] += ramp[:, None]
    return lamp


def photograph(scene: Pixels, light: Light, rng: random.Random) -> Pixels:
    """``scene`` under the lamps, with the light's gain and noise; uint8 (64, 64, 3)."""
    lit = (scene.astype(np.int32) + _lamp()) * light.gain // 100
    grain = np.frombuffer(rng.randbytes(SIDE * SIDE * 3), np.uint8).reshape(SIDE, SIDE, 3)
    lit += (grain.astype(np.int32) - 128) * light.noise // 128
    return lit.clip(0, 255).astype(np.uint8)


def paint(cells: list[Cell], pool: str, light: Light, rng: random.Random) -> Pixels:
    """The picture of 16 ``cells`` in reading order, uint8 (64, 64, 3)."""
    scene = np.empty((GRID, TILE, GRID, TILE, 3), np.uint8)
    for i, cell in enumerate(cells):
        scene[i // GRID, :, i % GRID] = tile(cell, rng, pool)
    return photograph(scene.reshape(SIDE, SIDE, 3), light, rng)


def grid(objects: dict[int, Any]) -> list[Cell]:
    """16 cells with ``objects`` at their places and blank paper elsewhere."""
    return [objects.get(i, BLANK) for i in range(CELLS)]
