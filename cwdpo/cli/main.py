"""`cwdpo`: the commands, their options and help. What they do is imported when they run, so that help is instant.

Exit status: 0 done; 1 some stage failed; 2 wrong option, file or key; 3 wrong data or model; 4 the store cannot be
written or is damaged; 5 training cannot go on; 6 not available here; 75 stopped by a signal, go on with the same
command; 76 another process is at it; 130 Ctrl-C.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cwdpo.base.errors import ConfigError, CwdpoError
from cwdpo.cli import compare as _compare  # registers its command
from cwdpo.cli import data as _data  # registers its commands
from cwdpo.cli import doctor as _doctor  # registers its command
from cwdpo.cli import fetch as _fetch  # registers its command
from cwdpo.cli import jobs as _jobs  # registers its commands
from cwdpo.cli import plan as _plan  # registers its command
from cwdpo.cli import probe as _probe  # registers its commands
from cwdpo.cli import report as _report  # registers its command
from cwdpo.cli import score as _score  # registers its command
from cwdpo.cli import track as _track  # registers its command
from cwdpo.cli.app import (
    AllOption,
    ClusterOption,
    GridOption,
    HomeOption,
    JsonOption,
    LimitOption,
    SetOption,
    app,
    open_plan,
    source_of,
)
from cwdpo.version import code_version

if TYPE_CHECKING:
    from cwdpo.jobs.prepare import OnStale

INTERRUPTED = 130

__all__ = [
    "_compare", "_data", "_doctor", "_fetch", "_jobs", "_plan", "_probe", "_report", "_score", "_track", "app", "main",
]  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        found = code_version()
        commit = (
            f" (commit {str(found['commit'])[:12]}{', changed' if found['dirty'] else ''})" if found["commit"] else ""
        )
        typer.echo(f"cwdpo {found['version']}{commit}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show version and commit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: cwdpo submit --grid demo --cluster local")
def submit(
    grid: GridOption,
    cluster: ClusterOption = None,
    override: SetOption = None,
    home: HomeOption = None,
    limit: LimitOption = None,
    accept_stale: Annotated[
        bool, typer.Option("--accept-stale", help="Keep results that were computed by other code.")
    ] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute results again that were computed by other code.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Slurm: write every script and the graph of jobs, submit nothing.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Slurm: stay, reconcile and report until all is settled.")
    ] = False,
    steward: Annotated[
        bool, typer.Option("--steward", help="Slurm: a one-core job that reconciles after this command has gone.")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="The whole chain with 2 steps and 8 items, in a scratch store.")
    ] = False,
) -> None:
    """Compute what is missing of a grid. Interrupted anywhere, the same command goes on where it stopped."""
    from cwdpo.cli.submit import Wishes, submit_grid

    if accept_stale and recompute:
        raise ConfigError("--accept-stale and --recompute contradict each other")
    on_stale: OnStale = "accept" if accept_stale else "recompute" if recompute else "refuse"
    wishes = Wishes(on_stale=on_stale, dry_run=dry_run, watch=watch, steward=steward, rehearse=rehearse)
    raise typer.Exit(submit_grid(source_of(grid, override, home, limit), cluster, wishes))


@app.command(epilog="Example: cwdpo status --grid demo")
def status(
    grid: GridOption,
    override: SetOption = None,
    home: HomeOption = None,
    limit: LimitOption = None,
    every: AllOption = False,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks.")] = 10.0,
) -> None:
    """Show how each cell of a grid stands, stage by stage, what is at work, and why stages failed."""
    from cwdpo.cli.explain import show_status

    show_status(source_of(grid, override, home, limit), every, as_json, interval if watch else None)


@app.command(epilog="Example: cwdpo export cw_dpo/0 --grid demo --to exported --merged")
def export(
    cell: Annotated[str, typer.Argument(help="CASE/SEED, as `cwdpo status` shows them.")],
    grid: GridOption,
    to: Annotated[Path, typer.Option("--to", help="New folder.")],
    merged: Annotated[
        bool, typer.Option("--merged", help="One model folder with the adapter merged into the weights.")
    ] = False,
    override: SetOption = None,
    home: HomeOption = None,
) -> None:
    """Copy a trained policy out of the store: the PEFT adapter, or a whole model."""
    from cwdpo.cli.export import export_cell

    export_cell(open_plan(grid, override, home), cell, to, merged)
    typer.echo(f"written to {to}")


def main() -> None:
    """Entry point: a `CwdpoError` becomes one message and its exit status."""
    gc.set_threshold(100_000)  # a plan of thousands of cells is all live: looking for garbage in it finds none
    try:
        app()
    except CwdpoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as ending:  # what typer makes of Ctrl-C
        if ending.code == INTERRUPTED:
            typer.echo("interrupted; the same command goes on where it stopped", err=True)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
