"""What can be asked about a scene, with the true answer and false ones of the same kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_scenes import COLOURS, COUNTS, PLACES, SHAPES, SIZES, Group, Pair, Single, Thing, with_articles

VALUES: Mapping[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "count": ("one", *COUNTS.values()),
    "place": tuple(PLACES),
}
"""Kinds of facts -> all values that they can have."""

QUESTIONS = {
    "colour": "What colour is {}?",
    "shape": "What shape is {}?",
    "size": "What size is {}?",
    "count": "How many things are there?",
    "place": "Where is {}?",
}
CLAIMS = {
    "colour": "Is {} {}?",
    "shape": "Is {} a {}?",
    "size": "Is {} {}?",
    "count": "Is the number of things {1}?",
    "place": "Is the place of {} the {}?",
}


@dataclass(frozen=True)
class Fact:
    """Something that is true of a scene.

    Attributes:
        kind: a key of `VALUES`.
        subject: what it is true of, such as "the circle".
        value: one of the values of its kind.
    """

    kind: str
    subject: str
    value: str

    @property
    def question(self) -> str:
        """What the value answers."""
        return QUESTIONS[self.kind].format(self.subject)

    @property
    def others(self) -> list[str]:
        """Values of its kind that it has not."""
        return [value for value in VALUES[self.kind] if value != self.value]

    def claim(self, value: str) -> str:
        """The question whether it has a value."""
        return with_articles(CLAIMS[self.kind].format(self.subject, value))

    def false(self, number: int) -> str:
        """A value that it has not, another one for the next number."""
        return self.others[number % len(self.others)]

    def choices(self, number: int) -> tuple[list[str], int]:
        """At most four values to choose from, and the place of the true one, which goes round with `number`."""
        turned = rotated(self.others, number)[:3]
        place = number % (len(turned) + 1)
        return [*turned[:place], self.value, *turned[place:]], place


def rotated(values: Sequence[str], by: int) -> list[str]:
    """The same values from another one on."""
    start = by % len(values)
    return [*values[start:], *values[:start]]


def facts(seen: Seen) -> Iterator[Fact]:
    """All that can be asked about a scene; each names what it is about so that there is one answer."""
    thing, scene = seen.things[0], seen.scene
    yield Fact("count", "", VALUES["count"][len(seen.things) - 1])
    if isinstance(scene, Pair):
        yield from _looks(thing, *[f"the thing {scene.relation} the {scene.second}"] * 2)
        return
    every = "each" if isinstance(scene, Group) else "the"
    yield from _looks(thing, f"{every} {thing.shape}", f"{every} {thing.colour} thing")
    if isinstance(scene, Single):
        yield Fact("place", f"the {thing.shape}", scene.place)


def _looks(thing: Thing, subject: str, without_shape: str) -> Iterator[Fact]:
    yield Fact("colour", subject, thing.colour)
    yield Fact("shape", without_shape, thing.shape)
    yield Fact("size", subject, thing.size)


def picked(scenes: Sequence[Seen], count: int, kinds: Sequence[str] = tuple(VALUES)) -> list[tuple[Seen, Fact]]:
    """At most `count` facts with their scenes, of all kinds in turn and each only once, spread over the scenes."""
    pools = []
    for place, kind in enumerate(kinds):
        start = place * len(scenes) // len(kinds)
        ordered = [*scenes[start:], *scenes[:start]]
        pools.append([(seen, fact) for seen in ordered for fact in facts(seen) if fact.kind == kind])
    return list(islice((one for turn in zip_longest(*pools) for one in turn if one), count))


def named(thing: Thing) -> str:
    """A thing by colour and shape, such as "red circle"."""
    return f"{thing.colour} {thing.shape}"
