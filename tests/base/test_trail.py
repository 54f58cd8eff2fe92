"""What a trail notes, and what it takes for changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cwdpo.base import files, trail


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "SETTLED_SECONDS", 0.0)


def followed(*works: Callable[[], object]) -> trail.Trail:
    with trail.following() as found:
        for work in works:
            work()
    return found


def tick(path: Path) -> None:
    """Until the clock of the file system has moved on since a path was changed."""
    before, probe = path.stat().st_ctime_ns, path.with_name("probe")
    while probe.write_text("") or probe.stat().st_ctime_ns <= before:
        pass
    probe.unlink()


def test_files_that_are_read_are_noted_whoever_reads_them(tmp_path: Path) -> None:
    read, written, absent, in_thread = (tmp_path / name for name in ("read", "written", "absent", "thread"))
    for path in (read, in_thread):
        path.write_text("1")

    def elsewhere() -> None:
        thread = threading.Thread(target=in_thread.read_text)
        thread.start()
        thread.join()

    def gone() -> None:
        with pytest.raises(FileNotFoundError):
            absent.open()

    found = followed(read.read_bytes, lambda: files.write_text(written, "2"), gone, elsewhere)
    assert set(found.stamps) == {str(read), str(absent), str(in_thread)}
    assert found.lasting
    read.read_bytes()
    assert len(found.stamps) == 3  # nothing is noted any more


def test_the_stamp_is_the_one_before_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    found = followed(path.read_text, lambda: tick(path), lambda: path.write_text("after!"), path.read_text)
    assert found.digest != trail.digest_now(found.stamps)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("2"),
        lambda path: os.truncate(path, 0),
        lambda path: path.unlink(),
        lambda path: os.utime(path, (0, 0)),
        lambda path: path.chmod(0o600),
        lambda path: files.write_text(path, "1"),
    ],
    ids=["written", "truncated", "removed", "touched", "closed", "replaced"],
)
def test_every_change_of_a_file_changes_its_stamp(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    found = followed(path.read_text)
    assert found.digest == trail.digest_now(found.stamps)
    tick(path)
    change(path)
    assert found.digest != trail.digest_now(found.stamps)


def test_what_is_not_there_and_what_a_folder_holds(tmp_path: Path) -> None:
    absent, folder = tmp_path / "absent", tmp_path / "folder"
    folder.mkdir()
    found = followed(lambda: trail.note(absent, folder))
    before = trail.digest_now(found.stamps)
    assert before == found.digest
    tick(folder)
    (folder / "new").touch()
    assert trail.digest_now(found.stamps) != before
    (folder / "new").unlink()
    found = followed(lambda: trail.note(absent))
    absent.touch()
    assert trail.digest_now(found.stamps) != found.digest


def test_what_does_not_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    assert followed(path.read_text).lasting
    assert not followed(path.read_text, trail.note_fleeting).lasting
    monkeypatch.setattr(trail, "SETTLED_SECONDS", 60.0)
    assert not followed(path.read_text).lasting


def test_aside_nothing_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    with trail.following() as found, trail.aside():
        path.read_text()
        trail.note(path)
        trail.note_fleeting()
    assert found.stamps == {}
    assert not found.fleeting
