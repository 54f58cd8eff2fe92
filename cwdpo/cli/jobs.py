"""The commands about jobs: `reconcile`, `retry`, `cancel`, `logs`, `why`, `prune`, `collect`."""

from __future__ import annotations

from typing import Annotated

import typer

from cwdpo.cli.app import CellArgument, CellsArgument, GridOption, HomeOption, JsonOption, SetOption, Source, app


@app.command(epilog="Example: cwdpo reconcile --grid demo --watch")
def reconcile(
    grid: GridOption,
    override: SetOption = None,
    home: HomeOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until nothing is under way.")] = False,
) -> None:
    """Slurm: submit the next wave and what may be tried again, mend dependencies, take away what can never run.

    Every command on a submitted grid does this on its way; it is safe at any time, any number of times.
    """
    from cwdpo.cli.slurm import reconcile_grid

    raise typer.Exit(reconcile_grid(Source(grid, tuple(override or []), home), watch))


@app.command(epilog="Example: cwdpo retry cw_dpo/0 --grid demo")
def retry(grid: GridOption, cells: CellsArgument = None, override: SetOption = None, home: HomeOption = None) -> None:
    """Slurm: try failed stages of cells again, with the code as it is now."""
    from cwdpo.cli.slurm import retry as retry_cells

    raise typer.Exit(retry_cells(Source(grid, tuple(override or []), home), cells))


@app.command(epilog="Example: cwdpo cancel dpo --grid demo")
def cancel(grid: GridOption, cells: CellsArgument = None, override: SetOption = None, home: HomeOption = None) -> None:
    """Slurm: take the jobs of cells out of the queue. Finished work stays; what other cells need goes on."""
    from cwdpo.cli.slurm import cancel as cancel_cells

    raise typer.Exit(cancel_cells(Source(grid, tuple(override or []), home), cells))


@app.command(epilog="Example: cwdpo logs cw_dpo/0 --grid demo --stage stage2 --follow")
def logs(
    cell: CellArgument,
    grid: GridOption,
    stage: Annotated[str | None, typer.Option("--stage", help="[default: the one at work, else that failed]")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the file grows.")] = False,
    override: SetOption = None,
    home: HomeOption = None,
) -> None:
    """Show the log of a cell's stage: what its newest attempt wrote, and what its job said."""
    from cwdpo.cli.explain import show_logs

    show_logs(Source(grid, tuple(override or []), home).plan(), cell, stage, follow)


@app.command(epilog="Example: cwdpo why cw_dpo/0 --grid demo")
def why(cell: CellArgument, grid: GridOption, override: SetOption = None, home: HomeOption = None) -> None:
    """Say why a cell is not done: the chain of causes, down to the log lines that matter."""
    from cwdpo.cli.explain import show_why

    raise typer.Exit(show_why(Source(grid, tuple(override or []), home).plan(), cell))


@app.command(epilog="Example: cwdpo prune --unused")
def prune(
    home: HomeOption = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="Results, too, that no grid needs as it was last submitted from this home.")
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep-grid", metavar="GRID", help="Take this grid as its file says now; may be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is left over in a home and how much space it takes; --yes removes it.

    A grid is known while its folder in <home>/grids is there. Logs, finished results that a grid needs, and what
    running or unfinished stages go on from always stay.
    """
    from cwdpo.cli.prune import prune as prune_home

    prune_home(Source("", (), home).store, keep or [], unused, yes, as_json)


@app.command(hidden=True)
def collect(grid: GridOption, override: SetOption = None, home: HomeOption = None) -> None:
    """Write the report of what is there and say what is missing; the last job of a submission."""
    from cwdpo.cli.explain import collect as collect_grid

    raise typer.Exit(collect_grid(Source(grid, tuple(override or []), home).plan()))
