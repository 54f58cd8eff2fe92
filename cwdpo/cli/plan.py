"""`cwdpo plan`: what a grid needs, how it stands, and what the rest will cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from cwdpo.base.errors import ConfigError
from cwdpo.cli.app import (
    AllOption,
    ClusterOption,
    GridOption,
    HomeOption,
    JsonOption,
    LimitOption,
    SetOption,
    app,
    print_json,
    source_of,
)

if TYPE_CHECKING:
    from cwdpo.jobs.clusters import Cluster

BudgetOption = Annotated[
    float | None,
    typer.Option("--budget", min=0, metavar="HOURS", help="Say whether so many GPU-hours are enough, and for what."),
]
QueueOption = Annotated[
    int | None,
    typer.Option("--job-limit", min=1, help="Slurm: jobs in the queue at a time, instead of the profile's max_submit."),
]
NodesOption = Annotated[
    int | None,
    typer.Option("--nodes", min=1, help="Slurm: nodes that jobs get at a time.  [default: all they ask for]"),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Fail as `submit` would where data, models or benchmarks are not there.")
]


@app.command(
    epilog="Exit status: 1 where --budget is not enough, or nobody can say, 2 for a wrong key, else 0, whatever lacks."
    " Example: cwdpo plan --grid demo --budget 10"
)
def plan(
    grid: GridOption,
    cluster: ClusterOption = None,
    override: SetOption = None,
    home: HomeOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    job_limit: QueueOption = None,
    nodes: NodesOption = None,
    strict: StrictOption = False,
    every: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the distinct stages of a grid, what is done, and a forecast of the rest: hours, days, memory, storage.

    Computes nothing, and needs neither data nor models: what is missing is listed as to be done before `submit`.
    """
    from cwdpo.cli.forecast import Question, answered, print_plan
    from cwdpo.jobs.clusters import load_cluster
    from cwdpo.jobs.ranks import check_ranks

    source, profile = source_of(grid, override, home, limit), load_cluster(cluster)
    _check(profile, budget, {"--job-limit": job_limit, "--nodes": nodes})
    found = source.plan() if strict else source.provisional_plan()
    check_ranks(found.grid, profile)
    answer = answered(found, Question(profile, budget, job_limit, nodes))
    if as_json:
        print_json(answer.as_json())
    else:
        print_plan(answer, every)
    if answer.budget and not answer.budget.enough:
        raise typer.Exit(1)


def _check(profile: Cluster, budget: float | None, of_slurm: Mapping[str, int | None]) -> None:
    """Raise `ConfigError` for what would say nothing: hours without end, limits of Slurm on a machine without it."""
    if budget is not None and not math.isfinite(budget):
        raise ConfigError(f"--budget {budget}: expected a number of hours, such as 500")
    if profile.kind != "slurm" and (given := [name for name, value in of_slurm.items() if value is not None]):
        raise ConfigError(f"{', '.join(given)}: of Slurm only; this profile has kind {profile.kind}")
