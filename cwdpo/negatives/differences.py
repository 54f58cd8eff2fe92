"""What a wrong text says differently from a right one, as phrases that can be asked about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from cwdpo.negatives.caption import Caption
from cwdpo.negatives.lexicon import index

ARTICLES = frozenset(("a", "an", "the"))
"""A difference in these alone is none."""
CLOSE = 0.5
"""Share of common words (difflib's ratio) under which two texts only share words by accident."""


@dataclass(frozen=True)
class Difference:
    """A phrase of the wrong text and what the right one has in its place.

    Attributes:
        wrong: empty where words are only missing.
        right: empty where nothing is in its place.
        things: whether both are noun phrases, such as `a blue ball`.
    """

    wrong: str
    right: str
    things: bool


def differences(wrong: str, right: str) -> list[Difference]:
    """Each place where the texts differ, with the words around it that make it a phrase; in order.

    Empty for texts that have little in common or letters that English has not. A place is left out when it makes no
    phrase, as the last word of `The ball is blue.`
    """
    if not all(letter.isascii() for letter in wrong + right if letter.isalpha()):
        return []
    edits = _edits(Caption(wrong), Caption(right))
    phrases = [_widened(edit, *common) for edit, common in zip(edits, _common(edits), strict=True)]
    return [_difference(edit, phrase) for edit, phrase in zip(edits, phrases, strict=True) if _tells(phrase)]


@dataclass(frozen=True)
class Span:
    """Terms `start` to `end` (not included) of a caption."""

    caption: Caption
    start: int
    end: int

    @property
    def keys(self) -> list[str]:
        """Its words in lower case."""
        return [term.key for term in self.caption.terms[self.start : self.end]]

    @property
    def text(self) -> str:
        """Its words as they are written; empty without words."""
        terms = self.caption.terms[self.start : self.end]
        return self.caption.text[terms[0].start : terms[-1].end] if terms else ""

    @property
    def ends(self) -> bool:
        """Whether a punctuation mark follows."""
        return self.start < self.end and self.caption.terms[self.end - 1].ends

    @property
    def unfinished(self) -> bool:
        """Whether no phrase ends here: after a determiner, an adjective, a preposition, a verb, part of a noun."""
        if self.start == self.end:
            return False
        words, last, key = index(), self.end - 1, self.caption.key(self.end - 1)
        if key in words.nouns:
            return not self.caption.closes(last)
        verb = key in words.verbs or key in words.plural_verb or key in words.singular_verb or words.is_participle(key)
        opens = verb or words.is_determiner(key) or key in words.closed
        return opens or self.caption.is_modifier(last) or not self.caption.closes(last)

    @property
    def is_thing(self) -> bool:
        """Whether it is a determiner, modifiers, and a noun."""
        keys, modifiers = self.keys, range(self.start + 1, self.end - 1)
        if len(keys) < 2 or not index().is_determiner(keys[0]):
            return False
        return keys[-1] in index().nouns and all(map(self.caption.is_modifier, modifiers))

    @property
    def is_modified(self) -> bool:
        """Whether the word before belongs to its phrase."""
        words, before = index(), self.caption.before(self.start)
        if before == "" or words.is_determiner(self.caption.key(self.start)):
            return False
        return words.is_determiner(before) or self.caption.is_modifier(self.start - 1)


Pair = tuple[Span, Span]
"""A span of the wrong text, and the one of the right text in its place; one of them may be empty."""


def _edits(wrong: Caption, right: Caption) -> list[Pair]:
    """Spans that differ, in order; those of one phrase (`two red balls`, `a red ball`) joined."""
    wrong_keys, right_keys = ([term.key for term in caption.terms] for caption in (wrong, right))
    matcher = SequenceMatcher(None, wrong_keys, right_keys, autojunk=False)
    edits: list[Pair] = []
    for tag, *ends in matcher.get_opcodes() if matcher.ratio() >= CLOSE else []:
        edit = Span(wrong, *ends[:2]), Span(right, *ends[2:])
        if edits and tag != "equal" and _reaches(edits[-1], edit):
            edit = _between(edits.pop(), edit)
        if tag != "equal":
            edits.append(edit)
    return edits


def _reaches(edit: Pair, following: Pair) -> bool:
    """Whether the phrase of an edit goes on up to the one that follows."""
    widths = range(following[0].start - edit[0].end + 1)
    return all(_goes_on(_wider(edit, right=width)) for width in widths)


def _goes_on(edit: Pair) -> bool:
    return any(span.unfinished for span in edit) and not any(span.ends for span in edit)


def _between(first: Pair, last: Pair) -> Pair:
    return replace(first[0], end=last[0].end), replace(first[1], end=last[1].end)


def _wider(edit: Pair, left: int = 0, right: int = 0) -> Pair:
    wrong, true = (replace(span, start=span.start - left, end=span.end + right) for span in edit)
    return wrong, true


def _common(edits: Sequence[Pair]) -> Iterator[tuple[int, int]]:
    """How many words are equal right before and right after each edit."""
    for place, (wrong, _) in enumerate(edits):
        before = edits[place - 1][0].end if place else 0
        after = edits[place + 1][0].start if place + 1 < len(edits) else len(wrong.caption.terms)
        yield wrong.start - before, after - wrong.end


def _widened(edit: Pair, before: int, after: int) -> Pair:
    """The edit with so many of the equal words around it as make it a phrase."""
    while after and _goes_on(edit):
        edit, after = _wider(edit, right=1), after - 1
    while before and all(span.is_modified for span in edit):
        edit, before = _wider(edit, left=1), before - 1
    return edit


def _tells(phrase: Pair) -> bool:
    """Whether both are whole phrases that differ in more than an article."""
    wrong, right = phrase
    return not (wrong.unfinished or right.unfinished or set(wrong.keys) ^ set(right.keys) <= ARTICLES)


def _difference(edit: Pair, phrase: Pair) -> Difference:
    wrong, right = phrase
    return Difference(wrong.text if edit[0].keys else "", right.text, wrong.is_thing and right.is_thing)
