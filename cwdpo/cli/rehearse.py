"""`submit --rehearse`: the grid in small in a scratch home, and what it showed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from cwdpo.base.errors import Busy
from cwdpo.cli.app import Source
from cwdpo.cli.show import console, print_table, print_text
from cwdpo.cli.sizes import human
from cwdpo.jobs.clusters import LocalCluster, load_cluster
from cwdpo.jobs.rehearsal import ITEMS, STEPS, Rehearsed, rehearsal, rehearsed
from cwdpo.jobs.scratch import Scratch

if TYPE_CHECKING:
    from cwdpo.cli.submit import Wishes
    from cwdpo.experiment import Grid


def rehearse(source: Source, cluster_name: str | None, wishes: Wishes) -> int:
    """Compute the grid in small, in an empty store; returns the exit status.

    Raises:
        Busy: another rehearsal is at work.
    """
    from cwdpo.cli.submit import submit_grid

    cluster, grid = load_cluster(cluster_name), rehearsal(source.load())
    scratch = Scratch(source.store.home)
    own = Source(str(scratch.file_of(grid)), (), scratch.folder)
    with scratch.held():
        _begin(scratch, grid, own, wishes)
        status = submit_grid(own, cluster_name, replace(wishes, rehearse=False))
    if wishes.watch or isinstance(cluster, LocalCluster):
        _tell(own)
    if not wishes.dry_run:
        typer.echo(f"look closer: cwdpo status --grid {own.grid} --home {own.home}")
    return status


def _begin(scratch: Scratch, grid: Grid, own: Source, wishes: Wishes) -> None:
    """Make the scratch home anew, or join the rehearsal that is at work."""
    if not scratch.at_work():
        scratch.make(grid)
    elif not (wishes.watch and scratch.file_of(grid).exists()):
        raise Busy(
            f"a rehearsal is at work in {scratch.folder}: wait for it with --watch, or end it with"
            f" `cwdpo cancel --grid {own.grid} --home {own.home}`"
        )


def _tell(own: Source) -> None:
    """What worked, how long it took and how much memory."""
    screen, plan = console(), own.plan()
    found = rehearsed(plan)
    print_text(screen, f"\n{plan.grid.name}: {sum(row.done for row in found)} of {len(plan.nodes)} stages worked\n")
    columns = ("stage", "worked", "longest", "memory", "GPU memory")
    print_table(screen, columns, [_row(row) for row in found])
    print_text(
        screen,
        f"\nMeasured on {STEPS} steps and {ITEMS} items, without waiting; memory is the most that the first process of"
        "\na job took. Nothing is extrapolated to the real grid.",
    )


def _row(row: Rehearsed) -> tuple[str, ...]:
    seconds = "-" if row.seconds is None else f"{row.seconds:.1f} s"
    sizes = ("-" if size is None else human(size) for size in (row.memory, row.gpu_memory))
    return row.stage, f"{row.done} of {row.count}", seconds, *sizes
