"""Statistics of pairs: how many, how long, how far apart, from where. Rows go by one at a time and are not held."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cwdpo.base.lines import short_hash

BINS = {"0": 0, "1": 1, "2": 2, "3": 3, "4-5": 5, "6-10": 10}
"""Bins of the histogram of edit distances, and the largest distance of each."""
BEYOND = ">10"
"""The last bin."""

EXTRAS = ("revised", "dialogue", "scores")
"""What a rejected response may come with."""


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Fewest words to insert, remove or replace to make one text of the other (Levenshtein, over words)."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(one, other)


def distance_bin(distance: int) -> str:
    """The bin of the histogram that a distance falls in."""
    place = bisect_left(list(BINS.values()), distance)
    return [*BINS, BEYOND][place]


@dataclass
class Spread:
    """Mean and extremes of numbers."""

    count: int = 0
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def add(self, value: float) -> None:
        """Count one in."""
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)

    def as_json(self) -> dict[str, float] | None:
        """`{"mean", "min", "max"}`, or None of no number."""
        if not self.count:
            return None
        return {"mean": round(self.total / self.count, 4), "min": self.least, "max": self.most}


@dataclass
class Group:
    """Rejected responses of one source or grade: words, words that differ from the chosen one, nats per token."""

    words: Spread = field(default_factory=Spread)
    edit_distance: Spread = field(default_factory=Spread)
    mean_logp: Spread = field(default_factory=Spread)

    def add(self, item: Mapping[str, Any], words: int, distance: int | None) -> None:
        """Count one in."""
        self.words.add(words)
        for spread, value in ((self.edit_distance, distance), (self.mean_logp, item.get("mean_logp"))):
            if value is not None:
                spread.add(value)

    def as_json(self) -> dict[str, Any]:
        """Pairs, and the means of what is known."""
        spreads = {"words": self.words, "edit_distance": self.edit_distance, "mean_logp": self.mean_logp}
        found = {name: spread.as_json() for name, spread in spreads.items()}
        return {"pairs": self.words.count, **{name: value["mean"] for name, value in found.items() if value}}


class Statistics:
    """What the rows of `negatives.jsonl` hold, counted row by row."""

    def __init__(self) -> None:
        self._chosen, self._all = Spread(), Group()
        self._rejected_per_record: Counter[int] = Counter()
        self._distances: Counter[str] = Counter()
        self._sources: dict[str, Group] = {}
        self._grades: dict[str, Group] = {}
        self._with: Counter[str] = Counter()
        self._texts: Counter[int] = Counter()

    @property
    def pairs(self) -> int:
        """Rejected responses so far."""
        return self._all.words.count

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row in: `{"chosen", "rejected": [{"text", "source", "grade", ...}]}`; it may lack `chosen`."""
        chosen = row["chosen"].split() if "chosen" in row else None
        if chosen is not None:
            self._chosen.add(len(chosen))
        self._rejected_per_record[len(row["rejected"])] += 1
        self._texts.update({short_hash(item["text"]) for item in row["rejected"]})
        for item in row["rejected"]:
            self._add(item, chosen)

    def _add(self, item: Mapping[str, Any], chosen: Sequence[str] | None) -> None:
        words = item["text"].split()
        distance = None if chosen is None else edit_distance(chosen, words)
        if distance is not None:
            self._distances[distance_bin(distance)] += 1
        self._with.update(key for key in EXTRAS if item.get(key))
        for group in self._groups(item):
            group.add(item, len(words), distance)

    def _groups(self, item: Mapping[str, Any]) -> list[Group]:
        """All that a rejected response is counted in."""
        found = [self._all, self._sources.setdefault(item["source"], Group())]
        if item.get("grade") is not None:
            found.append(self._grades.setdefault(item["grade"], Group()))
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, for summary.json:

        - `records`, and `rejected_per_record`: how many have 0, 1, ... rejected responses
        - `pairs`: rejected responses
        - `words`: of chosen and rejected responses; mean, min, max
        - `edit_distance`: words between chosen and rejected; mean, min, max and `histogram`
        - `shared`: `texts` that were rejected for several records, and the `pairs` they make
        - `with`: pairs that come with what some methods need
        - `sources`, `grades`: pairs, mean words, mean edit distance, mean of mean_logp (nats per token) of each

        What is not known, as the distance where rows do not tell the chosen response, is None.
        """
        shared = [count for count in self._texts.values() if count > 1]
        return {
            "records": self._rejected_per_record.total(),
            "pairs": self.pairs,
            "rejected_per_record": {str(key): count for key, count in sorted(self._rejected_per_record.items())},
            "words": {"chosen": self._chosen.as_json(), "rejected": self._all.words.as_json()},
            "edit_distance": self._distance_json(),
            "shared": {"texts": len(shared), "pairs": sum(shared)},
            "with": dict(sorted(self._with.items())),
            "sources": {name: group.as_json() for name, group in sorted(self._sources.items())},
            "grades": {name: group.as_json() for name, group in sorted(self._grades.items())},
        }

    def _distance_json(self) -> dict[str, Any] | None:
        spread = self._all.edit_distance.as_json()
        return spread and {**spread, "histogram": {name: self._distances[name] for name in (*BINS, BEYOND)}}
