"""Practice for the base model: what an instructed model can do before any task is trained.

Reading at a place, finding a place, neighbours, rows, counting, facts, sums, and lettered options:
small circuits that the tasks and the general probes need. None of it is a task of the suite.
"""

from __future__ import annotations

import random
from dataclasses import replace

from cpt_bench.tasks.nano.questions import (
    FACTS,
    GENERAL,
    KNOWN,
    PLACES,
    RELATIONS,
    ROWS,
    STEPS,
    TASKS,
    Draft,
    Maker,
    multiple_choice,
    neighbour,
    neighbours,
    relation,
    scatter,
)
from cpt_bench.tasks.nano.world import (
    BLANK,
    CELLS,
    COLORS,
    DARK,
    DIGITS,
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

LOOK = "look"
"""The thought of a question that needs none."""


class Practice:
    """Makers of practice questions, with ``least`` to ``few`` objects in sight."""

    def __init__(self, few: int = 99, least: int = 1) -> None:
        self.few, self.least = few, least

    def _scatter(self, rng: random.Random, high: int) -> dict[int, Cell]:
        return scatter(rng, self.least, min(high, self.few))

    def describe(self, rng: random.Random, pool: str) -> Draft:
        objects = self._scatter(rng, 10)
        place = rng.choice(list(objects))
        return Draft(f"describe {NAMES[place]}.", LOOK, " ".join(objects[place]), grid(objects))

    def row(self, rng: random.Random, pool: str) -> Draft:
        row = rng.randrange(GRID)
        places = rng.sample(range(CELLS), rng.randint(1, 12))
        if rng.random() < 0.5:
            objects: dict[int, Cell] = {
                p: (rng.choice(SIZES), rng.choice(COLORS), rng.choice(SHAPES)) for p in places
            }
        else:
            objects = {p: _mark(rng) for p in places}
        here = [objects.get(row * GRID + column) for column in range(GRID)]
        words = [w for cell in here for w in _name(cell)]
        return Draft(f"describe {ROWS[row]}.", LOOK, " ".join(words), grid(objects))

    def where(self, rng: random.Random, pool: str) -> Draft:
        objects = self._scatter(rng, 10)
        place = rng.choice(list(objects))
        _, color, shape = objects[place]
        return Draft(f"where is the {color} {shape}?", LOOK, NAMES[place], grid(objects))

    def where_one(self, rng: random.Random, pool: str) -> Draft:
        while True:
            objects, f = self._scatter(rng, 7), rng.choice((1, 2))
            seen = [cell[f] for cell in objects.values()]
            unique = [p for p, cell in objects.items() if seen.count(cell[f]) == 1]
            if unique:
                break
        place = rng.choice(unique)
        question = f"where is the {objects[place][f]} thing?"
        return Draft(question, LOOK, NAMES[place], grid(objects))

    def where_mark(self, rng: random.Random, pool: str) -> Draft:
        places = rng.sample(range(CELLS), rng.randint(1, min(8, self.few)))
        marks = rng.sample(LETTERS + DIGITS, len(places))
        cells = {p: _mark(rng, m) for p, m in zip(places, marks, strict=True)}
        place = rng.choice(places)
        return Draft(f"where is the {cells[place][1]}?", LOOK, NAMES[place], grid(cells))

    def where_all(self, rng: random.Random, pool: str) -> Draft:
        while True:
            places = rng.sample(range(CELLS), rng.randint(1, 8))
            objects: dict[int, Cell] = {
                p: (rng.choice(SIZES), rng.choice(COLORS), rng.choice(SHAPES)) for p in places
            }
            f = rng.randrange(3)
            value = rng.choice(list(objects.values()))[f]
            found = [NAMES[p] for p in sorted(objects) if objects[p][f] == value]
            if len(found) <= 6:
                return Draft(f"where are all {value} things?", LOOK, " ".join(found), grid(objects))

    def there(self, rng: random.Random, pool: str) -> Draft:
        objects, f = self._scatter(rng, 8), rng.choice((1, 2))
        have = sorted({cell[f] for cell in objects.values()})
        lack = [v for v in (COLORS if f == 1 else SHAPES) if v not in have]
        present = rng.random() < 0.5 or not lack
        value = rng.choice(have if present else lack)
        found = [NAMES[p] for p in sorted(objects) if objects[p][f] == value][:6]
        thought = " ".join(found) or "none"
        question = f"is there {value} thing in the image?"
        return Draft(question, thought, "yes" if present else "no", grid(objects))

    def at(self, rng: random.Random, pool: str) -> Draft:
        kind = rng.randrange(4)
        if kind < 2:
            objects = self._scatter(rng, 10)
            place = rng.choice(list(objects))
            asked, answer = ("color", "shape")[kind], objects[place][1 + kind]
            return Draft(f"what {asked} is at {NAMES[place]}?", LOOK, answer, grid(objects))
        if kind == 2:
            places = rng.sample(range(CELLS), rng.randint(1, min(8, self.few)))
            cells = {p: _mark(rng) for p in places}
            place = rng.choice(places)
            asked = "letter" if cells[place][0] == "letter" else "digit"
            answer = cells[place][1]
            return Draft(f"what {asked} is at {NAMES[place]}?", LOOK, answer, grid(cells))
        stain, place = rng.choice(list(STAINS)), rng.randrange(CELLS)
        tex: list[Cell] = [("texture", rng.choice(TEXTURES), stain) for _ in range(CELLS)]
        if rng.random() < 0.3:
            tex = [tex[0]] * CELLS
        if rng.random() < 0.3:
            return Draft(f"what stain is at {NAMES[place]}?", LOOK, stain, tex)
        return Draft(f"what texture is at {NAMES[place]}?", LOOK, tex[place][1], tex)

    def next_to(self, rng: random.Random, pool: str) -> Draft:
        while True:
            place, direction = rng.randrange(CELLS), rng.choice(list(STEPS))
            target = neighbour(place, direction)
            if target is not None:
                break
        objects = scatter(rng, 6, 10)
        seen = objects.get(target, BLANK)
        answer = " ".join(seen[1:]) if seen != BLANK else "none"
        question = f"what is {relation(direction)} {NAMES[place]}?"
        return Draft(question, NAMES[target], answer, grid(objects))

    def locate(self, rng: random.Random, pool: str) -> Draft:
        """Give the place of each of several things: content and place, many times in a reply."""
        objects = self._scatter(rng, 7)
        seen = [value for cell in objects.values() for value in cell[1:]]
        unique = [
            (v, NAMES[p]) for p, cell in objects.items() for v in cell[1:] if seen.count(v) == 1
        ]
        chosen = rng.sample(unique, min(4, len(unique)))
        words = [word for pair in chosen for word in pair] or ["none"]
        return Draft("where are all things?", LOOK, " ".join(words), grid(objects))

    def tour(self, rng: random.Random, pool: str) -> Draft:
        """Name the thing at each of several places: place and content, many times in a reply."""
        if rng.random() < 0.5:
            objects = self._scatter(rng, 10)
        else:
            places = rng.sample(range(CELLS), rng.randint(self.least, min(10, self.few)))
            objects = {p: _mark(rng) for p in places}
        chosen = rng.sample(list(objects), min(4, len(objects)))
        words = [w for p in chosen for w in (NAMES[p], *_name(objects[p])[-2:])]
        return Draft("describe all things.", LOOK, " ".join(words), grid(objects))

    def match(self, rng: random.Random, pool: str) -> Draft:
        values = rng.choice(
            (COLORS, SHAPES, LETTERS, TEXTURES, FACTS, tuple(map(str, range(20))), NAMES)
        )
        value = rng.choice(values)
        return multiple_choice(rng, f"which is {value}", "", value, values, None)

    def beside(self, rng: random.Random, pool: str) -> Draft:
        """An object next to another one, in full."""
        objects, place, direction, target = neighbours(rng)
        _, color, shape = objects[place]
        question = f"what is {relation(direction)} the {color} {shape}?"
        thought = f"{NAMES[place]} {NAMES[target]}"
        return Draft(question, thought, " ".join(objects[target][1:]), grid(objects))

    def long_sign(self, rng: random.Random, pool: str) -> Draft:
        """A sign of three characters, among one or two others."""
        n = rng.choice((2, 3))
        rows, colors = rng.sample(range(GRID), n), rng.sample(SIGN_COLORS, n)
        cells: dict[int, Cell] = {}
        written = []
        for row, color in zip(rows, colors, strict=True):
            kind, marks = ("hand", DIGITS) if rng.random() < 0.5 else ("letter", LETTERS)
            word = [rng.choice(marks) for _ in range(3)]
            start = row * GRID + rng.randint(0, 1)
            for k, mark in enumerate(word):
                cells[start + k] = (kind, mark, color)
            written.append(word)
        question = f"what does the {colors[0]} sign say?"
        return Draft(question, ROWS[rows[0]], " ".join(written[0]), grid(cells))

    def short_sign(self, rng: random.Random, pool: str) -> Draft:
        """A sign of one character, among one or two others."""
        n = rng.choice((2, 3))
        places, colors = rng.sample(range(CELLS), n), rng.sample(SIGN_COLORS, n)
        cells: dict[int, Cell] = {}
        for place, color in zip(places, colors, strict=True):
            kind, marks = ("hand", DIGITS) if rng.random() < 0.5 else ("letter", LETTERS)
            cells[place] = (kind, rng.choice(marks), color)
        question = f"what does the {colors[0]} sign say?"
        return Draft(question, NAMES[places[0]], cells[places[0]][1], grid(cells))

    def fact(self, rng: random.Random, pool: str) -> Draft:
        place, relation_ = rng.choice(PLACES), rng.choice(RELATIONS)
        question = f"what is the {relation_} of {place}?"
        return Draft(question, LOOK, KNOWN[place, relation_])

    def sums(self, rng: random.Random, pool: str) -> Draft:
        kind = rng.random()
        if kind < 0.2:
            i = rng.randrange(len(LETTERS) - 1)
            return Draft(f"what letter is after {LETTERS[i]}?", LOOK, LETTERS[i + 1])
        x, y = rng.randint(0, 9), rng.randint(0, 9)
        if kind < 0.45:
            return Draft(f"what is {x} plus {y}?", LOOK, str(x + y))
        if kind < 0.7:
            x, y = max(x, y), min(x, y)
            return Draft(f"what is {x} minus {y}?", LOOK, str(x - y))
        x, y = rng.randint(2, 9), rng.randint(2, 9)
        if kind < 0.85:
            return Draft(f"what is {x} times {y}?", LOOK, str(x * y))
        return Draft(f"what is twice {x} plus {y}?", LOOK, str(2 * (x + y)))

    def picture(self, rng: random.Random, pool: str) -> Draft:
        """easy-VQA as published, in good light."""
        question, answer, number = rng.choice(easy_vqa()[0][pool])
        light = Light(rng.choice((100, 60, 40)), rng.choice((14, 40)))
        return Draft(question, "clear", answer, picture=number, light=light)

    def makers(self) -> dict[str, Maker]:
        practice: dict[str, Maker] = {
            "describe": self.describe, "row": self.row, "where": self.where,
            "where_one": self.where_one, "where_mark": self.where_mark,
            "where_all": self.where_all, "there": self.there, "at": self.at,
            "next_to": self.next_to, "locate": self.locate, "tour": self.tour,
            "beside": self.beside, "long_sign": self.long_sign, "short_sign": self.short_sign,
            "match": self.match, "fact": self.fact, "sums": self.sums, "picture": self.picture,
        }  # fmt: skip
        return practice | TASKS | GENERAL


def _mark(rng: random.Random, mark: str | None = None) -> Cell:
    mark = mark or rng.choice(LETTERS if rng.random() < 0.6 else DIGITS)
    return ("hand" if mark.isdigit() else "letter", mark, rng.choice(SIGN_COLORS))


def _name(cell: Cell | None) -> tuple[str, ...]:
    if cell is None:
        return ("none",)
    return cell[1:2] if cell[0] in ("letter", "hand") else cell[1:]


def darken(draft: Draft, rng: random.Random) -> Draft:
    """The same question on an unreadable picture: an instructed model declines."""
    return replace(draft, thought="dark", answer="unanswerable", light=rng.choice(DARK))
