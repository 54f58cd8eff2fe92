"""The rows of a column as they are compared with the baseline, and what comes of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cwdpo.report.content import Difference
from cwdpo.report.judges import judges_of
from cwdpo.report.layout import Found
from cwdpo.report.standing import Sample
from cwdpo.statistics.seeds import Test, t_interval

NEW_TRAININGS = "new trainings on these items"
THESE_RESULTS = "these results alone"
ONE_RESULT = "no test: one result says nothing of what other seeds give"
NOT_COMPARED = "not compared with the other rows"
COMPARED_WITH_FEW = "compared with no row on other terms"
NOTHING_VARIED = "no test: no seed changed the value"


@dataclass(frozen=True)
class Side:
    """A row that has values in a column."""

    found: Found
    sample: Sample

    @property
    def terms(self) -> Terms:
        """On what terms its values were scored."""
        scores = (*self.found.scores, *self.found.parts)
        return Terms(
            frozenset(score.asked for score in scores),
            frozenset((score.summary["items"], score.summary["partial"]) for score in scores),
            judges_of(scores),
        )


@dataclass(frozen=True)
class Terms:
    """What values must have in common to be compared.

    Attributes:
        asked: ids of what answers are about.
        items: how many were scored, and whether these are only some.
        judges: who rated answers, or "".
    """

    asked: frozenset[str]
    items: frozenset[tuple[int, bool]]
    judges: str

    def unlike(self, other: Terms) -> str:
        """Why values on these terms are not compared with those on the others; "" where they are."""
        if self.asked != other.asked:
            return "it was asked about other data"
        if self.items != other.items:
            ours, theirs = (" and ".join(map(_counted, sorted(one.items))) for one in (self, other))
            return f"its values are over {ours}, not {theirs}"
        return "" if self.judges == other.judges else f"it was rated by {self.judges}, not {other.judges}"


def _counted(items: tuple[int, bool]) -> str:
    """`50 items (partial)`."""
    return f"{items[0]:,} items{' (partial)' if items[1] else ''}"


def terms_of(sides: Mapping[str, Side], baseline: str) -> Terms | None:
    """Those of most rows; where as many are on others, the baseline's before them."""
    counts = Counter(side.terms for side in sides.values())
    if not counts:
        return None
    most = max(counts.values())
    own = sides[baseline].terms if baseline in sides else None
    return own if own and counts[own] == most else next(terms for terms, count in counts.items() if count == most)


def apart(sides: Mapping[str, Side], baseline: str) -> dict[str, str]:
    """Row -> why it is on other terms than most rows, and what comes of that; without those that are not."""
    terms, counts = terms_of(sides, baseline), Counter(side.terms for side in sides.values())
    found = {}
    for row, side in sides.items():
        if terms and (why := side.terms.unlike(terms)):
            alone = counts[side.terms] == 1
            found[row] = f"{why}, so that it is {NOT_COMPARED if alone else COMPARED_WITH_FEW}"
    return found


@dataclass(frozen=True)
class Compared:
    """A column, compared with the baseline.

    Attributes:
        differences: row -> its difference; a row without one is absent.
        intervals: row -> ends of the interval of its mean; a row without one is absent.
        marks: row -> why it has no difference, or of what it and the interval are, sentences without their full stops.
        note: the same of all rows, or "".
    """

    differences: dict[str, Difference] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    marks: dict[str, list[str]] = field(default_factory=dict)
    note: str = ""

    def mark(self, row: str, why: str) -> None:
        """Say something of a row, once."""
        said = self.marks.setdefault(row, [])
        said += [why] if why not in said else []

    def add_interval(self, row: str, low: float | None, high: float | None) -> None:
        """The interval of a mean, where there is one."""
        if low is not None and high is not None:
            self.intervals[row] = (low, high)


def others(sides: Mapping[str, Side], baseline: str) -> dict[str, Side]:
    """Rows to compare; none where the baseline has no values, and none that was scored on other terms."""
    if baseline not in sides:
        return {}
    terms = sides[baseline].terms
    return {row: side for row, side in sides.items() if row != baseline and not side.terms.unlike(terms)}


def tested(test: Test, name: str, covers: str) -> Difference:
    """A difference with its test, not corrected yet."""
    if test.p is None:
        return Difference(test.difference, None, None, None, None, NOTHING_VARIED, THESE_RESULTS)
    return Difference(test.difference, test.low, test.high, test.p, None, name, covers)


def untested(side: Side, baseline: Side, why: str = ONE_RESULT) -> Difference:
    """A difference of means that says nothing beyond them."""
    if side.sample.fixed and baseline.sample.fixed:
        why = "no test over seeds: nothing was trained"
    return Difference(side.sample.mean - baseline.sample.mean, None, None, None, None, why, THESE_RESULTS)


def mark_pairs(found: Compared, row: str, pairs: int, left_out: int) -> None:
    """Say of a row that its difference is over some of the results only."""
    if left_out:
        found.mark(row, f"the difference is over the {pairs} seeds that share their Stage 1 with the baseline's")


def seed_intervals(sides: Mapping[str, Side], into: Compared) -> None:
    """Student's intervals of means."""
    for row, side in sides.items():
        if len(side.sample.values) > 1:
            found = t_interval(side.sample.values)
            into.add_interval(row, found.low, found.high)
