"""Tracking to a real server that comes late, dies half-way and comes back; and to what is no server at all."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from commands import MICRO, command, environment, plan_of
from mlflow_rows import change, emptied, runs, state, watch
from servers import Site, serving

from cwdpo.base.errors import ConfigError, NotAvailable
from cwdpo.jobs.launch import free_port
from cwdpo.jobs.plan import Plan
from cwdpo.report.tracking.server import Down
from cwdpo.report.tracking.synchronise import track

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of what it calls in SQLAlchemy

PATIENCE = 600.0


class Server:
    """A tracking server on the loopback interface, with its database in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # nine processes
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                 "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/files"],
                env=environment(**quiet), cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Whatever it is doing."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_server_that_comes_late_and_dies_half_way(
    made: Path, tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--follow` waits for it; what it has not got when it is killed, the next pass brings to its database."""
    port, database = free_port(), tmp_path / "server.db"
    address, told = f"http://127.0.0.1:{port}", tmp_path / "told"
    shutil.copyfile(tracked / "mlflow.db", database)
    emptied(database)  # to make its tables takes seconds
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    follower = start_follower(tracked, address, told)
    try:
        until(lambda: f"the tracking server at {address} does not answer: " in told.read_text())
        with Server(tmp_path, port) as server:
            shown, _ = follower.communicate(timeout=PATIENCE)
            assert follower.returncode == 0, told.read_text()
            assert f"tracking to {address}" in shown
            assert "; trying again in 1 s" in told.read_text()
            assert state(database) == state(made / "home" / "mlflow.db")
            kill_half_way(server, plan_of(tracked), database, monkeypatch)
    finally:
        follower.kill()
        follower.wait()
    assert 0 < len(runs(database)) < 12
    assert not (tracked / "mlflow.writer").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    track(plan_of(tracked))
    assert state(database) == state(made / "home" / "mlflow.db")


def start_follower(home: Path, address: str, told: Path) -> subprocess.Popen[str]:
    with open(told, "w") as errors:
        return subprocess.Popen(
            command("track", "-g", MICRO, "--home", home, "--follow", "--every", 1),
            env=environment(MLFLOW_TRACKING_URI=address, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def kill_half_way(server: Server, plan: Plan, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything there it is asked twice; with nothing there, it dies at the twelfth request."""
    made: list[str] = []

    def before(name: str) -> None:
        made.append(name)
        if len(made) == 12:
            server.kill()

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with monkeypatch.context() as context:
        watch(context, before)
        assert track(plan).cells == []
        assert made == ["get_experiment_by_name", "search_runs"]
        change(database, "UPDATE runs SET lifecycle_stage = 'deleted'")
        with pytest.raises(Down, match="does not answer: "):
            track(plan)


@pytest.fixture
def retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.usefixtures("retries")
def test_a_server_that_is_down(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in a line, without the password; nothing of the home is changed."""
    before = sorted(tracked.iterdir())
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{place}")
        with pytest.raises(Down, match=f"the tracking server at http://{place} does not answer: ") as told:
            track(plan_of(tracked))
    assert told.value.exit_code == NotAvailable.exit_code == 6
    assert len(str(told.value).splitlines()) == 1
    assert len(str(told.value)) < 600
    assert "secret" not in str(told.value)
    assert sorted(tracked.iterdir()) == before
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert track(plan_of(tracked)).cells == []


@pytest.mark.usefixtures("retries")
def test_a_server_that_refuses_is_not_waited_for(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Site(errors={"/api/2.0/mlflow/experiments/get-by-name": (401, {})})) as site:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", site.url)
        with pytest.raises(NotAvailable, match=r"refuses: .*401") as told:
            track(plan_of(tracked))
    assert not isinstance(told.value, Down)
    assert "MLFLOW_TRACKING_USERNAME" in str(told.value)


def test_a_server_that_dies_while_it_is_written_to(untracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the client tells it: in the middle of a run."""
    from mlflow.exceptions import MlflowException

    def dying(name: str) -> None:
        if name == "log_batch":
            raise MlflowException("API request failed: connection refused")

    with monkeypatch.context() as context:
        watch(context, dying)
        with pytest.raises(Down, match="does not answer: API request failed: connection refused"):
            track(plan_of(untracked))
    assert not (untracked / "mlflow.writer").exists()
    assert len(track(plan_of(untracked)).cells) == 8


@pytest.mark.parametrize("address", ["./mlruns", "file:/tmp/mlruns", "gopher://host/1"])
def test_what_is_no_address_is_a_mistake_of_configuration(
    tracked: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ConfigError, match=f"MLFLOW_TRACKING_URI={address}"):
        track(plan_of(tracked))
