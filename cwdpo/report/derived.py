"""A derived column: nSFT's total gain over three hallucination benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cwdpo.report.content import Gap, Result
from cwdpo.report.layout import Found, LaidRow, Layout
from cwdpo.report.results import Results
from cwdpo.report.score import Score
from cwdpo.report.scored import joined

PARTS = {"pope": ("f1", 100.0), "chair": ("chair_s", -100.0), "mmhal": ("score", 100 / 6)}
"""Benchmark -> the metric that counts, and what its gain is multiplied by: percent up, percent down, a rating to 6."""


@dataclass(frozen=True)
class HallucinationGain:
    """dPOPE - dCHAIR + dMMHal / 6 x 100 over the baseline, in percentage points, seed by seed.

    nSFT (2025) does not say which CHAIR it means; its 25 to 32 percent are of the size of CHAIR_s, which is taken here.
    A baseline that was not trained is the same for every seed, and so is a row that was not: the other has the seeds.
    """

    def found(self, results: Results, row: LaidRow, layout: Layout) -> Found:
        """See `Source`."""
        seeds = tuple(cell.seed for cell in results.cells(row.key))
        if row.key == layout.baseline:
            return Found(gaps=(Gap("not available", "it is what the others gain over", seeds),))
        if not layout.row(layout.baseline).asked:
            return Found(gaps=(Gap("not available", "the grid does not have the baseline", seeds),))
        return _gains(results, row.key, layout.baseline)


def _gains(results: Results, case: str, baseline: str) -> Found:
    ours, theirs = ({name: _scores(results, one, name) for name in PARTS} for one in (case, baseline))
    shared: dict[tuple[str, ...], Result] = {}
    parts: dict[str, Score] = {}
    gaps = []
    for seed in (cell.seed for cell in results.cells(case)):
        if missing := _missing(ours, seed):
            gaps.append(Gap("not available", f"no {', '.join(missing)}", (seed,)))
        elif missing := _missing(theirs, seed):
            gaps.append(Gap("not available", f"the baseline has no {', '.join(missing)} with this seed", (seed,)))
        else:
            after, before = ([one[name][seed] for name in PARTS] for one in (ours, theirs))
            key = tuple(score.folder for score in (*after, *before))
            seeds = (*shared[key].seeds, seed) if key in shared else (seed,)
            shared[key] = _result(seeds, after, before)
            parts |= {score.folder: score for score in (*after, *before)}
    return Found(tuple(shared.values()), joined(gaps), parts=tuple(parts.values()))


def _missing(scores: Mapping[str, Mapping[int, Score]], seed: int) -> list[str]:
    """Benchmarks without a value of a seed."""
    return [name for name, found in scores.items() if seed not in found]


def _result(seeds: tuple[int, ...], after: Sequence[Score], before: Sequence[Score]) -> Result:
    """A gain; it is as stale and as doubtful as the scores of the baseline, too."""
    read = (*after, *before)
    codes = dict.fromkeys(score.code for score in after)
    doubt = next((score.doubt for score in read if score.doubt), "")
    gain = sum(
        factor * (_value(ours, name) - _value(theirs, name))
        for (name, (_, factor)), ours, theirs in zip(PARTS.items(), after, before, strict=True)
    )
    origin = " + ".join(score.folder for score in read)
    return Result(seeds, gain, origin, any(score.stale for score in read), " + ".join(codes), doubt)


def _scores(results: Results, case: str, benchmark: str) -> dict[int, Score]:
    """Seed -> its score, of those that have a value."""
    metric, _ = PARTS[benchmark]
    found = results.scores(case, benchmark).found
    return {seed: score for seeds, score in found if score.value(metric) is not None for seed in seeds}


def _value(score: Score, benchmark: str) -> float:
    """The metric that counts, as it is stored."""
    found = score.value(PARTS[benchmark][0])
    assert found is not None, "only scores with a value are read"
    return found
