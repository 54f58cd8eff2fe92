"""Which of two answers to the same item is better: verdicts on pairs, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cwdpo.statistics.bootstrap import Interval, paired_bootstrap
from cwdpo.statistics.summary import Share, wilson

Verdict = Literal["a", "b", "tie"]
"""Whose answer is better."""
Word = Literal["1", "2", "tie"]
"""What a judge says: which of the answers that it was shown, by the place where it stood."""

MARGIN = 1e-9
"""Values that are no further apart are the same one: sums in another order differ by less."""
CATEGORIES = 12
"""More of them are no help to a reader."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An item, as people and judges are shown it.

    Attributes:
        text: all turns of the user.
        images: paths in the image folder.
        references: true answers, or what else is known to be true.
        category: part of the benchmark, or "".
    """

    text: str
    images: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    category: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one item, that of A first.

    Attributes:
        id: of the item.
        seed: of A.
        values: of the answers, by what the benchmark compares; None where there is none.
    """

    id: str
    seed: int
    asked: Asked
    answers: tuple[str, str]
    values: tuple[float | None, float | None] = (None, None)

    @property
    def same(self) -> bool:
        """Whether the answers differ in no more than white space."""
        first, second = (answer.split() for answer in self.answers)
        return first == second

    @property
    def gap(self) -> float | None:
        """Value of A minus value of B, None where one is missing."""
        first, second = self.values
        return None if first is None or second is None else first - second


class Tally(NamedTuple):
    """Verdicts, counted for A."""

    wins: int
    ties: int
    losses: int

    @property
    def n(self) -> int:
        """All of them."""
        return sum(self)

    @property
    def rate(self) -> Share:
        """Win rate of A, a tie being half a win; `DataError` where nothing was compared."""
        return wilson(self.wins + self.ties / 2, self.n)

    def as_json(self) -> dict[str, Any]:
        """With the win rate."""
        return {"pairs": self.n, "win_rate": self.rate._asdict(), **self._asdict()}


@dataclass(frozen=True)
class Bias:
    """How much a judge goes by the place where an answer stands.

    Attributes:
        first: share of "1" among the replies that name an answer; None where none does. Without a bias it is a half.
        decided: how many replies name an answer.
        disagree: share of the pairs whose two orders do not come to the same; None where there are no pairs.
        pairs: how many were judged in both orders.
    """

    first: float | None
    decided: int
    disagree: float | None
    pairs: int


def by_value(pair: Pair, higher: bool = True) -> Verdict | None:
    """Whose value is better; None where one is missing.

    Args:
        higher: whether more is better.
    """
    if pair.gap is None:
        return None
    gap = pair.gap if higher else -pair.gap
    return "tie" if abs(gap) <= MARGIN else "a" if gap > 0 else "b"


def in_both_orders(words: tuple[Word, Word]) -> Verdict:
    """What a judge says in both orders, A's answer first in the first one; a tie where that is not the same."""
    first, second = _of_order(words[0], swapped=False), _of_order(words[1], swapped=True)
    return first if first == second else "tie"


def _of_order(word: Word, swapped: bool) -> Verdict:
    if word == "tie":
        return "tie"
    return "a" if (word == "1") != swapped else "b"


def tally(verdicts: Iterable[Verdict | None]) -> Tally:
    """Counts; pairs without a verdict are in none of them."""
    found = list(verdicts)
    return Tally(found.count("a"), found.count("tie"), found.count("b"))


def by_category(pairs: Sequence[Pair], verdicts: Sequence[Verdict | None]) -> dict[str, Tally]:
    """A tally for each category, in their order, where there are several, but not too many; else nothing."""
    found: dict[str, list[Verdict]] = {}
    for pair, verdict in zip(pairs, verdicts, strict=True):
        if verdict is not None:
            found.setdefault(pair.asked.category, []).append(verdict)
    return {name: tally(own) for name, own in found.items()} if 1 < len(found) <= CATEGORIES else {}


def bias(words: Sequence[tuple[Word, Word]]) -> Bias:
    """What two orders of the same pairs tell about a judge."""
    decided = [word for both in words for word in both if word != "tie"]
    first = decided.count("1") / len(decided) if decided else None
    unlike = sum(_of_order(one, swapped=False) != _of_order(other, swapped=True) for one, other in words)
    return Bias(first, len(decided), unlike / len(words) if words else None, len(words))


def difference(pairs: Sequence[Pair], scale: float = 1.0) -> Interval | None:
    """Paired bootstrap over items of the values of A and B, each the mean over seeds; None where there are none."""
    found: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        a, b = pair.values
        if a is not None and b is not None:
            found.setdefault(pair.id, []).append((scale * a, scale * b))
    if not found:
        return None
    first, second = ([_mean(both[place] for both in own) for own in found.values()] for place in (0, 1))
    return paired_bootstrap(first, second)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def most_different(
    pairs: Sequence[Pair], verdicts: Sequence[Verdict | None], count: int, judged: bool
) -> list[tuple[Pair, Verdict]]:
    """The pairs whose answers differ most: by their values, those that a judge has decided first; others are left out.

    Args:
        judged: whether the verdicts are those of a judge.
    """
    found = [(pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True) if verdict and not pair.same]
    found.sort(key=lambda one: (judged and one[1] == "tie", -abs(one[0].gap or 0.0)))
    return found[:count]


def row(pair: Pair, verdict: Verdict | None) -> dict[str, Any]:
    """A pair as a flat row."""
    (answer_a, answer_b), (value_a, value_b) = pair.answers, pair.values
    answers = {"answer_a": answer_a, "answer_b": answer_b, "value_a": value_a, "value_b": value_b}
    return {"id": pair.id, "seed": pair.seed, "category": pair.asked.category, **answers, "verdict": verdict}
