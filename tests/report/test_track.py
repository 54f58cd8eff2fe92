"""Tracking into MLflow: the default SQLite file, a real server, one that is down, and two writers at once.

What was written is read back with sqlite3, not with the client that wrote it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from commands import MICRO, REPO, command, copy_home, cwdpo, environment, node_of, plan_of, succeed

from cwdpo.base.errors import NotAvailable
from cwdpo.base.store import Store
from cwdpo.jobs.events import curve
from cwdpo.jobs.launch import free_port
from cwdpo.report import track as tracking

CELLS = [f"{case}/{seed}" for case in ("base", "sft", "dpo", "cw_dpo") for seed in (0, 1)]
ALL_NEW = f"8 new: {', '.join(CELLS)}"


def track(home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`cwdpo track` in an empty working folder, which must stay empty."""
    here = home.parent / "here"
    here.mkdir(exist_ok=True)
    done = cwdpo("track", "-g", MICRO, "--home", home, cwd=here, **more)
    assert list(here.iterdir()) == []
    return done


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Result of a query."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def runs(database: Path) -> dict[str, str]:
    """Name of every run that was not deleted -> its id; names must be unique and runs finished."""
    found = rows(database, "SELECT name, run_uuid, status FROM runs WHERE lifecycle_stage = 'active'")
    assert {status for _, _, status in found} <= {"FINISHED"}
    assert len({name for name, _, _ in found}) == len(found)
    return {name: identifier for name, identifier, _ in found}


def metric(database: Path, run: str, key: str) -> list[tuple[int, float]]:
    """(step, value) of a metric."""
    query = f"SELECT step, value FROM metrics WHERE run_uuid = '{run}' AND key = '{key}' ORDER BY step"
    return rows(database, query)


def check_content(database: Path, home: Path) -> None:
    """Every cell is there once, with its curves, scores, parameters and ids."""
    found = runs(database)
    assert sorted(found) == sorted(CELLS)
    for cell in CELLS:
        folder = node_of(home, "score", cell).artefact(Store(home)).files
        scores = json.loads((folder / "scores.json").read_text())["metrics"]
        for name, value in scores.items():
            wanted = [] if value is None else [(0, pytest.approx(value))]  # SPICE is None where its jars are not
            assert metric(database, found[cell], f"captions/{name}") == wanted
    for stage, cell, steps in (("stage1", "sft/1", 4), ("stage2", "cw_dpo/0", 3), ("pretrain", "base/0", 20)):
        points = curve(node_of(home, stage, cell).artefact(Store(home)))
        expected = [(point["step"], pytest.approx(point["loss"])) for point in points]
        assert len(expected) == steps
        assert metric(database, found[cell], f"{stage}/loss") == expected
    run = found["cw_dpo/1"]
    parameters = dict(rows(database, f"SELECT key, value FROM params WHERE run_uuid = '{run}'"))
    assert parameters["stage2.objective.name"] == "cw_dpo"
    assert parameters["seed"] == "1"
    tags = dict(rows(database, f"SELECT key, value FROM tags WHERE run_uuid = '{run}'"))
    assert node_of(home, "score", "cw_dpo/1").id in tags.values()
    assert (tags["cwdpo.case"], tags["cwdpo.seed"]) == ("cw_dpo", "1")
    assert tags["cwdpo.images"] == "no image"
    assert len(tags["cwdpo.commits"]) == 40


@pytest.fixture(scope="module")
def tracked(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished home, tracked once into its own SQLite file."""
    home = copy_home(finished, tmp_path_factory.mktemp("tracked") / "home")
    shown = succeed(track(home))
    assert f"tracking to sqlite:///{home / 'mlflow.db'}" in shown
    assert ALL_NEW in shown
    return home


def test_curves_and_scores_are_there(tracked: Path) -> None:
    check_content(tracked / "mlflow.db", tracked)
    assert not (tracked / "mlflow.writer").exists()


def test_a_second_pass_writes_nothing(tracked: Path, tmp_path: Path) -> None:
    home = copy_home(tracked, tmp_path / "home")
    before = rows(home / "mlflow.db", "SELECT count(*) FROM metrics"), runs(home / "mlflow.db")
    assert "nothing new" in succeed(track(home))
    assert before == (rows(home / "mlflow.db", "SELECT count(*) FROM metrics"), runs(home / "mlflow.db"))


def test_unfinished_cells_wait(tracked: Path, tmp_path: Path) -> None:
    """A cell whose score is not there is left out until it is; what is there already stays."""
    home = copy_home(tracked, tmp_path / "home")
    score = node_of(home, "score", "dpo/0").artefact(Store(home)).folder
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'dpo/0'")
    os.rename(score / "DONE", score / "DONE.aside")
    assert "nothing new" in succeed(track(home))
    os.rename(score / "DONE.aside", score / "DONE")
    assert "1 new: dpo/0" in succeed(cwdpo("track", "-g", MICRO, "--home", home, "--follow", "--every", 1))


def test_a_half_written_run_is_replaced(tracked: Path, tmp_path: Path) -> None:
    home = copy_home(tracked, tmp_path / "home")
    database = home / "mlflow.db"
    cut = runs(database)["cw_dpo/1"]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = '{cut}'")
        connection.execute(f"DELETE FROM metrics WHERE run_uuid = '{cut}' AND key LIKE 'captions/%'")
    assert "1 new: cw_dpo/1" in succeed(track(home))
    assert runs(database)["cw_dpo/1"] != cut
    check_content(database, home)


def test_a_tracker_killed_on_the_way(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    tracker = start_tracker(home)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and len(_finished_runs(home / "mlflow.db")) < 2:
        time.sleep(0.01)
    tracker.send_signal(signal.SIGKILL)
    tracker.communicate()
    assert tracker.returncode == -signal.SIGKILL
    kept = _finished_runs(home / "mlflow.db")
    assert 2 <= len(kept) < 8
    assert (home / "mlflow.writer").exists()

    assert f"{8 - len(kept)} new: " in succeed(track(home))
    assert set(kept) <= set(runs(home / "mlflow.db").values())
    check_content(home / "mlflow.db", home)


def start_tracker(home: Path) -> subprocess.Popen[str]:
    """A tracker in the background."""
    arguments = command("track", "-g", MICRO, "--home", home)
    return subprocess.Popen(
        arguments, env=environment(), cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _finished_runs(database: Path) -> list[str]:
    if database.exists():
        with suppress(sqlite3.OperationalError):  # no tables yet
            return [name for (name,) in rows(database, "SELECT run_uuid FROM runs WHERE status = 'FINISHED'")]
    return []


def test_two_writers_at_once(tracked: Path, tmp_path: Path) -> None:
    home = copy_home(tracked, tmp_path / "home")
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted'")
    both = [start_tracker(home) for _ in range(2)]
    ended = sorted((*tracker.communicate(timeout=120), tracker.returncode) for tracker in both)
    assert sorted(status for _, _, status in ended) == [0, 4], ended
    complaint = next(complaint for _, complaint, status in ended if status == 4)
    assert "is tracking into this home" in complaint
    assert "Traceback" not in complaint
    check_content(home / "mlflow.db", home)
    assert "nothing new" in succeed(track(home))


# A server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and database of a real tracking server on the loopback interface."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/files"],
            env=environment(), cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for_server(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}", folder / "server.db"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_server(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-3000:]}")


def test_tracking_to_a_server(finished: Path, tmp_path: Path, server: tuple[str, Path]) -> None:
    address, database = server
    home = copy_home(finished, tmp_path / "home")
    shown = succeed(track(home, MLFLOW_TRACKING_URI=address))
    assert f"tracking to {address}" in shown
    assert ALL_NEW in shown
    assert "nothing new" in succeed(track(home, MLFLOW_TRACKING_URI=address))
    check_content(database, home)
    assert not (home / "mlflow.db").exists()


def test_a_server_that_is_down(tracked: Path, tmp_path: Path) -> None:
    home = copy_home(tracked, tmp_path / "home")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        done = track(home, MLFLOW_TRACKING_URI=address, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == 6, done.stderr
    assert time.monotonic() - began < 60
    assert f"the tracking server at {address} does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1000
    assert not (home / "mlflow.writer").exists()
    assert "nothing new" in succeed(track(home))


class Dying:
    """A client whose server goes away once the first run was made."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __getattr__(self, name: str) -> Any:
        return self.fail if name == "log_batch" else getattr(self.original, name)

    def fail(self, *arguments: Any, **keywords: Any) -> None:
        from mlflow.exceptions import MlflowException

        raise MlflowException("API request failed: connection refused")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of what it calls in SQLAlchemy
def test_a_server_that_dies_on_the_way(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = copy_home(finished, tmp_path / "home")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    original = tracking._client
    monkeypatch.setattr(tracking, "_client", lambda store: Dying(original(store)))
    with pytest.raises(NotAvailable, match="does not answer: API request failed: connection refused"):
        tracking.track(plan_of(home))
    assert not (home / "mlflow.writer").exists()
    assert ALL_NEW in succeed(track(home))
    check_content(home / "mlflow.db", home)
