"""A caption cut into terms, with the questions about neighbours that decide whether an edit stays grammatical."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cwdpo.negatives.lexicon import article, first_synonym, index


@dataclass(frozen=True)
class Term:
    """A word or a unit of words of a caption, in lower case, with what stands between it and the next one."""

    key: str
    start: int
    end: int
    gap: str

    @property
    def ends(self) -> bool:
        """Whether a punctuation mark or the end of the caption follows."""
        return self.gap != ""


@dataclass
class Caption:
    """A caption cut into terms, with the questions about neighbours that the rules ask."""

    text: str
    terms: list[Term] = field(init=False)

    def __post_init__(self) -> None:
        self.terms = list(_terms(self.text))

    @cached_property
    def keys(self) -> set[str]:
        """Every term of the caption."""
        return {term.key for term in self.terms}

    @cached_property
    def present(self) -> set[str]:
        """Every noun of the caption in the singular, and the first synonym of each."""
        nouns = [noun for key in self.keys for noun in index().nouns.get(key, [])]
        return {word for noun in nouns for word in (noun.singular, first_synonym(noun))} | self.keys

    def key(self, place: int) -> str:
        """The term at `place`, empty outside the caption."""
        return self.terms[place].key if 0 <= place < len(self.terms) else ""

    def before(self, place: int) -> str:
        """The term before `place` in the same clause, empty when there is none."""
        return "" if place == 0 or self.terms[place - 1].ends else self.terms[place - 1].key

    def after(self, place: int) -> str:
        """The term after `place` in the same clause, empty when there is none."""
        return "" if self.terms[place].ends else self.key(place + 1)

    def rewrite(self, changes: Mapping[int, str]) -> str:
        """The caption with the terms at these places replaced, capitals and a preceding a or an kept right."""
        first = min(changes)
        changes = dict(changes)
        if self.before(first) in ("a", "an"):
            changes[first - 1] = article(changes[first])
        text = self.text
        for place in sorted(changes, reverse=True):
            term = self.terms[place]
            text = text[: term.start] + self._cased(term, changes[place]) + text[term.end :]
        return text

    def _cased(self, term: Term, new: str) -> str:
        if self.text.isupper():
            return new.upper()
        return new[0].upper() + new[1:] if self.text[term.start].isupper() else new

    def is_modifier(self, place: int) -> bool:
        """Whether the term at `place` can stand between a determiner and a noun."""
        key, words = self.key(place), index()
        if key == "and":
            return {self.key(place - 1), self.key(place + 1)} <= words.modifiers
        if key in words.modifiers or (key.endswith("ed") and len(key) > 4 and key not in words.binding):
            return True
        return words.is_participle(key) and words.is_determiner(self.before(place))

    def phrase_start(self, place: int) -> int:
        """Place of the first modifier of the noun at `place`."""
        while place > 0 and self.terms[place - 1].gap in ("", ",") and self.is_modifier(place - 1):
            place -= 1
        return place

    def head(self, place: int) -> str:
        """Head of the noun phrase that starts at `place`, in the singular where known; empty when unclear."""
        words = index()
        while words.is_determiner(self.key(place)) or (self.is_modifier(place) and not self.closes(place)):
            if self.terms[place].ends:
                return ""
            place += 1
        if place >= len(self.terms) or not self.closes(place):
            return ""
        return next((noun.singular for noun in words.nouns.get(self.key(place), [])), self.key(place))

    def closes(self, place: int) -> bool:
        """Whether the noun at `place` ends its noun phrase, as far as the next term tells."""
        words, key, following = index(), self.key(place), self.after(place)
        if not following or following in words.follow or words.is_participle(following):
            return True
        if following in words.plural_verb and not words.nouns.get(following):
            return bool(words.readings(key, "one"))
        if following in words.singular_verb:
            return bool(words.readings(key, "many"))
        joins = following in words.binding or not following.endswith("ed") or len(following) < 6
        return not joins and self.after(place + 1) in ("", *words.follow)

    def shares_determiner(self, place: int) -> bool:
        """Whether the determiner of the noun at `place` also serves another one (a knife and fork)."""
        joined = self.after(place) in ("and", "or")
        if not joined and self.terms[place].gap != ",":
            return False
        key, words = self.key(place + 1 + joined), index()
        return not (words.is_determiner(key) or key in words.closed or words.is_participle(key) or key == "")

    def starts_phrase(self, place: int) -> bool:
        """Whether a noun phrase or an object pronoun can start at `place`."""
        key = self.key(place)
        return key != "" and key not in index().closed and not index().is_participle(key)

    def stated_number(self, place: int) -> str:
        """What stands before the noun at `place`: one, many, either, bare; empty when unclear."""
        words, key = index(), self.before(self.phrase_start(place))
        if words.is_determiner(key) or key.endswith("'s"):
            many = key in words.plural_words or (key.isdigit() and key != "1")
            return "one" if key in words.single else "many" if many else "either"
        opens = key == "" or key in words.lead or words.is_participle(key) or key in words.plural_verb
        return "bare" if opens else ""


def _terms(text: str) -> Iterator[Term]:
    found = list(re.finditer(r"[A-Za-z]+(?:[-'\u2019][A-Za-z]+)*|\d+", text))
    words = [match[0].lower() for match in found]
    ends = [match.start() for match in found[1:]] + [len(text)]
    gaps = [text[match.end() : end].strip() for match, end in zip(found, ends, strict=False)]
    gaps[-1:] = [gaps[-1] or "."] if gaps else []
    place = 0
    while place < len(found):
        size = _unit_size(words, gaps, place)
        last = place + size - 1
        yield Term(" ".join(words[place : last + 1]), found[place].start(), found[last].end(), gaps[last])
        place = last + 1


def _unit_size(words: list[str], gaps: list[str], place: int) -> int:
    for phrase in index().phrases.get(words[place], ()):
        size = len(phrase)
        if tuple(words[place : place + size]) == phrase and not any(gaps[place : place + size - 1]):
            return size
    return 1
