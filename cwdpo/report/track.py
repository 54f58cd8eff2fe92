"""`cwdpo track`: brings finished cells into MLflow. The only process that writes there; jobs never do.

One experiment per grid, one run per cell. A run carries the ids of everything it shows as a digest, so a second pass
finds it and leaves it; a run cut off half-way is thrown away and written again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import NotAvailable, StoreError
from cwdpo.base.identity import digest
from cwdpo.base.store import Store, process_started
from cwdpo.experiment import Cell
from cwdpo.jobs.containers.image import named
from cwdpo.jobs.events import curve
from cwdpo.jobs.plan import Plan
from cwdpo.pipeline import Node, Wired

BATCH = 1000  # metrics MLflow takes in one call
KEY = "cwdpo.digest"
IDS = "cwdpo.ids"
NOT_METRICS = frozenset({"time", "event", "step", "total"})


def tracking_uri(store: Store) -> str:
    """`$MLFLOW_TRACKING_URI`, else a SQLite file in the home folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(store.home / 'mlflow.db').resolve()}"


def track(plan: Plan) -> list[str]:
    """Write every finished cell that is not there yet; returns their names.

    Raises:
        NotAvailable: the tracking server does not answer; nothing is lost, run it again later.
        StoreError: another process is tracking into this home.
    """
    states = plan.states()
    finished = [cell for cell in plan.grid.cells if _finished(plan.wired[cell.name], states)]
    with _single_writer(plan.store.home), _answering(plan.store):
        client = _client(plan.store)
        experiment = _experiment(client, plan)
        return [cell.name for cell in finished if _track_cell(client, experiment, plan, cell)]


def _finished(wired: Wired, states: Mapping[str, str]) -> bool:
    return all(states[node.id] in ("done", "stale") for node in wired.nodes())


def _client(store: Store) -> Any:
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    store.home.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri(store))


@contextmanager
def _answering(store: Store) -> Iterator[None]:
    """Turn what MLflow raises, at the first call or in the middle, into `NotAvailable`."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, ConnectionError) as error:
        raise NotAvailable(f"the tracking server at {tracking_uri(store)} does not answer: {error}") from error


def _experiment(client: Any, plan: Plan) -> str:
    found = client.get_experiment_by_name(plan.grid.name)
    return str(found.experiment_id if found else client.create_experiment(plan.grid.name))


def _track_cell(client: Any, experiment: str, plan: Plan, cell: Cell) -> bool:
    """Write one cell; False when it is there already."""
    wired = plan.wired[cell.name]
    ids = digest([cell.name, [node.id for node in wired.nodes()]])
    key = digest([ids, [_attempt(plan, node) for node in wired.nodes()]])
    for run in client.search_runs([experiment], filter_string=f"tags.`{IDS}` = '{ids}'"):
        if run.info.status == "FINISHED" and run.data.tags.get(KEY) == key:
            return False
        client.delete_run(run.info.run_id)  # cut off half-way, or computed again since
    run = client.create_run(experiment, tags={KEY: key, IDS: ids, **_tags(plan, cell)}, run_name=cell.name)
    _log_parameters(client, run.info.run_id, cell)
    _log_metrics(client, run.info.run_id, list(_metrics(plan, wired)))
    client.set_terminated(run.info.run_id, "FINISHED")
    return True


def _attempt(plan: Plan, node: Node) -> int:
    done = node.artefact(plan.store).done()
    return int(done["attempt"]) if done else 0


def _tags(plan: Plan, cell: Cell) -> dict[str, str]:
    """Which cell it is, its stages, and the commits and images they were computed with."""
    nodes = plan.wired[cell.name].nodes()
    ids = {f"cwdpo.id.{node.stage.name}.{index}": node.id for index, node in enumerate(nodes)}
    made = [done["provenance"] for node in nodes if (done := node.artefact(plan.store).done())]
    commits = dict.fromkeys(str(found["commit"]) for found in made)
    images = dict.fromkeys(named(found) for found in made)
    computed = {"cwdpo.commits": ", ".join(commits), "cwdpo.images": ", ".join(images)}
    return {"cwdpo.case": cell.case, "cwdpo.seed": str(cell.seed), **computed, **ids}


def _log_parameters(client: Any, run: str, cell: Cell) -> None:
    from mlflow.entities import Param

    flat = dict(_flat("", cell.experiment.model_dump(mode="json", exclude={"execution"})))
    client.log_batch(run, params=[Param(key, str(value)[:500]) for key, value in flat.items()])


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _flat(f"{prefix}.{index}", item)
    elif value is not None:
        yield prefix, value


def _metrics(plan: Plan, wired: Wired) -> Iterator[tuple[str, float, int, int]]:
    """(name, value, step, milliseconds) of curves and of final scores."""
    for node in wired.nodes():
        if node.stage.name in ("pretrain", "stage1", "sft_phase", "stage2"):
            yield from _curve_metrics(plan, node)
    for name, node in wired.scores.items():
        folder = node.artefact(plan.store).verified_files()
        for metric, value in files.read_json(folder / "scores.json")["metrics"].items():
            if value is not None:
                yield f"{name}/{metric}", value, 0, int((folder / "scores.json").stat().st_mtime * 1000)


def _curve_metrics(plan: Plan, node: Node) -> Iterator[tuple[str, float, int, int]]:
    for point in curve(node.artefact(plan.store)):
        for key, value in point.items():
            if key not in NOT_METRICS and value is not None:
                yield f"{node.stage.name}/{key}", float(value), point["step"], int(point["time"] * 1000)


def _log_metrics(client: Any, run: str, metrics: list[tuple[str, float, int, int]]) -> None:
    from mlflow.entities import Metric

    for start in range(0, len(metrics), BATCH):
        part = [Metric(name, value, when, step) for name, value, step, when in metrics[start : start + BATCH]]
        client.log_batch(run, metrics=part)


@contextmanager
def _single_writer(home: Path) -> Iterator[None]:
    """Hold `mlflow.writer` while writing; a writer that died is replaced.

    Raises:
        StoreError: a living process holds it.
    """
    path = home / "mlflow.writer"
    me = {"host": socket.gethostname(), "pid": os.getpid(), "process_started": process_started(os.getpid())}
    temporary = files.temporary_beside(path)
    files.write_json(temporary, me)
    try:
        _take(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take(temporary: Path, path: Path) -> None:
    for _ in range(2):
        try:
            os.link(temporary, path)
            return
        except FileExistsError:
            holder = files.read_json(path)
            if holder["host"] != socket.gethostname() or process_started(holder["pid"]) == holder["process_started"]:
                who = f"process {holder['pid']} on {holder['host']}"
                raise StoreError(f"{who} is tracking into this home; if it is gone, delete {path}") from None
            path.unlink(missing_ok=True)
    raise StoreError(f"cannot take {path}")


def follow(plan: Plan, seconds: float) -> Iterator[list[str]]:
    """`track` again and again until every cell is finished; yields the new names of each pass."""
    while True:
        yield track(plan)
        states = plan.states()
        if all(_finished(wired, states) for wired in plan.wired.values()):
            return
        time.sleep(seconds)
