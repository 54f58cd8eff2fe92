"""Threads beside the main one are over when who started them says so."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from cwdpo.base import background
from cwdpo.base.background import Background
from cwdpo.base.store import Attempt, Store
from cwdpo.jobs.slurm.lock import locked


def test_they_are_over_when_stop_returns() -> None:
    rounds: list[int] = []
    threads = Background()

    def slow_to_end() -> None:
        threads.over.wait()
        time.sleep(0.2)
        rounds.append(1)

    threads.start(slow_to_end, "first")
    threads.start(slow_to_end, "second")
    threads.stop()
    assert rounds == [1, 1]


def test_one_that_hangs_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 0.1)
    released, threads = threading.Event(), Background()

    def hang() -> None:
        released.wait()

    threads.start(hang, "hangs")
    threads.stop()
    (hanging,) = [thread for thread in threading.enumerate() if thread.name == "hangs"]
    released.set()
    hanging.join()


def test_one_of_them_may_end_them_all() -> None:
    ended, threads = threading.Event(), Background()

    def end_all() -> None:
        threads.stop()
        ended.set()

    threads.start(end_all, "ends all")
    assert ended.wait(60)


def test_neither_a_lock_nor_an_attempt_leaves_one_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", 0):
        assert "lock beat" in names()
    assert "lock beat" not in names()
    attempt: Attempt = Store(tmp_path).artefact("stage1", "0" * 64).claim({})
    attempt.start_heartbeat()
    assert "heartbeat" in names()
    attempt.stop_heartbeat()
    assert "heartbeat" not in names()


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}
