"""What the numbers of a table are and what they cannot show, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from statistics import fmean

from cwdpo.model.config import Checkpoint
from cwdpo.report.content import Column, Entry, Row
from cwdpo.report.differences import IntervalKind
from cwdpo.report.layout import Layout
from cwdpo.report.results import Results
from cwdpo.statistics.power import detectable

INTERVALS = {
    "seeds": "Intervals of means are Student's over seeds: they speak of new trainings on these items",
    "seeds+items": "Intervals of means take seeds and items as random: they speak of new trainings on new items",
    "items": "Intervals of means are Student's over seeds; differences are those of these checkpoints, whatever other"
    " seeds would give",
}

STANDINGS = (
    "Best and tied are told by tests over seeds of the best mean against every other row, with Holm's correction;"
    " intervals are without it"
)


def caption(
    results: Results, layout: Layout, columns: Sequence[Column], rows: Sequence[Row], kind: IntervalKind
) -> list[str]:
    """Sentences without their full stops."""
    entries = [row.entries[column.key] for row in rows for column in columns]
    found = [_items(results, layout, columns)]
    found += [INTERVALS[kind]] if any(entry.low is not None for entry in entries) else []
    found += _below_zero(columns, rows)
    found += _over_seeds_alone(columns, rows) if kind != "seeds" else []
    found += [STANDINGS] if any(entry.standing for entry in entries) else []
    found += _power(columns, rows, _share_stage1(results, layout))
    found += _confounded(rows)
    return [line for line in found if line]


def _below_zero(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Where intervals reach beyond what a metric can be: two seeds that differ say next to nothing of the mean."""

    def reaches(entry: Entry) -> bool:
        return entry.low is not None and entry.low < 0 <= min(result.value for result in entry.results)

    wide = [one.name for one in columns if one.benchmark and any(reaches(row.entries[one.key]) for row in rows)]
    said = "Such intervals know no bounds: one that reaches below 0 says that its seeds are too few or too far apart"
    return [f"{said} to tell where the mean lies ({', '.join(dict.fromkeys(wide))})"] if wide else []


def _over_seeds_alone(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Which columns have no items that could be drawn."""
    own = [column for column in columns if not column.benchmark]
    shown = [one.name for one in own if any(row.entries[one.key].low is not None for row in rows)]
    return [f"Those of {', '.join(shown)}, which have no items, are over seeds in any case"] if shown else []


def _items(results: Results, layout: Layout, columns: Sequence[Column]) -> str:
    """How many items each benchmark has, and which columns are not in natural units."""
    counts = {name: _count(results, layout, name) for name in layout.benchmarks}
    known = [f"{name} {count:,}" for name, count in counts.items() if count]
    if len(counts) == 1 and known:
        (items,) = (f"{count:,} items of benchmark {name}" for name, count in counts.items())
    else:
        items = f"Items: {', '.join(known)}" if known else ""
    return "; ".join(filter(None, (items, _scales(columns))))


def _count(results: Results, layout: Layout, benchmark: str) -> int:
    cases = (row.key for row in layout.rows if row.asked)
    found = (score.summary["items"] for case in cases for _, score in results.scores(case, benchmark).found)
    return max(found, default=0)


def _scales(columns: Sequence[Column]) -> str:
    scaled = [column for column in columns if column.metric.scale == 100]
    if not scaled:
        return ""
    if all(column in scaled for column in columns if column.benchmark):
        return "scores x100"
    return f"{', '.join(dict.fromkeys(column.title for column in scaled))} x100"


def _share_stage1(results: Results, layout: Layout) -> bool:
    """Whether any two rows do, so that they are tested in pairs."""
    starts = [start for row in layout.rows if row.asked for start in set(results.starts(row.key).values())]
    return len(set(starts)) < len(starts)


def _power(columns: Sequence[Column], rows: Sequence[Row], paired: bool) -> list[str]:
    """What so many seeds with these spreads would find 4 times in 5, or that one says nothing.

    Args:
        paired: whether there are rows of which this does not speak, because they are tested in pairs.
    """
    found: dict[str, list[str]] = {}
    for column in columns:
        own = [row.entries[column.key] for row in rows if row.entries[column.key].std is not None]
        spread = sqrt(fmean(entry.std**2 for entry in own if entry.std is not None)) if own else 0.0
        if spread:
            counts = {len(entry.results) for entry in own}
            n = min(counts)  # of two rows the one with fewer seeds decides
            said = f"n = {n} a row" if len(counts) == 1 else f"n = {n} in the row with fewest seeds"
            found.setdefault(said, []).append(f"{column.name} {_rounded(detectable(spread, n))}")
    if not found:
        return _alone(columns, rows)
    (n_said, first), *others = found.items()
    return [
        f"With {n_said} and the spread seen here, a test of two rows{' that share no Stage 1' if paired else ''}"
        " finds a true difference of this size 4 times in 5, smaller ones less often, and with Holm's correction less"
        " often still: " + "; ".join([", ".join(first), *(f"with {n}: {', '.join(said)}" for n, said in others)])
    ]


def _alone(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    trained = [row.entries[column.key].results for row in rows for column in columns]
    if any(trained) and all(len(results) < 2 for results in trained):
        return ["There is one result a row: what other seeds would give is not known, and nothing is tested over seeds"]
    return []


def _rounded(value: float) -> str:
    """Two digits that count."""
    return f"{float(f'{value:.2g}'):g}"


def _confounded(rows: Sequence[Row]) -> list[str]:
    found = list(dict.fromkeys(row.stands_on for row in rows))
    if len(found) < 2:
        return []
    return [
        f"Rows stand on different Stages 1 ({', '.join(found)}): a difference between such rows is one of both stages"
    ]


# ---- beside published numbers


def beside_published(results: Results, layout: Layout, rows: Sequence[Row]) -> Iterator[str]:
    """What must be known where published numbers are shown."""
    printed = layout.published
    if printed is None or not rows:
        return
    yield f"Published: {printed.source}, {printed.protocol}; here: {_model(results, layout)}"
    yield from (remark[:1].upper() + remark[1:] for remark in printed.table.remarks)
    for row in layout.rows:
        for laid in layout.columns:
            said = printed.contradicted(row.published, laid.published)
            if said is not None:
                yield f"The paper's text has {said:g} for {laid.column.name} of {row.label}, unlike its table"


def _model(results: Results, layout: Layout) -> str:
    """The models of the rows, as they were named."""
    cells = (results.cells(row.key)[0] for row in layout.rows if row.asked)
    models = (cell.experiment.model for cell in cells)
    named = (model.path if isinstance(model, Checkpoint) else "the tiny model of the demo" for model in models)
    return ", ".join(dict.fromkeys(named)) or "nothing"
