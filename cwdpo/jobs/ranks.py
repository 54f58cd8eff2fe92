"""Settings that cannot run on the ranks of a cluster's jobs, found before anything waits in a queue."""

from __future__ import annotations

from cwdpo.base.errors import ConfigError
from cwdpo.experiment import Cell, Experiment, Grid
from cwdpo.jobs.clusters import Cluster
from cwdpo.jobs.fit import check_copies
from cwdpo.jobs.forecast.dimensions import Dimensions, of_source


def check_ranks(grid: Grid, cluster: Cluster) -> None:
    """Raise `ConfigError` for settings that cannot run on the ranks of a cluster's jobs."""
    sizes: dict[str, Dimensions | None] = {}
    for cell in grid.cells:
        _check_replicas(cell, cluster.ranks_of("generate"), sizes)
        _check_current_batch(cell, cluster.ranks_of("train"))
    check_copies(grid, cluster)


def _check_replicas(cell: Cell, ranks: int, sizes: dict[str, Dimensions | None]) -> None:
    """Every rank of a replica has whole heads; `sizes` keeps what was read of a model for the next cell."""
    execution = cell.experiment.execution
    if execution.inference != "tensor_parallel":
        return
    size = execution.replica_size
    said = f"case '{cell.case}': execution.replica_size {size} does not divide"
    if ranks % size:
        raise ConfigError(f"{said} {ranks} rank(s)")
    key = repr(cell.experiment.model)
    if key not in sizes:
        sizes[key] = of_source(cell.experiment.model)
    model = sizes[key]
    if model and not model.divides_into(size):
        valid = ", ".join(str(one) for one in range(1, ranks + 1) if ranks % one == 0 and model.divides_into(one))
        raise ConfigError(
            f"{said} the {model.heads} attention heads and {model.key_value_heads} key-value heads of {model.name};"
            f" on {ranks} rank(s) it can be {valid}, or use execution.inference zero3 or replicate"
        )


def _check_current_batch(cell: Cell, ranks: int) -> None:
    experiment: Experiment = cell.experiment
    if experiment.stage1 is None or not experiment.stage1.objective.needs_batch_mean:
        return
    batch, micro = experiment.stage1.optimization.batch_size, experiment.execution.micro_batch
    if batch > micro * ranks:
        raise ConfigError(
            f"case '{cell.case}': stage1.objective.constraint_estimate current_batch needs gradient accumulation 1, but"
            f" batch_size {batch} is more than micro_batch {micro} x {ranks} rank(s); raise execution.micro_batch,"
            " use more ranks, or use previous_step"
        )
