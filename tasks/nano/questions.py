"""The nano suite's questions: seven tasks and three general probes, made from a seed.

Each function takes a random source and returns a :class:`Draft`: the picture as cells, the
question, the answer, and the short chain of thought an instructed model would give (used to train
the base model and, where a method asks for it, as a rationale; no grader reads it).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cpt_bench.tasks.nano.world import (
    BLANK,
    CELLS,
    COLORS,
    DARK,
    DIGITS,
    DIM,
    GRID,
    LETTERS,
    NAMES,
    SHAPES,
    SIGN_COLORS,
    SIZES,
    STAINS,
    TEXTURES,
    Cell,
    Light,
    easy_vqa,
    grid,
)

T = TypeVar("T")
ROWS = tuple(f"row{i}" for i in range(1, GRID + 1))
OPTIONS = "ABCD"
PLACES = (
    "arden", "belmar", "corvan", "dorlin", "elmira", "fenwick", "galdor", "harlan",
    "ivoria", "jastor", "kelmar", "lorvan", "mirdan", "norwick", "oskar", "peldor",
)  # fmt: skip
FACTS = (
    "amber", "basalt", "cedar", "delta", "ember", "flint", "garnet", "hazel",
    "indigo", "jasper", "kelp", "lotus",
)  # fmt: skip
RELATIONS = ("capital", "ruler", "river")
STEPS = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
OBJECTS = tuple((color, shape) for color in COLORS for shape in SHAPES)


def _invent_facts() -> dict[tuple[str, str], str]:
    rng = random.Random(7)
    return {(place, r): rng.choice(FACTS) for place in PLACES for r in RELATIONS}


KNOWN = _invent_facts()
"""The invented world's facts, (place, relation) -> fact: what the base model 'knows'."""


@dataclass(frozen=True)
class Draft:
    """A question before it becomes a sample."""

    question: str
    thought: str
    answer: str
    cells: list[Cell] | None = None
    picture: int | None = None  # an easy-VQA picture instead of cells
    light: Light = field(default_factory=Light)


Maker = Callable[[random.Random, str], Draft]


def _join(words: Iterable[str]) -> str:
    return " ".join(words)


def options(rng: random.Random, right: str, others: Sequence[str]) -> tuple[str, str]:
    """Four lettered options with ``right`` among them: (their text, the right letter)."""
    chosen = [*rng.sample([x for x in others if x != right], len(OPTIONS) - 1), right]
    rng.shuffle(chosen)
    pairs = zip(OPTIONS, chosen, strict=True)
    return _join(f"{letter} {text}" for letter, text in pairs), OPTIONS[chosen.index(right)]


def multiple_choice(
    rng: random.Random, stem: str, thought: str, right: str, others: Sequence[str],
    cells: list[Cell] | None,
) -> Draft:  # fmt: skip
    text, letter = options(rng, right, others)
    return Draft(f"{stem}? {text}", _join([thought, right, letter]).strip(), letter, cells)


def scatter(rng: random.Random, low: int, high: int) -> dict[int, Cell]:
    """Between ``low`` and ``high`` objects, no two of the same colour and shape, by place."""
    n = rng.randint(low, high)
    places, kinds = rng.sample(range(CELLS), n), rng.sample(OBJECTS, n)
    return {p: (rng.choice(SIZES), c, s) for p, (c, s) in zip(places, kinds, strict=True)}


def neighbour(place: int, direction: str) -> int | None:
    """The place one step away, or None beyond the picture's edge."""
    down, right = STEPS[direction]
    row, column = place // GRID + down, place % GRID + right
    return row * GRID + column if 0 <= row < GRID and 0 <= column < GRID else None


def neighbours(rng: random.Random) -> tuple[dict[int, Cell], int, str, int]:
    """Seven to ten objects with two of them side by side: (cells, place, direction, target)."""
    while True:
        cells = scatter(rng, 7, 10)
        pairs = [(p, d, q) for p in cells for d in STEPS if (q := neighbour(p, d)) in cells]
        if pairs:
            return cells, *rng.choice(pairs)


def relation(direction: str) -> str:
    return f"{direction} of" if direction in ("left", "right") else direction


# ------------------------------------------------------------------------------ the seven tasks


def science(rng: random.Random, pool: str) -> Draft:
    """ScienceQA's role: read a diagram of linked pairs, answer with an option's letter."""
    shapes, rows = rng.sample(SHAPES, 6), rng.sample(range(GRID), 3)
    cells: dict[int, Cell] = {}
    places = []
    for i, row in enumerate(rows):
        start = row * GRID + rng.randint(0, 1)
        cells[start] = ("large", rng.choice(COLORS), shapes[2 * i])
        cells[start + 1] = ("link",)
        cells[start + 2] = ("large", rng.choice(COLORS), shapes[2 * i + 1])
        places += [start, start + 2]
    asked = rng.randrange(6)
    shape, partner = shapes[asked], shapes[asked ^ 1]
    thought = _join([NAMES[places[asked]], NAMES[places[asked ^ 1]]])
    others = [s for s in SHAPES if s != shape]
    stem = f"which is linked to the {shape}"
    return multiple_choice(rng, stem, thought, partner, others, grid(cells))


def text(rng: random.Random, pool: str) -> Draft:
    """TextVQA's role: find the sign of one colour among others and read it.

    A sign has one character or two; half of the signs are set in a font, half are handwritten.
    """
    n = rng.choice((2, 3))
    rows, colors = rng.sample(range(GRID), n), rng.sample(SIGN_COLORS, n)
    cells: dict[int, Cell] = {}
    signs = []
    for row, color in zip(rows, colors, strict=True):
        kind, marks = ("hand", DIGITS) if rng.random() < 0.5 else ("letter", LETTERS)
        start = row * GRID + rng.randrange(GRID - 1)
        sign = {start + k: (kind, rng.choice(marks), color) for k in range(rng.choice((1, 2)))}
        cells |= sign
        signs.append(sign)
    thought = _join(NAMES[place] for place in signs[0])
    written = _join(cell[1] for cell in signs[0].values())
    return Draft(f"what does the {colors[0]} sign say?", thought, written, grid(cells))


def lowvision(rng: random.Random, pool: str) -> Draft:
    """VizWiz's role: easy-VQA's questions on pictures taken in bad light.

    Two in five pictures are unreadable; the answer is then 'unanswerable' (VizWiz: 43 %).
    """
    question, answer, picture = rng.choice(easy_vqa()[0][pool])
    if rng.random() < 0.4:
        return Draft(question, "dark", "unanswerable", picture=picture, light=rng.choice(DARK))
    return Draft(question, "clear", answer, picture=picture, light=rng.choice(DIM))


def scene(rng: random.Random, pool: str) -> Draft:
    """GQA's role: a relation between objects, answered in words."""
    cells, place, direction, target = neighbours(rng)
    _, color, shape = cells[place]
    thought = _join([NAMES[place], NAMES[target]])
    where = f"{relation(direction)} the {color} {shape}?"
    asked = rng.randrange(3)
    if asked == 0:
        return Draft(f"what is {where}", thought, _join(cells[target][1:]), grid(cells))
    return Draft(f"what {('color', 'shape')[asked - 1]} is {where}", thought,
                 cells[target][asked], grid(cells))  # fmt: skip


def geometry(rng: random.Random, pool: str) -> Draft:
    """Geometry3K's role: lengths written on a figure, a number asked for."""
    figure = rng.choice(("square", "rectangle", "triangle"))
    place = rng.choice([p for p in range(CELLS) if p % GRID < GRID - 1 and p // GRID < GRID - 1])
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    asked = "perimeter" if figure == "triangle" else rng.choice(("perimeter", "area"))
    if figure == "square":
        b = a
        value = 4 * a if asked == "perimeter" else a * a
    elif figure == "rectangle":
        value = 2 * (a + b) if asked == "perimeter" else a * b
    else:
        value = 2 * a + b  # two equal sides a, base b
    ink = rng.choice(SIGN_COLORS)
    cells: dict[int, Cell] = {
        place: ("outline", figure),
        place + 1: ("hand", str(a), ink),
        place + GRID: ("hand", str(b), ink),
    }
    return Draft(f"what is the {asked} of the {figure}?", f"{a} {b}", str(value), grid(cells))


def pathology(rng: random.Random, pool: str) -> Draft:
    """PathVQA's role: a stained slide of photographed texture with a lesion of another one."""
    stain = rng.choice(list(STAINS))
    ground, lesion = rng.sample(TEXTURES, 2)
    places = sorted(rng.sample(range(CELLS), rng.randint(1, 4)))
    cells: list[Cell] = [("texture", ground, stain)] * CELLS
    for p in places:
        cells[p] = ("texture", lesion, stain)
    thought = _join([stain, ground, lesion])
    kind = rng.random()
    if kind < 0.5:
        present = rng.random() < 0.5
        absent = [t for t in TEXTURES if t not in (ground, lesion)]
        asked = rng.choice((ground, lesion) if present else absent)
        answer = "yes" if present else "no"
        return Draft(f"is there {asked} in the slide?", thought, answer, cells)
    if kind < 0.85:
        return Draft("what is the lesion in the slide?", thought, lesion, cells)
    return Draft("what is the stain of the slide?", thought, stain, cells)


def counting(rng: random.Random, pool: str) -> Draft:
    """Super-CLEVR's role: count the objects that fit a description."""
    while True:
        n = rng.randint(4, 9)
        places = rng.sample(range(CELLS), n)
        colors, shapes = rng.sample(COLORS, 3), rng.sample(SHAPES, 3)
        cells: dict[int, Cell] = {
            p: (rng.choice(SIZES), rng.choice(colors), rng.choice(shapes)) for p in places
        }
        wanted = rng.choice(((1,), (2,), (0, 1), (0, 2)))
        if rng.random() < 0.85:
            model = cells[rng.choice(places)]
        else:
            model = (rng.choice(SIZES), rng.choice(COLORS), rng.choice(SHAPES))
        found = [p for p in sorted(cells) if all(cells[p][i] == model[i] for i in wanted)]
        if len(found) <= 6:
            break
    words = [model[i] for i in wanted]
    question = _join(["how many", *words, "things?" if 2 not in wanted else "are there?"])
    thought = _join(NAMES[p] for p in found) or "none"
    return Draft(question, thought, str(len(found)), grid(cells))


# ------------------------------------------------------------------- general probes, never trained


def exam(rng: random.Random, pool: str) -> Draft:
    """MMMU's role: look at one place of a crowded picture, answer with a letter."""
    values: Sequence[str]
    kind = rng.randrange(4)
    place = rng.randrange(CELLS)
    if kind < 2:
        objects = scatter(rng, 6, 9)
        place = rng.choice(list(objects))
        asked, values = (("color", COLORS), ("shape", SHAPES))[kind]
        right, cells = objects[place][1 + kind], grid(objects)
    elif kind == 2:
        places = rng.sample(range(CELLS), 5)
        place = places[0]
        marks = {p: ("letter", rng.choice(LETTERS), rng.choice(SIGN_COLORS)) for p in places}
        asked, values, right, cells = "letter", LETTERS, marks[place][1], grid(marks)
    else:
        stain = rng.choice(list(STAINS))
        cells = [("texture", rng.choice(TEXTURES), stain) for _ in range(CELLS)]
        asked, values, right = "texture", TEXTURES, cells[place][1]
    return multiple_choice(rng, f"which {asked} is at {NAMES[place]}", "", right, values, cells)


def knowledge(rng: random.Random, pool: str) -> Draft:
    """MMLU-Pro's role: facts, sums and the alphabet, without a picture."""
    kind = rng.randrange(3)
    if kind == 0:
        place, relation_ = rng.choice(PLACES), rng.choice(RELATIONS)
        stem, right = f"which is the {relation_} of {place}", KNOWN[place, relation_]
        return multiple_choice(rng, stem, "", right, FACTS, None)
    if kind == 1:
        x, y = rng.randint(0, 9), rng.randint(0, 9)
        stem, value = f"what is {x} plus {y}", x + y
        if rng.random() < 0.5:
            x, y = max(x, y), min(x, y)
            stem, value = f"what is {x} minus {y}", x - y
        near = [str(v) for v in range(max(0, value - 5), value + 6)]
        return multiple_choice(rng, stem, "", str(value), near, None)
    i = rng.randrange(len(LETTERS) - 1)
    stem = f"which letter is after {LETTERS[i]}"
    return multiple_choice(rng, stem, "", LETTERS[i + 1], LETTERS, None)


def presence(rng: random.Random, pool: str) -> Draft:
    """POPE's role: is an object there, half of the time it is not."""
    objects = scatter(rng, 4, 9)
    where = {cell[1:]: place for place, cell in objects.items()}
    if rng.random() < 0.5:
        color, shape = rng.choice(list(where))
        thought, answer = NAMES[where[color, shape]], "yes"
    else:
        color, shape = rng.choice([o for o in OBJECTS if o not in where])
        thought, answer = "none", "no"
    return Draft(f"is there {color} {shape} in the image?", thought, answer, grid(objects))


TASKS: dict[str, Maker] = {
    "science": science, "text": text, "lowvision": lowvision, "scene": scene,
    "geometry": geometry, "pathology": pathology, "counting": counting,
}  # fmt: skip
GENERAL: dict[str, Maker] = {"exam": exam, "knowledge": knowledge, "presence": presence}
__all__ = ["BLANK", "GENERAL", "TASKS", "Draft", "Maker"]
