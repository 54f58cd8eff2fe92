"""Figure 5: what one update does to other samples, and the terms it is made of, as training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cwdpo.report.figures.drawing import Drawing, Panel, named
from cwdpo.report.figures.panels import draw_lines
from cwdpo.report.figures.runs import Run, Runs
from cwdpo.report.figures.seeds import counted, over_seeds
from cwdpo.report.figures.style import DASHES, KINDS, Look

if TYPE_CHECKING:
    import pandas as pd

UPDATES = 3
"""Samples that are learned from, a column each."""

QUANTITIES = {
    "fig5_delta_square": r"$\|\Delta \log \pi\|_F^2$ (nats$^2$)",
    "fig5_a_square": r"$\|A\|_F^2$",
    "fig5_g_square": r"$\|G\|_F^2$",
    "fig5_proxy": r"proxy $LB_K$",
}
"""Column of influence.parquet -> label; a row of panels each."""

Tables = Mapping[int, "pd.DataFrame"]
"""Seed -> its rows."""


def figure5(runs: Runs) -> list[Drawing]:
    """A figure per case: a column for each update, a row for each quantity, a line for each observed response."""
    return [_of_case(runs, case, seeds) for case, seeds in runs.cases.items()]


def _of_case(runs: Runs, case: str, seeds: Mapping[int, Run]) -> Drawing:
    name, found = named("figure5", case), {seed: _of_updates(run) for seed, run in seeds.items()}
    missing = {seed: rows for seed, rows in found.items() if isinstance(rows, str)}
    tables = {seed: rows for seed, rows in found.items() if not isinstance(rows, str)}
    if not tables:
        return Drawing(name, [Panel("influence", "", "", over_seeds({case: missing}), draw_lines)], 1, {}, ())
    updates, looks = _distinct(tables, "update"), _looks(tables)
    shown = updates[:UPDATES]
    panels = [_panel(tables, missing, column, update, looks) for column in QUANTITIES for update in shown]
    title = f"{case} ({counted(panel.lines for panel in panels)})"
    return Drawing(name, panels, len(shown), looks, _caption(runs, case, len(updates)), title, "training step")


def _caption(runs: Runs, case: str, updates: int) -> list[str]:
    more = f" (the first {UPDATES} of {updates})" if updates > UPDATES else ""
    return [
        f"What one plain step of gradient descent on an update sample, a column each{more}, does to observed responses,"
        f" a line each, over {runs.stage} of {case}: the squared change of all their log-probabilities, the squared"
        " norms of A = I - 1 pi^T and of G = pi - onehot on the observed response, and LB_K, the first divided by the"
        " other two.",
        "Norms are squared Frobenius norms, summed over the tokens of the response; A and G do not depend on the"
        " update. LB_K is a proxy and no bound; a larger A makes it smaller.",
        "Colours tell the kind of the observed response, dashes its sample.",
    ]


def _of_updates(run: Run) -> pd.DataFrame | str:
    """Rows of moves by an update, not by the run itself, with `observed`: which response of which sample."""
    if isinstance(run.influence, str):
        return run.influence
    rows = run.influence[run.influence["update"].notna()]
    return rows.assign(observed=rows["observation"] + ", " + rows["kind"]) if len(rows) else "no update was measured"


def _distinct(tables: Tables, column: str) -> list[str]:
    """Values in the order in which they are first met."""
    return list(dict.fromkeys(value for rows in tables.values() for value in rows[column].unique()))


def _looks(tables: Tables) -> dict[str, Look]:
    samples = {sample: place for place, sample in enumerate(_distinct(tables, "observation"))}
    found = [row for rows in tables.values() for row in rows[["observed", "observation", "kind"]].to_numpy()]
    return {
        observed: Look(KINDS[kind].colour, DASHES[samples[sample] % len(DASHES)]) for observed, sample, kind in found
    }


def _panel(tables: Tables, missing: Mapping[int, str], column: str, update: str, looks: Mapping[str, Look]) -> Panel:
    first = column == next(iter(QUANTITIES))
    of_update = {seed: rows[rows["update"] == update] for seed, rows in tables.items()}
    found: dict[str, Mapping[int, pd.Series | str]] = {
        observed: {**missing, **{seed: _series(rows, observed, column) for seed, rows in of_update.items()}}
        for observed in looks
    }
    title = f"update {update}" if first else ""
    return Panel(column, title, QUANTITIES[column], over_seeds(found), draw_lines, keys={"update": update})


def _series(rows: pd.DataFrame, observed: str, column: str) -> pd.Series:
    return rows[rows["observed"] == observed].set_index("step")[column]
