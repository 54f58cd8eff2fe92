"""Words that may be swapped for one another: the schema of `lexicon.yaml`, its index by spelling, and word forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal

from cwdpo.base.config import Config, read_yaml, validate


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


def other_entries(entries: list[str], entry: int) -> list[str]:
    """First word of each entry but one; an entry that shares a word with it is left out too."""
    own = set(entries[entry].split("/"))
    return [
        item.split("/")[0] for place, item in enumerate(entries) if place != entry and not own & set(item.split("/"))
    ]


@cache
def index() -> Index:
    """The index of the shipped lexicon, built once."""
    return Index(lexicon())


def first_synonym(noun: Noun) -> str:
    """The word that stands for the noun and its synonyms."""
    return lexicon().objects[noun.group].words[noun.entry].split("/")[0]
