"""The objects of COCO that a text names, by the rules of the CHAIR metric.

Words are brought to the singular by looking their plurals up, so "bus" and "glass" stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cwdpo.base.config import read_yaml

STOP = re.compile(r"(?<!\.)\.(?=[\"'\u201d\u2019\u00bb;*:@(){}\[\]!?]|\s|$)")
"""A full stop that ends a word; in "3.5" and "dog.cat" it is part of one."""
MARK = re.compile(r"\.{2,}|--|''|[;@#$%&?!*()\[\]{}<>\"`\u00ab\u00bb\u2018-\u201e\u2012-\u2015]|[:,](?!\d)")
"""What is a token of its own. A hyphen or a slash is none: "tennis-racket" is one word, and no object."""
CLITIC = re.compile(r"(?<=\w)(?='(?:s|m|d|ll|re|ve)?(?:\s|'|$))|(?<=\s')(?=\w)")
"""Where a word ends before an apostrophe, or begins after a quote."""


class Mention(NamedTuple):
    """A word of a text, in the singular, and the object that it names."""

    word: str
    object: str


@dataclass(frozen=True, slots=True)
class Names:
    """What counts as naming an object.

    Attributes:
        singular: a word or one of its plurals -> the word.
        objects: word -> object.
        pairs: two words that are one -> what they are read as, "" where they are no object.
    """

    singular: Mapping[str, str]
    objects: Mapping[str, str]
    pairs: Mapping[tuple[str, str], str]

    def mentioned(self, text: str) -> list[Mention]:
        """Every mention of an object, in order; an object that is named twice is mentioned twice."""
        words = list(self._joined([self.singular.get(word, word) for word in tokens(text)]))
        if "toilet" in words:  # the seat of a toilet is no chair, wherever the text speaks of it
            words = [word for word in words if word != "seat"]
        return [Mention(word, self.objects[word]) for word in words if word in self.objects]

    def _joined(self, words: Sequence[str]) -> Iterator[str]:
        """Words, pairs as one."""
        place = 0
        while place < len(words):
            pair = self.pairs.get((words[place], words[place + 1])) if place + 1 < len(words) else None
            yield words[place] if pair is None else pair
            place += 1 if pair is None else 2


def tokens(text: str) -> list[str]:
    """Words and marks in small letters; a full stop is apart from the word that it ends."""
    parted = MARK.sub(r" \g<0> ", STOP.sub(" . ", text.lower()))
    return CLITIC.sub(" ", f" {parted} ").split()


@cache
def coco_names() -> Names:
    """COCO's 80 objects."""
    content = read_yaml(Path(__file__).with_name("coco.yaml"))
    words: Mapping[str, Sequence[str]] = content["words"]
    objects = {word: name for name, others in words.items() for word in (name, *others)}
    pairs = {pair: name or "" for pair, name in content["pairs"].items()}
    pairs |= {f"{age} {one}": one for age in content["ages"] for one in content["animals"]}
    known = sorted({*objects, *(part for pair in pairs for part in pair.split())})
    singular = {plural: word for word in known for plural in _plurals(word, content["plurals"])}
    return Names(
        singular | {word: word for word in known},  # "skis", "people" and "oxen" are words themselves
        objects,
        {(first, second): name for pair, name in pairs.items() for first, second in [pair.split()]},
    )


def _plurals(word: str, irregular: Mapping[str, str]) -> Iterator[str]:
    """All that may be meant as plurals of a word; "knifes" and "buffaloes" too."""
    if word in irregular:
        yield irregular[word]
    if not word.endswith("s"):
        yield f"{word}s"
    if word.endswith(("s", "x", "ch", "sh", "o")):
        yield f"{word}es"
    if re.search("[^aeiou]y$", word):
        yield f"{word[:-1]}ies"
