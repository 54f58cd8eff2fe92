"""Many seeds as one line: mean, range, and how many seeds are behind each point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cwdpo.report.figures.runs import Run, Runs

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("line", "step", "mean", "low", "high", "sd", "n", "seeds")

WORDS = (
    "Lines are means over seeds and bands reach from the smallest to the largest seed; n is the number of seeds, and"
    " one seed has no band. A line is dotted where some of its seeds have no value, and its mean is that of the others."
)


@dataclass(frozen=True)
class Lines:
    """What a panel shows.

    Attributes:
        data: a row per line and step with `COLUMNS`: mean, smallest and largest value over seeds, sample standard
            deviation (empty for one), number of seeds that have a value there, and anywhere on this line.
        missing: line -> why some or all of its seeds have no values.
    """

    data: pd.DataFrame
    missing: Mapping[str, str]


def by_case(runs: Runs, read: Callable[[Run], pd.Series | str]) -> Lines:
    """A line per case, of what `read` takes from each run: values by step, or why there are none."""
    return over_seeds({case: {seed: read(run) for seed, run in seeds.items()} for case, seeds in runs.cases.items()})


def over_seeds(found: Mapping[str, Mapping[int, pd.Series | str]]) -> Lines:
    """A line for each key, over its seeds. A step counts where any seed has a value there."""
    import pandas as pd

    frames, missing = [], {}
    for line, seeds in found.items():
        values = {seed: series.dropna() for seed, series in seeds.items() if not isinstance(series, str)}
        values = {seed: series for seed, series in values.items() if len(series)}
        frames.append(_line(line, values))
        if reason := _reason(seeds, values):
            missing[line] = reason
    whole = [frame for frame in frames if len(frame)]
    return Lines(pd.concat(whole, ignore_index=True) if whole else pd.DataFrame(columns=COLUMNS), missing)


def _line(line: str, values: Mapping[int, pd.Series]) -> pd.DataFrame:
    import pandas as pd

    if not values:
        return pd.DataFrame(columns=COLUMNS)
    wide = pd.concat(values, axis=1).sort_index().astype(float)
    found = {
        "line": line, "step": wide.index, "mean": wide.mean(axis=1), "low": wide.min(axis=1), "high": wide.max(axis=1),
        "sd": wide.std(axis=1), "n": wide.count(axis=1), "seeds": len(values),
    }  # fmt: skip
    return pd.DataFrame(found).reset_index(drop=True)


def _reason(seeds: Mapping[int, pd.Series | str], values: Mapping[int, pd.Series]) -> str:
    """Why seeds are without values, and how many where some have them."""
    reasons = dict.fromkeys(
        series if isinstance(series, str) else "no value" for seed, series in seeds.items() if seed not in values
    )
    count = f"{len(seeds) - len(values)} of {len(seeds)} seeds: " if values and reasons else ""
    return count + "; ".join(reasons) if seeds else "no runs"


def counted(found: Iterable[Lines], line: str | None = None) -> str:
    """`n = 3`, or `n = 1 to 3` where lines differ, over one line or all of them; nothing where there is no data."""
    tables = [lines.data if line is None else lines.data[lines.data["line"] == line] for lines in found]
    counts = sorted({int(count) for rows in tables for count in rows["seeds"].unique()})
    return f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}" if counts else ""


def told(missing: Iterable[tuple[str, str]]) -> list[str]:
    """`NAMES: REASON` for each distinct reason, from pairs of both."""
    grouped: dict[str, dict[str, None]] = {}
    for name, reason in missing:
        grouped.setdefault(reason, {})[name] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in grouped.items()]
