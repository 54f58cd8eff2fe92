"""How the rows of a column differ from the baseline: over seeds, over seeds and items, or over items alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from cwdpo.evaluate.question import Metric
from cwdpo.report.comparing import NEW_TRAININGS, Compared, Side, mark_pairs, others, seed_intervals, tested, untested
from cwdpo.report.over_items import by_items, by_seeds_and_items
from cwdpo.report.standing import over_seeds
from cwdpo.statistics.seeds import holm

IntervalKind = Literal["seeds", "seeds+items", "items"]
"""What intervals and tests are over."""


def compared(kind: IntervalKind, metric: Metric, sides: Mapping[str, Side], baseline: str) -> Compared:
    """Every row that has values, compared with the baseline; what is no benchmark's only over seeds.

    Args:
        sides: rows that have values, by key.
    """
    scored = any(side.found.scores for side in sides.values())
    found = _WAYS[kind if scored else "seeds"](metric, sides, baseline)
    adjusted = holm([difference.p for difference in found.differences.values()])
    for row, p in zip(list(found.differences), adjusted, strict=True):
        found.differences[row] = replace(found.differences[row], adjusted=p)
    return found


def by_seeds(metric: Metric, sides: Mapping[str, Side], baseline: str) -> Compared:
    """Over seeds: values per item are not read."""
    found = Compared()
    seed_intervals(sides, found)
    for row, side in others(sides, baseline).items():
        test = over_seeds(side.sample, sides[baseline].sample)
        if test is None:
            found.differences[row] = untested(side, sides[baseline])
            continue
        found.differences[row] = tested(test.test, test.name, NEW_TRAININGS)
        mark_pairs(found, row, test.pairs, test.left_out)
    return found


_WAYS = {"seeds": by_seeds, "seeds+items": by_seeds_and_items, "items": by_items}
