"""Draw the nano suite's tiles and pictures (run once; the results are committed).

    python tasks/nano/make_assets.py

Needs scikit-learn, scikit-image, easy-vqa and a DejaVu font. Shipping the pictures instead of
drawing them at run time keeps the bytes of every sample the same on every machine: font
rasterisers and PNG decoders of the sources differ between platforms, array indexing does not.
Sources and licences of what is copied are listed in ``assets/README.md``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ASSETS = Path(__file__).parent / "assets"
FONT = "DejaVuSans-Bold.ttf"
PAPER = (205, 205, 200)
TILE = 16
BIG = 64  # tiles are drawn at four times their size and reduced, which smooths their edges
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 40),
    "purple": (150, 50, 180),
    "orange": (245, 140, 30),
}
SIGN_COLORS = ("red", "green", "blue", "purple")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
JITTER = ((0, 0), (4, -3), (-4, 3), (3, 4))
DRAWN_DIGITS, DIGITS_EACH = "0123456789", 60
TEXTURES = ("brick", "grass", "gravel", "tissue", "stars", "page")
CROPS_EACH = 36
EASY_SPLITS = {"base": ("train", 0, 600), "train": ("train", 600, 1600), "test": ("test", 0, 400)}

Draw = Callable[[ImageDraw.ImageDraw, int, int], object]


def _tile(draw: Draw, dx: int, dy: int) -> np.ndarray:
    image = Image.new("RGB", (BIG, BIG), PAPER)
    draw(ImageDraw.Draw(image), dx, dy)
    return np.asarray(image.resize((TILE, TILE), Image.Resampling.BILINEAR))


def _shape(shape: str, color: tuple[int, int, int], radius: int) -> Draw:
    def draw(d: ImageDraw.ImageDraw, dx: int, dy: int) -> None:
        x, y, r = 32 + dx, 32 + dy, radius
        box = [x - r, y - r, x + r, y + r]
        if shape == "circle":
            d.ellipse(box, fill=color)
        elif shape == "square":
            d.rectangle(box, fill=color)
        elif shape == "triangle":
            d.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=color)
        elif shape == "star":
            arms = [r if i % 2 == 0 else r * 0.4 for i in range(10)]
            angles = [i * math.pi / 5 for i in range(10)]
            points = [
                (x + a * math.sin(t), y - a * math.cos(t))
                for a, t in zip(arms, angles, strict=True)
            ]
            d.polygon(points, fill=color)
        elif shape == "cross":
            w = r * 0.35
            d.rectangle([x - r, y - w, x + r, y + w], fill=color)
            d.rectangle([x - w, y - r, x + w, y + r], fill=color)
        elif shape == "diamond":
            d.polygon([(x, y - r), (x + r * 0.7, y), (x, y + r), (x - r * 0.7, y)], fill=color)
        elif shape == "ring":
            d.ellipse(box, outline=color, width=int(r * 0.45))
        elif shape == "heart":
            d.pieslice([x - r, y - r, x, y + r * 0.2], 150, 390, fill=color)
            d.pieslice([x, y - r, x + r, y + r * 0.2], 150, 390, fill=color)
            tip = [(x - r * 0.95, y - r * 0.2), (x + r * 0.95, y - r * 0.2), (x, y + r)]
            d.polygon(tip, fill=color)

    return draw


def _link(d: ImageDraw.ImageDraw, dx: int, dy: int) -> None:
    d.line([4, 32 + dy, 60, 32 + dy], fill=(20, 20, 20), width=7)
    d.ellipse([24 + dx, 24 + dy, 40 + dx, 40 + dy], fill=(20, 20, 20))


def _outline(kind: str) -> Draw:
    ink = (10, 10, 10)

    def draw(d: ImageDraw.ImageDraw, dx: int, dy: int) -> None:
        x, y = dx, dy
        if kind == "rectangle":
            d.rectangle([6 + x, 20 + y, 58 + x, 44 + y], outline=ink, width=6)
        elif kind == "square":
            d.rectangle([14 + x, 14 + y, 50 + x, 50 + y], outline=ink, width=6)
        else:
            corners = [(32 + x, 10 + y), (10 + x, 52 + y), (54 + x, 52 + y)]
            d.polygon(corners, outline=ink, width=6)

    return draw


def _letter(text: str, color: tuple[int, int, int], font: ImageFont.FreeTypeFont) -> Draw:
    def draw(d: ImageDraw.ImageDraw, dx: int, dy: int) -> None:
        d.text((32 + dx, 32 + dy), text, fill=color, font=font, anchor="mm")

    return draw


def _handwriting() -> dict[str, list[np.ndarray]]:
    """UCI digits, 8x8 with values 0..16, enlarged: grey masks in which 255 is ink."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    out: dict[str, list[np.ndarray]] = {}
    for d in DRAWN_DIGITS:
        masks = []
        for image in digits.images[digits.target == int(d)][:DIGITS_EACH]:
            grey = Image.fromarray(np.minimum(image * 16, 255).astype(np.uint8))
            mask = np.zeros((TILE, TILE), np.uint8)
            mask[1:15, 1:15] = np.asarray(grey.resize((14, 14), Image.Resampling.BILINEAR))
            masks.append(np.repeat(mask[..., None], 3, axis=2))
        out[f"hand/{d}"] = masks
    return out


def _textures() -> dict[str, list[np.ndarray]]:
    """Grey crops of real photographs, each stretched to the same contrast."""
    import skimage

    files = {
        "brick": ("brick.png", 64),
        "grass": ("grass.png", 32),
        "gravel": ("gravel.png", 48),
        "tissue": ("ihc.png", 64),
        "stars": ("hubble_deep_field.jpg", 48),
        "page": ("page.png", 40),
    }
    folder = Path(skimage.__file__).parent / "data"
    out: dict[str, list[np.ndarray]] = {}
    for name in TEXTURES:
        file, size = files[name]
        source = Image.open(folder / file).convert("L")
        rng = np.random.default_rng(len(name))
        crops: list[np.ndarray] = []
        while len(crops) < CROPS_EACH:
            # The picture is cut into three bands, so that base, train and test share no pixels.
            band, third = len(crops) * 3 // CROPS_EACH, source.width // 3
            x = int(rng.integers(band * third, (band + 1) * third - size))
            y = int(rng.integers(0, source.height - size))
            crop = source.crop((x, y, x + size, y + size))
            grey = np.asarray(crop.resize((TILE, TILE), Image.Resampling.BOX)).astype(float)
            if grey.std() < 6:
                continue
            grey = (grey - grey.mean()) / grey.std() * 48 + 128
            crops.append(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
        out[f"texture/{name}"] = crops
    return out


def tiles() -> dict[str, list[np.ndarray]]:
    font = ImageFont.truetype(FONT, 52)
    drawings: dict[str, Draw] = {"blank": lambda d, x, y: None, "link": _link}
    for shape in SHAPES:
        for color, rgb in COLORS.items():
            drawings[f"small/{color}/{shape}"] = _shape(shape, rgb, 15)
            drawings[f"large/{color}/{shape}"] = _shape(shape, rgb, 26)
    for letter in LETTERS:
        for color in SIGN_COLORS:
            drawings[f"letter/{letter}/{color}"] = _letter(letter.upper(), COLORS[color], font)
    for kind in ("rectangle", "square", "triangle"):
        drawings[f"outline/{kind}"] = _outline(kind)
    out = {name: [_tile(draw, *d) for d in JITTER] for name, draw in drawings.items()}
    return out | _handwriting() | _textures()


def write_tiles() -> None:
    index: dict[str, list[int]] = {}
    flat: list[np.ndarray] = []
    for name, variants in tiles().items():
        index[name] = [len(flat), len(variants)]
        flat += variants
    columns = 64
    rows = math.ceil(len(flat) / columns)
    sheet = np.zeros((rows, TILE, columns, TILE, 3), np.uint8)
    for i, tile in enumerate(flat):
        sheet[i // columns, :, i % columns] = tile
    Image.fromarray(sheet.reshape(rows * TILE, columns * TILE, 3)).save(
        ASSETS / "tiles.png", optimize=True
    )
    (ASSETS / "tiles.json").write_text(json.dumps(index, indent=0) + "\n")


def write_easy_vqa() -> None:
    """Pictures and questions of easy-VQA, three disjoint sets of pictures."""
    import easy_vqa

    folder = Path(easy_vqa.__file__).parent / "data"
    questions: dict[str, list[list[object]]] = {}
    pictures: list[np.ndarray] = []
    for split, (source, start, stop) in EASY_SPLITS.items():
        asked = json.loads((folder / source / "questions.json").read_text())
        questions[split] = []
        for i in range(start, stop):
            image = Image.open(folder / source / "images" / f"{i}.png").convert("RGB")
            questions[split] += [[q, a, len(pictures)] for q, a, number in asked if number == i]
            pictures.append(np.asarray(image))
    columns = 50
    sheet = np.zeros((len(pictures) // columns, 64, columns, 64, 3), np.uint8)
    for i, picture in enumerate(pictures):
        sheet[i // columns, :, i % columns] = picture
    Image.fromarray(sheet.reshape(-1, columns * 64, 3)).save(ASSETS / "easy_vqa.png", optimize=True)
    (ASSETS / "easy_vqa.json").write_text(json.dumps(questions, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write_tiles()
    write_easy_vqa()
