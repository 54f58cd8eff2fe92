"""A tracker that is cut off anywhere, two of them at once, and the file that keeps them apart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from sqlite3 import OperationalError

import pytest
from commands import MICRO, REPO, command, environment, node_of, plan_of
from mlflow_rows import Run, change, compute_again, rows, runs, some, state, watch

from cwdpo.base.errors import StoreError
from cwdpo.base.store import process_started
from cwdpo.report.tracking.book import home_id
from cwdpo.report.tracking.synchronise import track
from cwdpo.report.tracking.writer import single_writer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of what it calls in SQLAlchemy

CELLS = ("cw_dpo/0", "cw_dpo/1")


class CutOffError(Exception):
    """Takes the place of a signal that arrives between two requests."""


def cut_off_at(number: int) -> Callable[[str], None]:
    """Break at a call: no real signal can be made to arrive between two given requests."""
    made: list[str] = []

    def before(name: str) -> None:
        made.append(name)
        if len(made) == number:
            raise CutOffError(name)

    return before


def every_cut(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, Run]]:
    """Cut a pass off at each call in turn, from the same start; after the next pass all must be as if it never was.

    Returns how many calls there are, and what an undisturbed pass leaves.
    """
    plan, database, start = some(plan_of(home), *CELLS), home / "mlflow.db", home / "start.db"
    shutil.copyfile(database, start)
    track(plan)
    wanted = state(database)
    number = 0
    while True:
        number += 1
        shutil.copyfile(start, database)
        with monkeypatch.context() as context:
            watch(context, cut_off_at(number))
            try:
                track(plan)
            except CutOffError:
                pass
            else:
                return number - 1, wanted
        assert not (home / "mlflow.writer").exists()
        track(plan)
        assert state(database) == wanted, f"cut off at call {number}"


def test_cut_off_at_any_request(untracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, wanted = every_cut(untracked, monkeypatch)
    assert {name: run.parent for name, run in wanted.items()} == {"cw_dpo": "", **dict.fromkeys(CELLS, "cw_dpo")}
    assert calls == 4 + 3 * 3  # the experiment and its runs; make, fill and end each run


def test_cut_off_while_runs_are_replaced(untracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed was computed again: its run and that of the means are replaced, the other hangs below the new one."""
    plan = some(plan_of(untracked), *CELLS)
    track(plan)
    compute_again(node_of(untracked, "score", "cw_dpo/1").artefact(plan.store), tmp_path / "again", cider=0.75)
    calls, wanted = every_cut(untracked, monkeypatch)
    assert wanted["cw_dpo/1"].value("captions/cider") == 0.75
    assert {name: run.parent for name, run in wanted.items()} == {"cw_dpo": "", **dict.fromkeys(CELLS, "cw_dpo")}
    assert calls == 2 + 2 * 4 + 1  # look; make, fill and end two runs, delete theirs; hang one below


def test_a_tracker_killed_on_the_way(tracked: Path) -> None:
    """By a real signal, in a real process; what it had finished stays, and so does the file of the writer."""
    before, database = state(tracked / "mlflow.db"), tracked / "mlflow.db"
    change(database, "UPDATE runs SET lifecycle_stage = 'deleted'")
    tracker = start_tracker(tracked)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and len(finished_runs(database)) < 2:
        time.sleep(0.01)
    tracker.send_signal(signal.SIGKILL)
    tracker.communicate()
    assert tracker.returncode == -signal.SIGKILL
    kept = finished_runs(database)
    assert 2 <= len(kept) < 12
    assert (tracked / "mlflow.writer").exists()
    track(plan_of(tracked))
    assert set(kept) <= {run.id for run in runs(database).values()}
    assert state(database) == before


def finished_runs(database: Path) -> list[str]:
    with suppress(OperationalError):  # busy
        query = "SELECT run_uuid FROM runs WHERE status = 'FINISHED' AND lifecycle_stage = 'active'"
        return [name for (name,) in rows(database, query)]
    return []


def start_tracker(home: Path) -> subprocess.Popen[str]:
    """A tracker in the background."""
    arguments = command("track", "-g", MICRO, "--home", home)
    return subprocess.Popen(
        arguments, env=environment(), cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# The file of the writer


def test_a_second_writer_is_refused(tracked: Path) -> None:
    who = rf"process {os.getpid()} on {socket.gethostname()} is tracking into this home; if it is gone, delete"
    with single_writer(tracked), pytest.raises(StoreError, match=who):
        track(plan_of(tracked))
    assert track(plan_of(tracked)).cells == []


def hold(home: Path, **about: object) -> Path:
    path = home / "mlflow.writer"
    me = {"host": socket.gethostname(), "pid": os.getpid(), "process_started": process_started(os.getpid())}
    path.write_text(json.dumps({**me, **about}))
    return path


def test_a_writer_that_died_is_replaced(tmp_path: Path) -> None:
    """Its pid may belong to another process by now, which was started at another time."""
    path = hold(tmp_path, process_started="1")
    with single_writer(tmp_path):
        assert json.loads(path.read_text())["process_started"] == process_started(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_a_writer_on_another_host_cannot_be_asked(tmp_path: Path) -> None:
    path = hold(tmp_path, host="elsewhere", process_started="1")
    with (
        pytest.raises(StoreError, match=r"process \d+ on elsewhere is tracking into this home"),
        single_writer(tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_writer_that_does_not_say_who_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "mlflow.writer").write_text(content)
    with pytest.raises(StoreError, match=r"mlflow\.writer"), single_writer(tmp_path):
        pass
    assert (tmp_path / "mlflow.writer").read_text() == content


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": 5}'])
def test_a_home_whose_runs_nobody_can_name_any_more(tmp_path: Path, content: str) -> None:
    assert home_id(tmp_path) == home_id(tmp_path)
    (tmp_path / "mlflow.home").write_text(content)
    with pytest.raises(StoreError, match=r"mlflow\.home"):
        home_id(tmp_path)
    assert (tmp_path / "mlflow.home").read_text() == content
