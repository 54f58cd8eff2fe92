"""Rejected captions by rule: one colour, size, count, object, relation or action of a caption is swapped.

No model and no tagger: `lexicon.yaml` lists what may be swapped for what, and a word is only touched when its
neighbours are known to leave the sentence grammatical. Words outside the lexicon therefore yield no edit.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

from cwdpo.negatives.caption import Caption
from cwdpo.negatives.lexicon import Actions, Noun, Objects, Relations, first_synonym, index, lexicon, other_entries

Kind = Literal["colour", "size", "count", "object", "relation", "action"]


@dataclass(frozen=True)
class Edit:
    """A caption with one attribute changed: the whole `text`, and the words `old` that became `new`."""

    text: str
    kind: Kind
    old: str
    new: str


def _edit(caption: Caption, kind: Kind, place: int, new: str, more: Mapping[int, str] | None = None) -> Edit:
    return Edit(caption.rewrite({place: new, **(more or {})}), kind, caption.key(place), new)


def _colours(caption: Caption) -> Iterator[Edit]:
    words = index()
    for place, term in enumerate(caption.terms):
        entry = words.colours.get(term.key)
        if entry is None or not _is_colour(caption, place):
            continue
        for new in other_entries(lexicon().colours, entry):
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
                yield from (_edit(caption, "size", place, new) for new in other_entries(entries, entry))


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
    names = {noun.singular, first_synonym(noun)}
    genders = [place for place, item in enumerate(lexicon().genders) if caption.keys & set(item.pronouns)]
    for new in other_entries(group.words, noun.entry):
        covered = any(frozenset((name, new)) in words.covered for name in names)
        clash = group.pronouns and any(words.gender.get(new, place) != place for place in genders)
        if not (covered or clash or new in caption.present):
            yield words.plural(new) if many and group.form == "count" else new


def _relations(caption: Caption) -> Iterator[Edit]:
    for place, term in enumerate(caption.terms):
        for entries, entry, name in index().relations.get(term.key, ()):
            if _is_relation(caption, place, lexicon().relations[name]):
                new = [item for item in other_entries(entries, entry) if item not in caption.keys or " " not in item]
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
                for new in other_entries(group.verbs, verb.entry):
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
