"""`cwdpo score`: stored answers scored again, on this machine's processors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cwdpo.cli.app import CellsArgument, GridOption, HomeOption, LimitOption, SetOption, app, source_of

if TYPE_CHECKING:
    from cwdpo.base.store import Artefact
    from cwdpo.graph import Node
    from cwdpo.jobs.plan import Plan


@app.command(epilog="Example: cwdpo score --grid demo --force")
def score(
    grid: GridOption,
    cells: CellsArgument = None,
    force: Annotated[bool, typer.Option("--force", help="Also what is scored already.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Scores at a time.  [default: a processor each, at most 4]"),
    ] = None,
    override: SetOption = None,
    home: HomeOption = None,
    limit: LimitOption = None,
) -> None:
    """Score the answers that are there: no GPU, no model, nothing generated. Judges are not asked again.

    METEOR takes about 0.8 GB a job, SPICE up to 8.
    """
    found = jobs or min(4, os.cpu_count() or 1)
    raise typer.Exit(_score(source_of(grid, override, home, limit).plan(writable=True), cells or [], force, found))


def _score(plan: Plan, cells: Sequence[str], force: bool, jobs: int) -> int:
    from cwdpo.cli.submit import conclude, reporting
    from cwdpo.jobs.clusters import LocalCluster
    from cwdpo.jobs.local import LocalExecutor

    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # scores take none, so that GPUs do not bound how many run at a time
    answered = _answered(plan, cells, force)
    if force:
        _check_programs(plan, answered)
        for artefact in [node.artefact(plan.store) for node in answered]:
            if (artefact.folder / "DONE").exists():  # whatever it says: a damaged one goes, too
                artefact.retire()
    with reporting(plan) as reporter:
        cluster = LocalCluster(kind="local", jobs=jobs)
        outcome = LocalExecutor(plan, cluster, reporter, {node.id for node in answered}).run()
    return conclude(plan, outcome, len(answered))


def _check_programs(plan: Plan, scores: Sequence[Node]) -> None:
    """Raise `NotAvailable` where scores that are there would lose values, for want of Java or of SPICE's parser."""
    from cwdpo.metrics.java import find_java
    from cwdpo.metrics.spice import spice_jars

    values = [_values(node.artefact(plan.store)) for node in scores]
    known = {key for metrics in values for key, value in metrics.items() if value is not None}
    if any(key.endswith(("meteor", "cider")) for key in known):
        find_java()
    if any(key.endswith("spice") for key in known):
        os.environ["CWDPO_HOME"] = str(plan.store.home)  # what was fetched lies there
        spice_jars()


def _values(score: Artefact) -> Mapping[str, object]:
    """Metric -> value of a score that is there; nothing where it is damaged: what cannot be read cannot be lost."""
    from cwdpo.base import files
    from cwdpo.base.errors import StoreError

    try:
        found = files.read_json(score.files / "scores.json")
    except StoreError:
        return {}
    metrics = found.get("metrics") if isinstance(found, dict) else None
    return metrics if isinstance(metrics, dict) else {}


def _answered(plan: Plan, cells: Sequence[str], force: bool) -> list[Node]:
    """Scores whose answers are there; says what is left out."""
    from cwdpo.cli.slurm import nodes_of

    wanted, states = nodes_of(plan, list(cells)), plan.states()
    nodes = [node for node in plan.nodes if node.stage.name == "score" and node.id in wanted]
    answered = [node for node in nodes if all(states[parent.id] in ("done", "stale") for parent in node.parents)]
    if len(answered) < len(nodes):
        typer.echo(f"{len(nodes) - len(answered)} of {len(nodes)} scores wait for answers, which `cwdpo submit` makes")
    old = [node for node in answered if states[node.id] == "stale"]
    if old and not force:
        typer.echo(f"{len(old)} scores were computed by other code; --force computes them again")
    return answered
