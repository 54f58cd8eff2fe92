"""The runs of a grid as MLflow has them, and putting one there whole.

A run is whole when it is FINISHED and its digest is the one that is wanted. Any other run of the same key is what was
cut off half-way, or was computed again since: it goes once its successor is whole. So whatever pass is killed
wherever, the next one ends with what an undisturbed one leaves.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.store import Store
from cwdpo.jobs.plan import Plan
from cwdpo.report.tracking.cells import Wanted
from cwdpo.report.tracking.curves import Measured
from cwdpo.report.tracking.records import STORE
from cwdpo.report.tracking.server import default_uri, open_client, tracking_uri

KEY, DIGEST, HOME, PARENT = "cwdpo.key", "cwdpo.digest", "cwdpo.home", "mlflow.parentRunId"
PAGE = 1000
"""Runs that are asked for at a time."""


@dataclass(frozen=True)
class Found:
    """A run that is there."""

    id: str
    digest: str
    status: str
    tags: Mapping[str, str]

    def holds(self, digest: str) -> bool:
        """Whether it is whole, and what is wanted."""
        return self.status == "FINISHED" and self.digest == digest


class Book:
    """The experiment of a grid, and the runs in it that this home wrote.

    Attributes:
        runs: key -> runs; more than one only after a pass that was cut off.
        note: what has to be said about opening it; nothing as a rule.
        taken_from: stores of other homes of the same id, such as a copy has, whose runs were replaced.
    """

    def __init__(self, plan: Plan) -> None:
        self.client = open_client(plan.store)
        self.home = home_id(plan.store.home)
        self.store = str(plan.store.folder.resolve())
        self.note = ""
        self.taken_from: set[str] = set()
        self.experiment = self._experiment(plan)
        self.runs: dict[str, list[Found]] = {}
        for run in self._search():
            self.runs.setdefault(run.data.tags.get(KEY, ""), []).append(_found(run))

    def _experiment(self, plan: Plan) -> str:
        """Its id; one that was deleted keeps its name in MLflow, so it is brought back."""
        name = plan.grid.name
        found = self.client.get_experiment_by_name(name) or self._created(plan)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
            self.note = f"experiment '{name}' had been deleted in MLflow, and was restored with its runs"
        return str(found.experiment_id)

    def _created(self, plan: Plan) -> Any:
        from mlflow.exceptions import MlflowException

        place = {"artifact_location": _artifacts(plan.store)} if tracking_uri(plan.store) == _default(plan) else {}
        try:
            created = self.client.create_experiment(plan.grid.name, tags=_described(plan), **place)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # as it does when another home was first
                raise
            return self.client.get_experiment_by_name(plan.grid.name)
        return self.client.get_experiment(created)

    def _search(self) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], f"tags.`{HOME}` = '{self.home}'", max_results=PAGE, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def has(self, wanted: Wanted) -> bool:
        """Whether the run is there, whole."""
        return any(run.holds(wanted.digest) for run in self.runs.get(wanted.key, []))

    def put(self, wanted: Wanted, parent: str | None = None) -> tuple[str, bool]:
        """Id of the run, and whether it had to be written.

        Raises:
            StoreError: what it shall hold cannot be read; what was there stays.
        """
        found = self.runs.get(wanted.key, [])
        kept = next((run for run in found if run.holds(wanted.digest)), None)
        run = kept or self._write(wanted, parent)
        self.keep(wanted.key, run)
        return run.id, kept is None

    def keep(self, key: str, run: Found) -> None:
        """Make it the only one of its key."""
        for other in self.runs.get(key, []):
            if other is not run:
                self.taken_from |= {other.tags.get(STORE, self.store)} - {self.store}
                self.client.delete_run(other.id)
        self.runs[key] = [run]

    def _write(self, wanted: Wanted, parent: str | None) -> Found:
        content = wanted.read()
        run = self.begin(wanted.key, wanted.name, wanted.digest, content.began, parent)
        self.log(run.id, content.params, content.metrics, content.tags)
        self.client.set_terminated(run.id, "FINISHED", content.ended or None)
        return Found(run.id, wanted.digest, "FINISHED", run.tags)

    def begin(self, key: str, name: str, digest: str, began: int, parent: str | None) -> Found:
        """A new run that holds nothing yet."""
        tags = {KEY: key, DIGEST: digest, HOME: self.home, **({PARENT: parent} if parent else {})}
        run = self.client.create_run(self.experiment, start_time=began or None, tags=tags, run_name=name)
        return _found(run)

    def log(self, run: str, params: Mapping[str, str], metrics: Iterable[Measured], tags: Mapping[str, str]) -> None:
        """Write into a run; the client makes batches of what MLflow takes at once (1,000 metrics, 100 of the rest)."""
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(
            run,
            metrics=[Metric(one.name, one.value, one.when, one.step) for one in metrics],
            params=[Param(key, value) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def adopt(self, key: str, parent: str) -> None:
        """Hang the runs of all seeds of a case below its run, those too that the plan does not have any more."""
        for below, runs in self.runs.items():
            for run in runs if below.startswith(f"{key}/") else ():
                if run.tags.get(PARENT) != parent:
                    self.client.set_tag(run.id, PARENT, parent)


def _found(run: Any) -> Found:
    tags = run.data.tags
    return Found(run.info.run_id, tags.get(DIGEST, ""), run.info.status, tags)


def home_id(home: Path) -> str:
    """What tells the runs of this home from those of others on the same server; made once, kept in `mlflow.home`.

    Raises:
        StoreError: the file does not say.
    """
    path = home / "mlflow.home"
    if not path.exists():
        files.write_json(path, {"id": uuid.uuid4().hex})
    found = files.read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise StoreError(
            f"{path} does not say which runs in MLflow are of this home; if it is deleted, all are written once more"
        )
    return str(found["id"])


def _default(plan: Plan) -> str:
    return default_uri(plan.store)


def _artifacts(store: Store) -> str:
    """Where MLflow would put files that somebody adds by hand; not in whatever folder this was started."""
    return (store.home / "mlruns").resolve().as_uri()


def _described(plan: Plan) -> dict[str, str]:
    return {"mlflow.note.content": plan.grid.description} if plan.grid.description else {}
