"""The lock of a store: one owner at a time, and nobody waits for the dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cwdpo.base.errors import Busy, StoreError
from cwdpo.jobs.slurm import lock
from cwdpo.jobs.slurm.lock import Lost, locked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "slurm" / "lock"


def owned_by(folder: Path, host: str, pid: int, started: str | None, age: float = 0.0) -> None:
    """A lock as another process left it."""
    folder.mkdir(parents=True)
    path = folder / "owner.json"
    path.write_text(json.dumps({"host": host, "pid": pid, "started": started, "id": "x"}))
    os.utime(path, (time.time() - age,) * 2)


def litter(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir()]


def test_it_is_there_while_it_is_held_and_gone_afterwards(folder: Path) -> None:
    with locked(folder, 0) as check:
        check()
        assert json.loads((folder / "owner.json").read_text())["pid"] == os.getpid()
    assert litter(folder) == []
    with pytest.raises(ZeroDivisionError), locked(folder, 0):
        raise ZeroDivisionError
    assert litter(folder) == []


def test_who_comes_second_says_for_whom_it_waits_and_gives_up(folder: Path) -> None:
    said: list[str] = []
    who = f"process {os.getpid()} on {socket.gethostname()}"
    with locked(folder, 0):
        with pytest.raises(Busy, match=who), locked(folder, 0.6, said.append):
            pass
        assert said == [f"waiting for {who}, which is submitting for this store"]
        assert litter(folder) == ["lock"]


def test_who_waits_gets_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.02)
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(5):
            with locked(folder, 20) as check:
                inside.append(1)
                most.append(len(inside))
                check()
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20
    assert litter(folder) == []


def test_the_dead_are_not_waited_for(folder: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owned_by(folder, socket.gethostname(), ended.pid, "1")
    with locked(folder, 0):
        pass
    owned_by(folder, socket.gethostname(), os.getpid(), "1")  # the same number, another process
    with locked(folder, 0):
        pass
    assert litter(folder) == []


def test_another_host_lives_while_it_beats(folder: Path) -> None:
    owned_by(folder, "elsewhere", 1, "1", age=lock.SILENT_SECONDS - 20)
    with pytest.raises(Busy, match="process 1 on elsewhere"), locked(folder, 0):
        pass
    os.utime(folder / "owner.json", (0, 0))
    with locked(folder, 0):
        pass


def test_it_beats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    with locked(folder, 0):
        os.utime(folder / "owner.json", (0, 0))
        deadline = time.monotonic() + 60
        while not (folder / "owner.json").stat().st_mtime and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - (folder / "owner.json").stat().st_mtime < 100


def test_who_lost_it_is_told_and_leaves_it_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    with locked(folder, 0) as check:
        owner = json.loads((folder / "owner.json").read_text())
        (folder / "owner.json").write_text(json.dumps({**owner, "id": "another"}))
        os.utime(folder / "owner.json", (0, 0))
        with pytest.raises(Lost, match="took over"):
            check()
        time.sleep(0.2)
        assert (folder / "owner.json").stat().st_mtime == 0, "the new owner's heart is its own"
    assert json.loads((folder / "owner.json").read_text())["id"] == "another"


def test_a_moment_in_another_hand_is_not_a_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_back(pause: float) -> None:
        if pause:
            os.rename(folder.with_name("aside"), folder)

    with locked(folder, 0) as check:
        os.rename(folder, folder.with_name("aside"))
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(lock.time, "sleep", give_back)  # between the first look and the second
            check()


@pytest.mark.parametrize("content", [None, "{"])
def test_a_lock_that_names_nobody_is_cleared_in_time(folder: Path, content: str | None) -> None:
    folder.mkdir(parents=True)
    if content:
        (folder / "owner.json").write_text(content)
    with pytest.raises(Busy, match="another process"), locked(folder, 0):
        pass
    os.utime(folder, (0, 0))
    with locked(folder, 0):
        pass
    assert litter(folder) == []


def test_what_the_dead_left_while_taking_it_goes(folder: Path) -> None:
    owned_by(folder.with_name(".lock.00000000.tmp"), socket.gethostname(), 1, "0")
    owned_by(
        folder.with_name(".lock.11111111.tmp"), socket.gethostname(), os.getpid(), lock.process_started(os.getpid())
    )
    old, new = folder.with_name(".lock.22222222.tmp"), folder.with_name(".lock.33333333.tmp")
    old.mkdir()
    new.mkdir()
    os.utime(old, (0, 0))
    with locked(folder, 0):
        pass
    assert sorted(litter(folder)) == [".lock.11111111.tmp", ".lock.33333333.tmp"]


def test_a_folder_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "slurm").write_text("a file")
    with pytest.raises(StoreError, match="cannot write"), locked(tmp_path / "slurm" / "lock", 60):
        pass
