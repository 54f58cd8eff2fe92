"""Stated fractions from several sources."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from cwdpo.base.config import Config, Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record
from cwdpo.negatives.plain import Plain
from cwdpo.negatives.source import Made, Offer, Part, Source, all_named, usable, within
from cwdpo.objectives.supply import Supply

TAKEN = ("adapter", "images", "model", "negatives", "pairs", "share")
"""What no source can be called: it has a meaning of its own among the inputs of a stage."""


class Fraction(Config):
    """A source, and how many of the records it serves."""

    share: Annotated[float | None, Neutral(None)] = Field(default=None, ge=0, le=1)
    """Of the records that any source has something for; one source may leave it out and gets the rest."""
    negatives: Plain = Field(discriminator="source")
    """Where its rejected responses come from."""


class Mixed(Source):
    """Each record has its rejected responses from one source; how many records each serves is exact over the portion.

    Which ones is drawn by seed. Only records that a source has nothing for can shift the fractions, and only where the
    others do not make up for them; the summary says how many records each has served (`served`), and each rejected
    response by which it was (`how.part`).
    """

    source: Literal["mixed"]
    of: Mapping[str, Fraction]
    """Name -> source and share; a name is of lower-case letters, digits and _. Every source with a share above 0 is
    asked about all records, however small it is: an `llm` that serves a fifth of them still writes, and costs, for
    all."""
    seed: int = 0
    """Of who serves which record; the source's own, the same for all seeds of training and all rounds of a refresh."""

    makes: ClassVar[Mapping[Supply, str]] = {}

    @model_validator(mode="after")
    def _have_names(self) -> Mixed:
        for name in self.of:
            if name in TAKEN or not re.fullmatch("[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"of: '{name}' cannot be the name of a source; valid: lower-case letters, digits and _, a letter"
                    f" first, but not {', '.join(TAKEN)}"
                )
        return self

    @model_validator(mode="after")
    def _fill_a_whole(self) -> Mixed:
        stated = [part.share for part in self.of.values() if part.share is not None]
        left_out = [name for name, part in self.of.items() if part.share is None]
        if not self.of:
            raise ValueError("of: names no source")
        if len(left_out) > 1:
            raise ValueError(f"of: only one source may leave out its share; {', '.join(left_out)} do")
        if sum(stated) > 1 + 1e-9 or (not left_out and abs(sum(stated) - 1) > 1e-9):
            raise ValueError(f"of: the shares are {sum(stated):g} together, not 1")
        return self

    def __hash__(self) -> int:
        """Of the value: settings are looked up by it, and a mapping has none."""
        return hash((self.seed, frozenset(self.of.items())))

    @property
    def shares(self) -> dict[str, float]:
        """Name -> share, of the sources that have one at all, by name: a file's order is no part of an identity."""
        rest = max(0.0, 1 - sum(part.share or 0.0 for part in self.of.values()))
        shares = {name: rest if part.share is None else part.share for name, part in self.of.items()}
        return {name: share for name, share in sorted(shares.items()) if share > 1e-9}

    def parts(self) -> Mapping[str, Part]:
        """Those of every source that serves any record."""
        return all_named({name: self.of[name].negatives for name in self.shares})

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """What all of its sources do."""
        return frozenset.intersection(*(self.of[name].negatives.provides(by_data) for name in self.shares))

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """That of the source that serves the record."""
        return self.offers_for(frozenset(), records, made)

    def offers_for(self, requires: frozenset[Supply], records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """The same; a source serves only records for which it has something that comes with all of `requires`.

        Every source is gone through twice, so that no offer is held: who has something, then what is taken of it.
        """
        kinds: dict[frozenset[str], frozenset[str]] = {}
        names = (_serving(record, offers, requires) for record, offers in self._offered(records, made))
        able = [kinds.setdefault(found, found) for found in names]
        served = serve([record.id for record in records], able, self.shares, self.seed)
        for (record, offers), name in zip(self._offered(records, made), served, strict=True):
            yield _served_by(name, offers[name]) if name else _nothing(record, offers, requires)

    def _offered(self, records: Sequence[Record], made: Made) -> Iterator[tuple[Record, dict[str, Offer]]]:
        """Each record with what every source offers."""
        sources = {name: self.of[name].negatives.offers(records, within(made, name)) for name in self.shares}
        for record, *offers in zip(records, *sources.values(), strict=True):
            yield record, dict(zip(sources, offers, strict=True))


def _serving(record: Record, offers: Mapping[str, Offer], requires: frozenset[Supply]) -> frozenset[str]:
    """Names of the sources that offer a record something that can be used."""
    return frozenset(name for name, offer in offers.items() if usable(record, offer, requires, Counter()))


def _served_by(name: str, offer: Offer) -> Offer:
    rejected = (replace(item, how={**item.how, "part": name}) for item in offer.rejected)
    return replace(offer, rejected=tuple(rejected))


def _nothing(record: Record, offers: Mapping[str, Offer], requires: frozenset[Supply]) -> Offer:
    """Nothing, and why no source has anything."""
    faults = Counter(reason for offer in offers.values() for reason in offer.dropped)
    for offer in offers.values():
        usable(record, offer, requires, faults)
    return Offer(dropped=tuple(faults.elements()))


def serve(
    ids: Sequence[str], usable: Sequence[frozenset[str]], shares: Mapping[str, float], seed: int
) -> list[str | None]:
    """Who serves which record: how many each serves is as `quotas` says, wherever there is a way to have that.

    Among records for which the same sources have something, an order drawn for each record by itself decides: a record
    more or less, or a slightly other share, gives few records another source.

    Args:
        usable: names of the sources that have something for each record; for none the answer is None.
    """
    alike: dict[frozenset[str], list[int]] = {}
    for place, names in enumerate(usable):
        if names:
            alike.setdefault(names, []).append(place)
    sizes = {names: len(places) for names, places in alike.items()}
    counts = _counts(sizes, quotas(sum(sizes.values()), shares))
    served: list[str | None] = [None] * len(ids)
    for names, places in alike.items():
        drawn = sorted(places, key=lambda place: seed_from("mixed", seed, ids[place]))
        turns = chain.from_iterable(repeat(name, counts[names, name]) for name in sorted(names))
        for place, name in zip(drawn, turns, strict=True):
            served[place] = name
    return served


def _counts(sizes: Mapping[frozenset[str], int], quotas: Mapping[str, int]) -> Counter[tuple[frozenset[str], str]]:
    """How many records of each kind (the sources that may serve it) each source serves.

    A maximum flow: where a record's sources are full, they hand others on to sources that are not.
    """
    left, counts = Counter(quotas), Counter[tuple[frozenset[str], str]]()
    for kind in sorted(sizes, key=lambda names: (len(names), sorted(names))):
        for _ in range(sizes[kind]):
            steps = _chain(kind, left, counts)
            for moved, giver, taker in steps:
                counts[moved, taker] += 1
                counts[moved, giver] -= giver != taker
            left[steps[0][2]] -= 1
    return counts


def _chain(
    kind: frozenset[str], left: Mapping[str, int], counts: Mapping[tuple[frozenset[str], str], int]
) -> list[tuple[frozenset[str], str, str]]:
    """What makes room for one more record: (kind of record, who gives it away, who takes it), the last taker first.

    The new record itself comes last, its giver being its taker. If nothing makes room, who has most of it takes it.
    """
    nearest = sorted(kind, key=lambda name: (-left[name], name))
    came = {name: (kind, name) for name in nearest}
    for name in nearest:
        if left[name] > 0:
            return _steps(came, name)
        handed = [moved for (moved, server), count in counts.items() if server == name and count]
        for moved in handed:
            for other in sorted(moved - came.keys()):
                came[other] = (moved, name)
                nearest.append(other)
    return _steps(came, nearest[0])


def _steps(came: Mapping[str, tuple[frozenset[str], str]], name: str) -> list[tuple[frozenset[str], str, str]]:
    steps = []
    while True:
        moved, giver = came[name]
        steps.append((moved, giver, name))
        if giver == name:
            return steps
        name = giver


def quotas(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that add up to `count`, each within one of its share of it (largest remainders)."""
    exact = {name: count * share for name, share in shares.items()}
    found = {name: int(value + 1e-9) for name, value in exact.items()}
    behind = sorted(exact, key=lambda name: found[name] - exact[name])
    for name in behind[: count - sum(found.values())]:
        found[name] += 1
    return found
