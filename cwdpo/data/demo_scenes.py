"""Scenes of the demo world: drawn at random, rendered with Pillow, and told in plain English.

A scene has one canonical truth: of two things the upper one, or the left one, is named first. `captions` starts
with the canonical sentence; the other wordings say the same and serve as further references.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image, ImageDraw

Point = tuple[float, float]

COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 145, 30),
    "yellow": (240, 220, 50),
    "green": (45, 165, 70),
    "blue": (45, 90, 215),
    "purple": (145, 55, 175),
}
SHAPES = ("circle", "square", "triangle", "diamond")
SIZES = {"small": 0.1, "large": 0.19}
"""Radius of a thing, in image widths."""

COUNTS = {2: "two", 3: "three", 4: "four"}
PLACES = {
    "top left": (0.25, 0.25),
    "top right": (0.75, 0.25),
    "bottom left": (0.25, 0.75),
    "bottom right": (0.75, 0.75),
    "middle": (0.5, 0.5),
}
RELATIONS = {"above": ("below", (0.0, -0.25)), "to the left of": ("to the right of", (-0.25, 0.0))}
"""Canonical relation -> its inverse, and where the first thing lies seen from the middle, in image widths."""

WORDS = frozenset({*COLOURS, *SHAPES, *SIZES, *COUNTS.values(), "top", "bottom", "left", "right", "above", "below"})
"""Words that carry a fact about a scene: the ones an annotator can get wrong."""

REFERENCES = 5
_OVERSAMPLING = 4
_PAPER = 205


@dataclass(frozen=True)
class Thing:
    """What a thing looks like."""

    colour: str
    shape: str
    size: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"

    @classmethod
    def draw(cls, rng: random.Random) -> Thing:
        """A thing drawn uniformly."""
        return cls(rng.choice(tuple(COLOURS)), rng.choice(SHAPES), rng.choice(tuple(SIZES)))


@dataclass(frozen=True)
class Single:
    """One thing at a named place."""

    thing: Thing
    place: str

    def centres(self, rng: random.Random) -> list[tuple[Thing, Point]]:
        """Every thing with its centre, in image widths."""
        return [(self.thing, _jitter(PLACES[self.place], 0.05, rng))]

    def wordings(self) -> list[str]:
        """Sentences that state the scene, the canonical one first."""
        thing, where = self.thing, f"the {self.place}"
        within = "in" if self.place == "middle" else "at"
        plain = f"{thing.colour} {thing.shape}"
        return [
            f"a {thing} {within} {where}",
            f"there is a {thing} {within} {where}",
            f"{within} {where} there is a {thing}",
            f"a {plain} that is {thing.size} {within} {where}",
            f"the picture shows a {thing} {within} {where}",
            f"a {thing.size} {thing.shape} in {thing.colour} {within} {where}",
            f"a {thing} can be seen {within} {where} of the picture",
            f"one {thing} {within} {where} and nothing else",
        ]

    @classmethod
    def draw(cls, rng: random.Random) -> Single:
        """A scene drawn uniformly."""
        return cls(Thing.draw(rng), rng.choice(tuple(PLACES)))


@dataclass(frozen=True)
class Group:
    """Several equal things, scattered."""

    thing: Thing
    count: int

    def centres(self, rng: random.Random) -> list[tuple[Thing, Point]]:
        """Every thing with its centre, in image widths; no two overlap."""
        cells = [place for name, place in PLACES.items() if name != "middle"]
        room = 0.24 - SIZES[self.thing.size]
        return [(self.thing, _jitter(cell, room, rng)) for cell in rng.sample(cells, self.count)]

    def wordings(self) -> list[str]:
        """Sentences that state the scene, the canonical one first."""
        thing, count = self.thing, COUNTS[self.count]
        return [
            f"{count} {thing}s",
            f"there are {count} {thing}s",
            f"a picture of {count} {thing}s",
            f"{count} {thing.colour} {thing.shape}s that are {thing.size}",
            f"the picture shows {count} {thing}s",
            f"{count} {thing.size} {thing.shape}s in {thing.colour}",
            f"a group of {count} {thing}s",
            f"{count} {thing}s and nothing else",
        ]

    @classmethod
    def draw(cls, rng: random.Random) -> Group:
        """A scene drawn uniformly."""
        return cls(Thing.draw(rng), rng.choice(tuple(COUNTS)))


@dataclass(frozen=True)
class Pair:
    """Two different things, one above or to the left of the other."""

    first: Thing
    second: Thing
    relation: str

    def centres(self, rng: random.Random) -> list[tuple[Thing, Point]]:
        """Every thing with its centre, in image widths; no two overlap."""
        right, down = RELATIONS[self.relation][1]
        first, second = (0.5 + right, 0.5 + down), (0.5 - right, 0.5 - down)
        return [(self.first, _jitter(first, 0.06, rng)), (self.second, _jitter(second, 0.06, rng))]

    def wordings(self) -> list[str]:
        """Sentences that state the scene, the canonical one first."""
        first, second, relation = self.first, self.second, self.relation
        inverse = RELATIONS[relation][0]
        return [
            f"a {first} {relation} a {second}",
            f"there is a {first} {relation} a {second}",
            f"a {second} {inverse} a {first}",
            f"the picture shows a {first} {relation} a {second}",
            f"a {first} lies {relation} a {second}",
            f"{relation} a {second} there is a {first}",
            f"a {first} and {inverse.removeprefix('to ')} it a {second}".replace("and the", "and to the"),
            f"one {first} {relation} one {second}",
        ]

    @classmethod
    def draw(cls, rng: random.Random) -> Pair:
        """A scene drawn uniformly among those whose two things differ."""
        first = second = Thing.draw(rng)
        while second == first:
            second = Thing.draw(rng)
        return cls(first, second, rng.choice(tuple(RELATIONS)))


Scene = Single | Group | Pair


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """`REFERENCES` different sentences about `scene`, the canonical one first."""
    canonical, *others = scene.wordings()
    return [with_articles(sentence) for sentence in [canonical, *rng.sample(others, REFERENCES - 1)]]


def with_articles(sentence: str) -> str:
    """Put "an" before a vowel and "a" elsewhere."""
    return re.sub(r"\ban? (?=(\w))", lambda found: "an " if found[1] in "aeiou" else "a ", sentence)


def render(scene: Scene, side: int, rng: random.Random) -> Image.Image:
    """Draw `scene` on `side` x `side` pixels, with slight jitter of places, sizes, tilt, colours and paper."""
    large = side * _OVERSAMPLING
    image = Image.new("RGB", (large, large), _shade((_PAPER,) * 3, 12, rng))
    pen = ImageDraw.Draw(image)
    for thing, (across, down) in scene.centres(rng):
        radius = SIZES[thing.size] * rng.uniform(0.9, 1.05)
        corners = _outline(thing.shape, radius, rng.uniform(-0.12, 0.12))
        points = [((across + x) * large, (down + y) * large) for x, y in corners]
        pen.polygon(points, fill=_shade(COLOURS[thing.colour], 14, rng))
    return image.resize((side, side), Image.Resampling.BOX)


def _outline(shape: str, radius: float, tilt: float) -> list[Point]:
    """Corners around the origin. A diamond is taller than wide: a mere turned square is hard to tell at 10 pixels."""
    corners = {"circle": 40, "triangle": 3}.get(shape, 4)
    turn = math.pi / 4 if shape == "square" else 0.0
    wide, tall = (0.65, 1.1) if shape == "diamond" else (1.0, 1.0)
    angles = [turn - math.pi / 2 + 2 * math.pi * corner / corners for corner in range(corners)]
    return [_turned((wide * radius * math.cos(a), tall * radius * math.sin(a)), tilt) for a in angles]


def _turned(point: Point, angle: float) -> Point:
    (x, y), cos, sin = point, math.cos(angle), math.sin(angle)
    return x * cos - y * sin, x * sin + y * cos


def _jitter(point: Point, reach: float, rng: random.Random) -> Point:
    return point[0] + rng.uniform(-reach, reach), point[1] + rng.uniform(-reach, reach)


def _shade(colour: tuple[int, ...], reach: int, rng: random.Random) -> tuple[int, ...]:
    return tuple(min(255, max(0, channel + rng.randint(-reach, reach))) for channel in colour)


class SceneMix:
    """Draws scenes: the kinds by their shares, everything inside a kind uniformly."""

    KINDS: ClassVar[tuple[type[Single], type[Group], type[Pair]]] = (Single, Group, Pair)

    def __init__(self, singles: float, groups: float, pairs: float) -> None:
        self.shares = (singles, groups, pairs)

    def draw(self, rng: random.Random) -> Scene:
        """A random scene."""
        kind = rng.choices(self.KINDS, self.shares)[0]
        return kind.draw(rng)
