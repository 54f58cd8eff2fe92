"""Training curves with seed bands: every metric of both stages, a line per case."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwdpo.report.figures.figure3 import smoothed
from cwdpo.report.figures.seeds import over_seeds, told
from cwdpo.report.site.chart import Chart, chart, fewer
from cwdpo.report.site.limits import LIMITS
from cwdpo.report.site.pages import short
from cwdpo.report.site.trainings import Training, Trainings

if TYPE_CHECKING:
    import pandas as pd

TITLES = {
    "loss": "Training loss",
    "margin": "Implicit reward margin",
    "accuracy": "Preference accuracy",
    "delta_chosen": "Change of chosen log-probability",
    "delta_rejected": "Change of rejected log-probability",
    "mean_logp_rejected": "Log-probability of rejected, per token",
    "nll_chosen": "Negative log-likelihood of chosen",
    "nll_rejected": "Negative log-likelihood of rejected",
    "w_c": "Cooling weight",
    "filtered": "Share of negatives filtered",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "tokens_per_second": "Tokens per second",
}
"""Metric -> how a chart calls it; others go by their own names."""

LAST = ("grad_norm", "learning_rate", "tokens_per_second")
"""What matters least."""

NO_METRIC = {"time", "step", "total", "seconds"}
PARTS = ("w_c_from_", "state_")
"""Beginnings of the names of what is no curve of its own: bins of a histogram, states of the loop."""

SHOWN_STEPS = 12
"""Rows of the table beside a chart, at most."""


@dataclass(frozen=True)
class ShownChart:
    """One metric.

    Attributes:
        steps: a selection of them, for the table beside the chart.
        rows: line -> values at these steps, "" where it has none.
        missing: lines without values, and why.
        fewer: where lines are without some of their seeds.
    """

    key: str
    title: str
    chart: Chart
    summary: str
    steps: tuple[int, ...]
    rows: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...] = ()
    fewer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curves:
    """One stage.

    Attributes:
        lines: their names, in the order of their looks.
        window: steps whose values are one point.
        csv: all points.
        left_out: metrics beyond the limit.
    """

    stage: str
    lines: tuple[str, ...]
    charts: tuple[ShownChart, ...]
    window: int
    csv: str
    left_out: tuple[str, ...]


def curves(found: Trainings) -> Curves | None:
    """Charts of one stage, None where no training has begun."""
    begun = [one for one in found.shown if any(recorded.training for recorded in one.seeds.values())]
    keys = metrics(_points(begun))
    if not keys:
        return None
    last = max(int(point["step"]) for point in _points(begun))
    window = math.ceil(last / LIMITS.points) or 1
    tables = {key: _over_seeds(begun, key, window, last) for key in keys[: LIMITS.metrics]}
    names = tuple(one.label for one in begun)
    charts = tuple(_shown(key, data, missing, names) for key, (data, missing) in tables.items() if len(data))
    csv = _csv({key: data for key, (data, _) in tables.items()})
    return Curves(found.stage, names, charts, window, csv, tuple(keys[LIMITS.metrics :]))


def _points(found: Iterable[Training]) -> Iterator[Mapping[str, Any]]:
    return (point for one in found for recorded in one.seeds.values() for point in recorded.training)


def metrics(points: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of all numbers of a curve that are worth a chart, the loss first."""
    found = dict.fromkeys(
        key
        for point in points
        for key, value in point.items()
        if isinstance(value, int | float) and key not in NO_METRIC and not key.startswith(PARTS)
    )
    return sorted(found, key=lambda key: (key in LAST, key != "loss"))


def _over_seeds(found: Sequence[Training], key: str, window: int, last: int) -> tuple[pd.DataFrame, Mapping[str, str]]:
    over = over_seeds(
        {
            one.label: {seed: _series(recorded.training, key, window, last) for seed, recorded in one.seeds.items()}
            for one in found
        }
    )
    return over.data, {line: reason for line, reason in over.missing.items() if reason != _OTHER}


_OTHER = "its objective has no such value"
_NOT_FINITE = "no value is a finite number"


def _series(points: Sequence[Mapping[str, Any]], key: str, window: int, last: int) -> pd.Series | str:
    if not points:
        return "no training curve"
    values = {int(point["step"]): float(point[key]) for point in points if isinstance(point.get(key), int | float)}
    if values:
        return smoothed(values, window, last)
    return _NOT_FINITE if any(key in point for point in points) else _OTHER


def _shown(key: str, data: pd.DataFrame, missing: Mapping[str, str], names: Sequence[str]) -> ShownChart:
    title = TITLES.get(key, key.replace("_", " "))
    steps = _selected(sorted({int(step) for step in data["step"]}))
    lines = {str(name): found for name, found in data.groupby("line", sort=False)}
    rows = {name: _row(found, steps) for name, found in lines.items()}
    without = told((name, sentence) for name, found in lines.items() if (sentence := fewer(found)))
    reasons = tuple(told(missing.items()))
    return ShownChart(key, title, chart(data, names), _summary(data), steps, rows, reasons, tuple(without))


def _selected(steps: Sequence[int]) -> tuple[int, ...]:
    """The first, the last, and some evenly between."""
    if len(steps) <= SHOWN_STEPS:
        return tuple(steps)
    places = {round(k * (len(steps) - 1) / (SHOWN_STEPS - 1)) for k in range(SHOWN_STEPS)}
    return tuple(steps[place] for place in sorted(places))


def _row(rows: pd.DataFrame, steps: Sequence[int]) -> tuple[str, ...]:
    found = {int(row.step): row for row in rows.itertuples()}
    return tuple(_value(found[step]) if step in found else "" for step in steps)


def _value(row: Any) -> str:
    spread = f" [{short(row.low)}, {short(row.high)}]" if row.n > 1 else ""
    return f"{short(row.mean)}{spread}{_of_fewer(row)}"


def _of_fewer(row: Any) -> str:
    """How many seeds a mean is of, where some have no value."""
    return f" ({row.n} of {row.seeds})" if row.n < row.seeds else ""


def _summary(data: pd.DataFrame) -> str:
    """A sentence for those who do not see the chart."""
    return "; ".join(_sentences(data))


def _sentences(data: pd.DataFrame) -> Iterator[str]:
    for name, rows in data.groupby("line", sort=False):
        ends = ", ".join(f"{short(row['mean'])} at step {row['step']:.0f}" for row in (rows.iloc[0], rows.iloc[-1]))
        without = fewer(rows)
        yield f"{name}: {ends} ({without})" if without else f"{name}: {ends}"


def _csv(tables: Mapping[str, pd.DataFrame]) -> str:
    import pandas as pd

    whole = pd.concat([data.assign(metric=key) for key, data in tables.items()], ignore_index=True)
    columns = ["metric", *(column for column in whole.columns if column != "metric")]
    return whole[columns].to_csv(index=False, float_format="%.9g", lineterminator="\n")
