"""Rejected captions by rule: one colour, size, count, object, relation or action of a caption is swapped.

No model and no tagger: `lexicon.yaml` lists what may be swapped for what, and a word is only touched when its
neighbours are known to leave the sentence grammatical. Words outside the lexicon therefore yield no edit.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from cwdpo.base.config import Config, read_yaml, validate

Kind = Literal["colour", "size", "count", "object", "relation", "action"]


@dataclass(frozen=True)
class Edit:
    """A caption with one attribute changed: the whole `text`, and the words `old` that became `new`."""

    text: str
    kind: Kind
    old: str
    new: str


class Objects(Config):
    """Nouns that exclude each other and fit the same sentences."""

    words: list[str]
    """One entry per meaning, singular unless `form` is plural; synonyms separated by slashes."""
    form: Literal["count", "mass", "plural"] = "count"
    """How the words are used: with an article, without one (rice), or always in the plural (jeans)."""
    swap: bool = True
    """Off: only known so that sentences around these nouns are understood."""
    many: bool = True
    """Whether a single one may become several."""
    of: bool = False
    """Whether `of` may follow (a bowl of rice)."""
    pronouns: bool = False
    """Whether he and she may refer to it."""
    after: list[str] = []
    """When given, only after these words (determiners and adjectives left out)."""
    after_not: list[str] = []
    """Never after these words (determiners and adjectives left out)."""


class Relations(Config):
    """Prepositions or adverbs of place that exclude each other."""

    words: list[str]
    """One entry per meaning, synonyms separated by slashes."""
    nouns: list[str] = []
    """When given, only before these nouns."""
    after: list[str] = []
    """When given, only right after these words."""
    adverb: bool = False
    """Ends its phrase, rather than being followed by a noun."""
    free: bool = False
    """Fits anywhere, whatever follows."""


class Actions(Config):
    """Verbs that exclude each other and take the same complements."""

    verbs: list[str]
    """One entry per meaning, base forms, synonyms separated by slashes."""
    object: bool = False
    """Whether a noun phrase must follow."""
    nouns: list[str] = []
    """When given, only before these nouns."""
    unless: list[str] = []
    """Never before these nouns."""
    particles: bool = False
    """Whether a particle (down, off) may follow without changing the meaning."""
    sources: list[str] = []
    """When given, only these verbs are replaced, the others are replacements only."""


class Gender(Config):
    """Nouns and the pronouns that go with them."""

    nouns: list[str]
    """Singular nouns."""
    pronouns: list[str]
    """Their pronouns."""


class Determiners(Config):
    """Words that open a noun phrase, by the number of the noun they take."""

    singular: list[str]
    """Before a singular noun."""
    plural: list[str]
    """Before a plural noun."""
    either: list[str]
    """Before both."""


class NumberWords(Config):
    """Words that reveal the number of a noun elsewhere in the caption, and so forbid changing it."""

    always: list[str]
    """Forbid every change."""
    to_one: list[str]
    """Forbid a change from several to one."""
    to_many: list[str]
    """Forbid a change from one to several."""
    not_after: list[str]
    """A singular right after one of these stays singular."""
    no_one_after: list[str]
    """A number right after one of these never becomes one."""


class Lexicon(Config):
    """The content of `lexicon.yaml`; comments there explain each list."""

    colours: list[str]
    """One entry per colour."""
    shades: list[str]
    """Adverbs of colour."""
    sizes: list[list[str]]
    """Groups of opposites."""
    numbers: list[str]
    """One, two, three, in order."""
    several: list[str]
    """Vague quantities of three or more."""
    objects: dict[str, Objects]
    """Groups of nouns."""
    covers: dict[str, list[str]]
    """Pairs of nouns of one group that can be true together."""
    genders: list[Gender]
    """Masculine and feminine."""
    plurals: dict[str, str]
    """Plurals that the spelling rules get wrong."""
    relations: dict[str, Relations]
    """Groups of spatial relations."""
    actions: dict[str, Actions]
    """Groups of verbs."""
    states: list[str]
    """States of a vehicle after its noun."""
    inflections: dict[str, list[str]]
    """Verb forms that the spelling rules get wrong: third person and -ing."""
    verbs: list[str]
    """Other verbs, known so that their number can be kept right."""
    follow: list[str]
    """What may stand right after a noun."""
    lead: list[str]
    """What may stand right before a noun phrase without a determiner."""
    determiners: Determiners
    """What opens a noun phrase."""
    adjectives: list[str]
    """What may stand between a determiner and its noun."""
    binding: list[str]
    """Participles that join the noun before them."""
    ing_nouns: list[str]
    """Nouns in -ing."""
    particles: list[str]
    """Words that change the meaning of the verb before them."""
    number_words: NumberWords
    """Words that forbid a change of number."""
    units: list[str]
    """Phrases that are never taken apart."""


@cache
def lexicon() -> Lexicon:
    """The shipped lexicon, read and validated once; raises `ConfigError` when it is damaged."""
    path = Path(__file__).with_name("lexicon.yaml")
    return validate(Lexicon, read_yaml(path), str(path))


@dataclass(frozen=True)
class Noun:
    """One reading of a noun as it is spelled in a caption."""

    group: str
    entry: int
    singular: str
    number: Literal["one", "many", "same", "mass"]


@dataclass(frozen=True)
class Verb:
    """One reading of a verb as it is spelled in a caption."""

    group: str
    entry: int
    base: str
    form: int


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


def with_s(word: str) -> str:
    """Add the -s of a plural or of the third person: box -> boxes, fly -> flies."""
    if re.search(r"(s|x|z|ch|sh|[^aeio]o)$", word):
        return word + "es"
    return re.sub(r"[^aeiou]y$", lambda found: found[0][0] + "ie", word) + "s"


def with_ing(word: str) -> str:
    """Add -ing: ride -> riding."""
    return re.sub(r"(?<=[^eo])e$", "", word) + "ing"


def article(word: str) -> str:
    """`a` or `an`, by the sound that `word` starts with."""
    vowel = re.match(r"[aeiou]|hour|honest", word.lower()) and not re.match(r"uni|use|uri|uku|eur|one\b", word.lower())
    return "an" if vowel else "a"


class Index:
    """The lexicon turned around: from a spelling to its readings."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.colours = {word: entry for entry, word in _words(lexicon.colours)}
        self.sizes = _by_word(dict(enumerate(lexicon.sizes)))
        self.relations = _by_word({name: group.words for name, group in lexicon.relations.items()})
        self.nouns: dict[str, list[Noun]] = {}
        self.verbs: dict[str, list[Verb]] = {}
        self.plural_verb = {"is": "are", "has": "have", "was": "were", "does": "do"}
        self._add_nouns()
        self._add_verbs()
        self._add_sets()
        self.phrases = self._phrases()

    def _add_nouns(self) -> None:
        for name, group in self.lexicon.objects.items():
            for entry, word in _words(group.words):
                plural = self.plural(word)
                if group.form == "mass":
                    self._add_noun(word, Noun(name, entry, word, "mass"))
                elif group.form == "plural":
                    self._add_noun(word, Noun(name, entry, word, "many"))
                elif plural == word:
                    self._add_noun(word, Noun(name, entry, word, "same"))
                else:
                    self._add_noun(word, Noun(name, entry, word, "one"))
                    self._add_noun(plural, Noun(name, entry, word, "many"))

    def _add_noun(self, spelling: str, noun: Noun) -> None:
        self.nouns.setdefault(spelling, []).append(noun)

    def _add_verbs(self) -> None:
        for name, group in self.lexicon.actions.items():
            for entry, base in _words(group.verbs):
                for form, spelling in enumerate(self.forms(base)):
                    self.verbs.setdefault(spelling, []).append(Verb(name, entry, base, form))
                self.plural_verb[self.forms(base)[1]] = base
        for base in self.lexicon.verbs:
            self.plural_verb.setdefault(self.forms(base)[1], base)
        self.singular_verb = {many: one for one, many in self.plural_verb.items()}

    def _add_sets(self) -> None:
        words = self.lexicon
        self.numbers = {word: value for value, word in enumerate(words.numbers, 1)}
        self.single = set(words.determiners.singular) | {"one", "1"}
        self.plural_words = set(words.determiners.plural) | set(words.numbers[1:])
        self.either = set(words.determiners.either)
        self.modifiers = set(words.adjectives) | self.colours.keys() | self.sizes.keys()
        self.follow = set(words.follow) | self.relations.keys()
        self.lead = set(words.lead) | self.relations.keys()
        self.ing_nouns, self.binding = set(words.ing_nouns), set(words.binding)
        self.particles, self.shades = set(words.particles), set(words.shades)
        self.closed = (self.follow | self.lead | self.particles) - {"it", "all", "both", "each"}
        self.covered = {frozenset((wide, item)) for wide, narrow in words.covers.items() for item in narrow}
        self.gender = {noun: place for place, item in enumerate(words.genders) for noun in item.nouns}

    def _phrases(self) -> dict[str, list[tuple[str, ...]]]:
        known = chain(self.lexicon.units, self.colours, self.sizes, self.relations, self.nouns, self.verbs)
        extra = chain(self.follow, self.lead, self.modifiers, self.plural_words, self.lexicon.number_words.to_one)
        result: dict[str, list[tuple[str, ...]]] = {}
        for phrase in sorted({*known, *extra}, key=lambda text: (-text.count(" "), text)):
            if " " in phrase:
                words = tuple(phrase.split())
                result.setdefault(words[0], []).append(words)
        return result

    def plural(self, noun: str) -> str:
        """Plural of a singular noun; of two words, the last changes."""
        head, _, last = noun.rpartition(" ")
        return self.lexicon.plurals.get(noun) or f"{head} {self.lexicon.plurals.get(last) or with_s(last)}".strip()

    def forms(self, base: str) -> tuple[str, str, str]:
        """Base form, third person and -ing form of a verb; of several words, the first changes."""
        verb, space, rest = base.partition(" ")
        third, ing = self.lexicon.inflections.get(verb) or (with_s(verb), with_ing(verb))
        return base, third + space + rest, ing + space + rest

    def is_determiner(self, key: str) -> bool:
        """Whether `key` opens a noun phrase."""
        return key in self.single or key in self.either or key in self.plural_words or key.isdigit()

    def is_participle(self, key: str) -> bool:
        """Whether `key` looks like a present participle."""
        return key.endswith("ing") and len(key) > 4 and key not in self.ing_nouns

    def readings(self, key: str, number: Literal["one", "many"]) -> list[Noun]:
        """Countable readings of `key` in this number."""
        return [noun for noun in self.nouns.get(key, []) if noun.number in (number, "same")]


def _words(entries: list[str]) -> list[tuple[int, str]]:
    return [(entry, word) for entry, words in enumerate(entries) for word in words.split("/")]


def _by_word(groups: Mapping[str, list[str]] | Mapping[int, list[str]]) -> dict[str, list[tuple[list[str], int, str]]]:
    result: dict[str, list[tuple[list[str], int, str]]] = {}
    for name, entries in groups.items():
        for entry, word in _words(entries):
            result.setdefault(word, []).append((entries, entry, str(name)))
    return result


def _others(entries: list[str], entry: int) -> list[str]:
    """First word of each entry but one; an entry that shares a word with it is left out too."""
    own = set(entries[entry].split("/"))
    return [
        item.split("/")[0] for place, item in enumerate(entries) if place != entry and not own & set(item.split("/"))
    ]


@cache
def index() -> Index:
    """The index of the shipped lexicon, built once."""
    return Index(lexicon())


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
        return {word for noun in nouns for word in (noun.singular, _first(noun))} | self.keys

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


def _first(noun: Noun) -> str:
    return lexicon().objects[noun.group].words[noun.entry].split("/")[0]


def _terms(text: str) -> Iterator[Term]:
    found = list(re.finditer(r"[A-Za-z]+(?:[-'’][A-Za-z]+)*|\d+", text))  # noqa: RUF001
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


def _edit(caption: Caption, kind: Kind, place: int, new: str, more: Mapping[int, str] | None = None) -> Edit:
    return Edit(caption.rewrite({place: new, **(more or {})}), kind, caption.key(place), new)


def _colours(caption: Caption) -> Iterator[Edit]:
    words = index()
    for place, term in enumerate(caption.terms):
        entry = words.colours.get(term.key)
        if entry is None or not _is_colour(caption, place):
            continue
        for new in _others(lexicon().colours, entry):
            shaded = caption.before(place) in words.shades and new in ("black", "white")
            if new not in caption.keys and not shaded:
                yield _edit(caption, "colour", place, new)


def _is_colour(caption: Caption, place: int) -> bool:
    """Not the colour of a person's skin, not the fruit."""
    words, following = index(), caption.key(place + 1)
    if any(lexicon().objects[noun.group].pronouns for noun in words.nouns.get(following, [])):
        return False
    if caption.key(place) != "orange":
        return True
    joined = following in ("and", "or") or caption.terms[place].gap == ","
    neighbour = caption.key(place + 2) if following in ("and", "or") else following
    other = caption.key(place - 2) if caption.before(place) in ("and", "or") else caption.before(place)
    if joined or not caption.after(place):
        colour = joined and neighbour in words.colours
        return colour or other in words.colours or other in words.shades or other in ("is", "are", "in", "painted")
    return following not in words.follow and not words.is_participle(following)


def _sizes(caption: Caption) -> Iterator[Edit]:
    words = index()
    for place, term in enumerate(caption.terms):
        for entries, entry, _ in words.sizes.get(term.key, ()):
            if _is_size(caption, place):
                yield from (_edit(caption, "size", place, new) for new in _others(entries, entry))


def _is_size(caption: Caption, place: int) -> bool:
    key, before, following = caption.key(place), caption.before(place), caption.after(place)
    if following == "than":
        return key.endswith("er")
    if not following or following in ("and", "with"):
        return before in ("is", "are", "very") and not following
    if before in ("as", "how", "that", "feet", "foot", "inches", "so", "too"):
        return False
    return following not in index().closed and not index().is_participle(following)


def _objects(caption: Caption) -> Iterator[Edit]:
    keys = [term.key for term in caption.terms]
    for place, key in enumerate(keys):
        # A noun that comes up again is the same thing: swapping one mention would contradict the other.
        for noun in index().nouns.get(key, ()) if keys.count(key) == 1 else ():
            many = _is_object(caption, place, noun)
            if many is not None:
                yield from (_edit(caption, "object", place, new) for new in _replacements(caption, noun, many))


def _is_object(caption: Caption, place: int, noun: Noun) -> bool | None:
    """Whether this reading of the noun holds and is plural; None when it does not hold or is unclear."""
    group, stated = lexicon().objects[noun.group], caption.stated_number(place)
    closes = caption.closes(place) or (group.of and caption.after(place) == "of")
    if not (group.swap and closes and _is_placed(caption, place, group)) or _is_verb(caption, place):
        return None
    if noun.number == "mass":
        return False if stated in ("bare", "either") else None
    if noun.number == "same":
        return {"one": False, "many": True}.get(stated)
    fits = {"one": ("one", "either"), "many": ("many", "either", "bare")}[noun.number]
    return noun.number == "many" if stated in fits else None


def _is_verb(caption: Caption, place: int) -> bool:
    """Whether a spelling that is also a verb (bikes, ties) follows a subject."""
    words = index()
    before = [noun.number for noun in words.nouns.get(caption.before(place), ())]
    return bool(before) and caption.key(place) in words.plural_verb


def _is_placed(caption: Caption, place: int, group: Objects) -> bool:
    """Whether the word before the noun phrase is one that the group allows."""
    start = caption.phrase_start(place)
    before = caption.before(start)
    if index().is_determiner(before):
        before = caption.before(start - 1)
    return before not in group.after_not and (not group.after or before in group.after)


def _replacements(caption: Caption, noun: Noun, many: bool) -> Iterator[str]:
    words, group = index(), lexicon().objects[noun.group]
    names = {noun.singular, _first(noun)}
    genders = [place for place, item in enumerate(lexicon().genders) if caption.keys & set(item.pronouns)]
    for new in _others(group.words, noun.entry):
        covered = any(frozenset((name, new)) in words.covered for name in names)
        clash = group.pronouns and any(words.gender.get(new, place) != place for place in genders)
        if not (covered or clash or new in caption.present):
            yield words.plural(new) if many and group.form == "count" else new


def _relations(caption: Caption) -> Iterator[Edit]:
    for place, term in enumerate(caption.terms):
        for entries, entry, name in index().relations.get(term.key, ()):
            if _is_relation(caption, place, lexicon().relations[name]):
                new = [item for item in _others(entries, entry) if item not in caption.keys or " " not in item]
                yield from (_edit(caption, "relation", place, item) for item in new)


def _is_relation(caption: Caption, place: int, group: Relations) -> bool:
    before, following = caption.before(place), caption.after(place)
    if group.free:
        return True
    if group.adverb:
        return (not following or following in index().follow) and before not in ("the", "from", "an", "of")
    if before in ("from", "left", "of") or index().is_determiner(before) or not caption.starts_phrase(place + 1):
        return False
    if not following or (group.after and before not in group.after):
        return False
    return not group.nouns or caption.head(place + 1) in group.nouns


def _actions(caption: Caption) -> Iterator[Edit]:
    for place, term in enumerate(caption.terms):
        for verb in index().verbs.get(term.key, ()):
            group = lexicon().actions[verb.group]
            if _has_subject(caption, place, verb.form) and _is_action(caption, place, group, verb.base):
                for new in _others(group.verbs, verb.entry):
                    if not caption.keys & set(index().forms(new)):
                        yield _edit(caption, "action", place, index().forms(new)[verb.form])
        yield from _states(caption, place)


def _has_subject(caption: Caption, place: int, form: int) -> bool:
    """Whether what stands before fits this form: base, third person or -ing."""
    words, before = index(), caption.before(place)
    if form == 0:
        return before in ("to", "who") or bool(words.readings(before, "many"))
    if form == 1:
        return before in ("who", "that", "which") or bool(words.readings(before, "one"))
    return not words.is_determiner(before)


def _is_action(caption: Caption, place: int, group: Actions, base: str) -> bool:
    words, following = index(), caption.after(place)
    if group.sources and base not in group.sources:
        return False
    if not group.object:
        loose = following in words.particles
        return not following or (group.particles if loose else following in words.follow)
    if not following or not caption.starts_phrase(place + 1):
        return False
    head = caption.head(place + 1)
    return head not in group.unless and (not group.nouns or head in group.nouns)


def _states(caption: Caption, place: int) -> Iterator[Edit]:
    """`parked` and its opposites, right after a vehicle or its verb."""
    states, following = lexicon().states, caption.after(place)
    before = caption.before(place)
    vehicle = any(noun.group in ("vehicles", "aircraft") for noun in index().nouns.get(before, ()))
    loose = following in index().particles or following not in {"", *index().follow}
    if caption.key(place) in states and (vehicle or before in ("is", "are")) and not loose:
        yield from (_edit(caption, "action", place, new) for new in states if new != caption.key(place))


def _counts(caption: Caption) -> Iterator[Edit]:
    if caption.keys & set(lexicon().number_words.always) - {"one", "1"}:
        return
    for place, term in enumerate(caption.terms):
        if term.ends:
            continue
        if term.key in ("a", "an", "one", "1"):
            yield from _to_many(caption, place)
        elif term.key in index().numbers or term.key.isdigit():
            yield from _to_other(caption, place)
        elif term.key in lexicon().several:
            yield from _to_two(caption, place)


def _counted(caption: Caption, place: int) -> int:
    """Place of the noun that the number at `place` counts; -1 when unclear."""
    place += 1
    while place < len(caption.terms) - 1 and caption.is_modifier(place) and not caption.terms[place].ends:
        place += 1
    return place if place < len(caption.terms) and caption.closes(place) else -1


def _ones(caption: Caption) -> int:
    return sum(term.key in ("one", "1") for term in caption.terms)


def _to_many(caption: Caption, place: int) -> Iterator[Edit]:
    words, limits = index(), lexicon().number_words
    noun = _counted(caption, place)
    reading = next(iter(words.readings(caption.key(noun), "one")), None) if noun > 0 else None
    number = caption.key(place) in ("one", "1")
    if reading is None or _ones(caption) > number or not lexicon().objects[reading.group].many:
        return
    between = {term.key for term in caption.terms[place + 1 : noun]}
    banned = caption.before(place) in set(limits.not_after) - _expletive(caption, place)
    if banned or between & set(limits.to_many) or caption.shares_determiner(noun):
        return
    agreement = _agreement(caption, place, noun, words.plural_verb, set(limits.to_many))
    if agreement is not None:
        changes = {noun: words.plural(caption.key(noun)), **agreement}
        values = ["2", "3", "4"] if caption.key(place).isdigit() else lexicon().numbers[1:4]
        yield from (_edit(caption, "count", place, new, changes) for new in values)


def _expletive(caption: Caption, place: int) -> set[str]:
    """The verb of `there is a dog`, whose number follows the noun."""
    return {caption.before(place)} if caption.key(place - 2) == "there" else set()


def _agreement(
    caption: Caption, place: int, noun: int, other: Mapping[str, str], banned: set[str]
) -> dict[int, str] | None:
    """Changes to the verb that the noun at `noun` governs when its number changes; None when that is unclear."""
    rest = [term.key for term in caption.terms[noun + 1 :]]
    before, following = caption.before(place), caption.after(noun)
    if _expletive(caption, place):
        known = before in other and not set(rest) & ({"that", "which", "who"} | banned)
        return {place - 1: other[before]} if known and not _governed(caption, noun, other) else None
    if before:
        group = {item.group for item in index().nouns.get(caption.key(noun), ())}
        refers = any(lexicon().objects[name].pronouns for name in group)
        pronouns = banned if refers else banned & {"it", "its", "itself", "it's", "they", "their", "them"}
        unclear = following in other or following in ("that", "which", "who") or set(rest) & pronouns
        return None if unclear else {}
    if set(rest) & banned or following in ("that", "which", "who", "and", "or"):
        return None
    verb = noun + 1 if following in other else -1
    copula = following in ("is", "are", "was", "were") and index().is_determiner(caption.key(noun + 2))
    if copula or _governed(caption, noun if verb < 0 else verb, other):
        return None
    return {verb: other[following]} if verb > 0 else {}


def _governed(caption: Caption, place: int, other: Mapping[str, str]) -> bool:
    """Whether a verb after `place` shows the number of its subject: a known form, or a word that may be one."""
    words = index()
    for later in range(place + 1, len(caption.terms)):
        key, before = caption.key(later), caption.before(later)
        if key in other and before not in words.lead - {"and", "that"} and not words.is_determiner(before):
            return True
        known = key in words.nouns or key in words.follow or caption.is_modifier(later) or key in words.relations
        loose = before in words.lead or words.is_determiner(before) or words.is_participle(before)
        if "is" in other and re.search(r"[^sui]s$", key) and not (known or loose or caption.is_modifier(later - 1)):
            return True
    return False


def _to_other(caption: Caption, place: int) -> Iterator[Edit]:
    key, words = caption.key(place), index()
    noun = _counted(caption, place)
    plural = noun > 0 and (words.readings(caption.key(noun), "many") or re.search(r"[^sui]s$", caption.key(noun)))
    value = int(key) if key.isdigit() else words.numbers[key]
    if not plural or _ones(caption) or not 2 <= value <= 10 or caption.before(place) in ("at", "number"):
        return
    yield from _to_one(caption, place, noun)
    for new in range(max(2, value - 2), min(10, value + 2) + 1):
        if new != value:
            yield _edit(caption, "count", place, str(new) if key.isdigit() else lexicon().numbers[new - 1])


def _to_one(caption: Caption, place: int, noun: int) -> Iterator[Edit]:
    words, limits = index(), lexicon().number_words
    readings = words.readings(caption.key(noun), "many")
    banned = set(limits.to_one)
    between = {term.key for term in caption.terms[place + 1 : noun]}
    forbidden = caption.before(place) in set(limits.no_one_after) or between & banned
    plain = [item for item in readings if lexicon().objects[item.group].form == "count"]
    if forbidden or not plain:
        return
    agreement = _agreement(caption, place, noun, words.singular_verb, banned)
    if agreement is not None:
        new = "1" if caption.key(place).isdigit() else "one"
        yield _edit(caption, "count", place, new, {noun: plain[0].singular, **agreement})


def _to_two(caption: Caption, place: int) -> Iterator[Edit]:
    noun = _counted(caption, place)
    vague = caption.before(place) in {"so", "too", "how", "as", "very", "the", "its", "his", "her", "their", "not"}
    different = {term.key for term in caption.terms[place + 1 : noun]} & {"different", "other"}
    if noun > 0 and not (vague or different) and index().readings(caption.key(noun), "many"):
        yield _edit(caption, "count", place, lexicon().numbers[1])


_RULES = (_colours, _sizes, _counts, _objects, _relations, _actions)


def edits(caption: str) -> list[Edit]:
    """Every edit of `caption` the lexicon allows, grouped by kind, without duplicates and without `caption` itself."""
    parsed = Caption(caption)
    found: dict[str, Edit] = {}
    for edit in chain.from_iterable(rule(parsed) for rule in _RULES):
        if edit.text != caption:
            found.setdefault(edit.text, edit)
    return list(found.values())


def perturb(caption: str, seed: int, kinds: Collection[str] | None = None) -> Edit | None:
    """One edit: a kind drawn uniformly among those available (and in `kinds`), then an edit of it; None if none."""
    return next(_draws(caption, seed, kinds), None)


def perturb_many(caption: str, seed: int, count: int, kinds: Collection[str] | None = None) -> list[Edit]:
    """Up to `count` distinct edits, drawn one after the other as `perturb` draws; the first is `perturb`'s."""
    return list(islice(_draws(caption, seed, kinds), count))


def _draws(caption: str, seed: int, kinds: Collection[str] | None) -> Iterator[Edit]:
    # The caption is part of the seed: otherwise one seed would draw the same rank of kind in every caption.
    chance = random.Random(f"{seed}:{caption}")
    left = [edit for edit in edits(caption) if kinds is None or edit.kind in kinds]
    while left:
        kind = chance.choice(list(dict.fromkeys(edit.kind for edit in left)))
        edit = chance.choice([item for item in left if item.kind == kind])
        left.remove(edit)
        yield edit
