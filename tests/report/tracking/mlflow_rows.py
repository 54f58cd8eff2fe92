"""What MLflow has, read with sqlite3 rather than with the client that wrote it, and clients that count or break."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.base.store import Artefact
from cwdpo.jobs.plan import Plan
from cwdpo.report.tracking import book

PARENT = "mlflow.parentRunId"


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Result of a query."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def change(database: Path, *statements: str) -> None:
    """Do to a database what nobody should."""
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def emptied(database: Path) -> None:
    """Take every run and experiment out."""
    names = ("metrics", "latest_metrics", "params", "tags", "runs", "experiment_tags", "experiments")
    change(database, *(f"DELETE FROM {name}" for name in names))


@dataclass(frozen=True)
class Run:
    """A run that was not deleted.

    Attributes:
        parent: name of the run above it, "" for none.
        metrics: (step, value, milliseconds) by name.
    """

    id: str
    status: str
    parent: str
    params: dict[str, str]
    metrics: dict[str, list[tuple[int, float, int]]]
    tags: dict[str, str]
    times: tuple[int, int]

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value)."""
        return [(step, value) for step, value, _ in self.metrics.get(name, [])]

    def value(self, name: str) -> float:
        """Of a metric that has one."""
        ((_, value),) = self.curve(name)
        return value


def runs(database: Path) -> dict[str, Run]:
    """Runs by name, which must be unique."""
    found = rows(database, "SELECT name, run_uuid, status, start_time, end_time FROM runs"
                           " WHERE lifecycle_stage = 'active'")  # fmt: skip
    assert len({name for name, *_ in found}) == len(found), sorted(name for name, *_ in found)
    names = {identifier: name for name, identifier, *_ in found}
    return {name: _run(database, identifier, status, names, times) for name, identifier, status, *times in found}


def _run(database: Path, identifier: str, status: str, names: dict[str, str], times: Sequence[int]) -> Run:
    def pairs(table: str) -> dict[str, str]:
        return dict(rows(database, f"SELECT key, value FROM {table} WHERE run_uuid = '{identifier}'"))

    metrics: dict[str, list[tuple[int, float, int]]] = {}
    query = f"SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = '{identifier}' ORDER BY key, step"
    for name, *point in rows(database, query):
        metrics.setdefault(name, []).append((point[0], point[1], point[2]))
    tags = pairs("tags")
    parent = names.get(tags.get(PARENT, ""), "gone" if PARENT in tags else "")
    return Run(identifier, status, parent, pairs("params"), metrics, tags, (times[0], times[1]))


def state(database: Path) -> dict[str, Run]:
    """Runs without their ids, which are others each time, and without the place of the home."""
    found = runs(database)
    return {
        name: replace(
            run, id="", tags={key: value for key, value in run.tags.items() if key not in (PARENT, "cwdpo.store")}
        )
        for name, run in found.items()
    }


def some(plan: Plan, *names: str) -> Plan:
    """A plan of only some cells."""
    cells = tuple(cell for cell in plan.grid.cells if cell.name in names)
    return Plan(replace(plan.grid, cells=cells), plan.store, {name: plan.wired[name] for name in names})


def finish(artefact: Artefact, content: Path, provenance: Mapping[str, Any]) -> None:
    """Publish the files of a folder as an artefact that is not done."""
    if artefact.done() is None:
        attempt = artefact.claim({})
        shutil.copytree(content, attempt.out, dirs_exist_ok=True)
        attempt.publish(provenance)


def compute_again(score: Artefact, content: Path, partial: bool = False, **metrics: float) -> None:
    """Publish a second attempt of a score, by a Slurm job; its files are put together in a new folder."""
    done = score.done()
    assert done is not None
    shutil.copytree(score.files, content)
    found = files.read_json(content / "scores.json")
    files.write_json(content / "scores.json", {**found, "partial": partial, "metrics": {**found["metrics"], **metrics}})
    score.retire()
    job = {"slurm_job": "4714", "slurm_array": "4711", "index": 3}
    finish(score, content, {**done["provenance"], "job": job})


class Watched:
    """A client that calls something before each call."""

    def __init__(self, client: Any, before: Callable[[str], None]) -> None:
        self._client, self._before = client, before

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._before(name)
            return getattr(self._client, name)(*arguments, **keywords)

        return call


def watch(monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None]) -> None:
    """Have every call of a client told to `before`."""
    original = OPEN
    monkeypatch.setattr(book, "open_client", lambda store: Watched(original(store), before))


OPEN = book.open_client
