"""Columns of benchmarks: a metric of every distinct score of a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cwdpo.evaluate.question import Metric
from cwdpo.report.content import Gap, Result
from cwdpo.report.layout import Found, LaidRow, Layout
from cwdpo.report.results import Lack, Results, gaps_of
from cwdpo.report.score import Score


@dataclass(frozen=True)
class FromBenchmark:
    """A metric of a benchmark."""

    benchmark: str
    metric: Metric

    def found(self, results: Results, row: LaidRow, layout: Layout) -> Found:
        """See `Source`."""
        there = results.scores(row.key, self.benchmark)
        values, scores, gaps = [], [], list(there.gaps)
        for seeds, score in there.found:
            value = score.value(self.metric.key)
            if value is None:
                gaps.append(Gap("not available", score.unavailable(self.metric.key), seeds))
            else:
                values.append(result_of(score, seeds, self.metric.scale * value))
                scores.append(score)
        return Found(tuple(values), joined(gaps), tuple(scores))


def result_of(score: Score, seeds: tuple[int, ...], value: float) -> Result:
    """A value that was read from a score."""
    return Result(seeds, value, score.folder, score.stale, score.code, score.doubt)


def joined(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Those of one kind and reason as one."""
    return gaps_of((Lack(gap.kind, gap.reason), seed) for gap in gaps for seed in gap.seeds)
