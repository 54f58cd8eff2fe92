"""`cwdpo track`: finished cells and their curves into MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cwdpo.base.errors import StoreError
from cwdpo.cli.app import GridOption, HomeOption, SetOption, app, open_plan

if TYPE_CHECKING:
    from cwdpo.report.tracking.synchronise import Pass


@app.command(epilog="Example: MLFLOW_TRACKING_URI=http://127.0.0.1:5000 cwdpo track --grid demo --follow")
def track(
    grid: GridOption,
    override: SetOption = None,
    home: HomeOption = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Go on until every cell is finished, with curves of those that are running."),
    ] = False,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks.")] = 30.0,
) -> None:
    """Bring finished cells and their curves into MLflow (SQLite in the home folder, or $MLFLOW_TRACKING_URI).

    A run for each case, with means over seeds, and below it a run for each seed. What is there already is left alone,
    so the same command goes on after it was interrupted or a server was down.
    """
    from cwdpo.report.tracking.server import shown_uri
    from cwdpo.report.tracking.synchronise import follow as follow_grid
    from cwdpo.report.tracking.synchronise import track as track_once

    plan = open_plan(grid, override, home)
    typer.echo(f"tracking to {shown_uri(plan.store)}")
    last = None
    for last in follow_grid(plan, every) if follow else [track_once(plan)]:
        _tell(last)
    if last and last.troubles:
        raise StoreError(f"{len(last.troubles)} cell(s) could not be tracked; the rest was")


def _tell(found: Pass) -> None:
    for line in found.notes:
        typer.echo(line)
    for line in found.troubles:
        typer.echo(line, err=True)
    if found.down:
        typer.echo(f"{found.down}; trying again in {found.wait:.0f} s", err=True)
    elif found.cells:
        typer.echo(f"{len(found.cells)} new: {', '.join(found.cells)}")
    else:
        typer.echo(f"means of {', '.join(found.cases)}" if found.cases else "nothing new")
