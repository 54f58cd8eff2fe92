"""The store: one winner, no mixtures, no half-written files, and faults said in a sentence."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.base.errors import Busy, Fenced, StoreError
from cwdpo.base.store import SILENT_SECONDS, Artefact, Attempt, Store, process_started

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = "0123456789abcdef" * 4


@pytest.fixture
def artefact(tmp_path: Path) -> Artefact:
    return Store(tmp_path).artefact("pairs", IDENTITY)


def write(attempt: Attempt, text: str) -> Attempt:
    """Two files whose content names the attempt, so that a mixture shows."""
    files.write_text(attempt.out / "records.jsonl", text)
    files.write_text(attempt.out / "deep" / "summary.json", text)
    return attempt


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".tmp" in path.name or path.name.startswith(".")]


def die(artefact: Artefact, claim: Any = None) -> None:
    """Make the newest attempt look like one of a process that is gone."""
    path = artefact.attempts / str(artefact.newest()) / "claim.json"
    files.write_json(path, {**files.read_json(path), "process_started": "1", **(claim or {})})


# ---- one attempt


def test_an_artefact_goes_from_missing_to_done(artefact: Artefact) -> None:
    assert (artefact.state(), artefact.newest(), artefact.done()) == ("missing", 0, None)
    with pytest.raises(StoreError, match=f"pairs-{IDENTITY[:16]} is not finished"):
        _ = artefact.files
    artefact.describe({"stage": "pairs"})
    assert artefact.state() == "missing"
    attempt = write(artefact.claim({"job": "7"}), "one")
    files.write_text(artefact.partial / "blocks" / "0.jsonl", "x")
    assert artefact.state() == "running"
    attempt.publish({"commit": "abc"})
    assert artefact.state() == "done"
    assert contents(artefact.files) == {"records.jsonl": "one", "deep/summary.json": "one"}
    done = artefact.done()
    assert done is not None
    assert (done["attempt"], done["provenance"]) == (1, {"commit": "abc"})
    # printf one | sha256sum
    one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert done["files"]["records.jsonl"] == {"bytes": 3, "sha256": one}
    assert not artefact.partial.exists()
    assert artefact.verified_files() == artefact.files
    assert leftovers(artefact.folder) == []


def test_a_claim_says_who_holds_it(artefact: Artefact) -> None:
    attempt = artefact.claim({"job": "7"})
    claim = files.read_json(attempt.folder / "claim.json")
    assert (claim["host"], claim["pid"], claim["job"]) == (socket.gethostname(), os.getpid(), "7")
    assert claim["process_started"] == process_started(os.getpid())
    assert (attempt.number, list(attempt.out.iterdir())) == (1, [])


def test_a_running_attempt_is_not_overtaken(artefact: Artefact) -> None:
    artefact.claim({})
    with pytest.raises(Busy, match=rf"pairs-{IDENTITY[:16]}: attempt 1 is running"):
        artefact.claim({})
    assert artefact.newest() == 1


def test_events_are_lines_and_non_finite_numbers_are_null(artefact: Artefact) -> None:
    attempt = artefact.claim({})
    attempt.event("step", loss=float("nan"), norm=float("inf"), rate=0.5)
    attempt.event("end")
    first, second = files.read_jsonl(attempt.folder / "events.jsonl")
    assert (first["event"], first["loss"], first["norm"], first["rate"]) == ("step", None, None, 0.5)
    assert second["event"] == "end"


# ---- states of an attempt that did not publish


def test_failed_interrupted_and_running_are_told_apart(artefact: Artefact) -> None:
    attempt = artefact.claim({})
    assert artefact.state() == "running"
    attempt.fail(ValueError("too hot"))
    assert artefact.state() == "failed"
    assert artefact.result(1) == {"state": "failed", "kind": "ValueError", "message": "too hot"}
    second = artefact.claim({})
    assert (second.number, artefact.state()) == (2, "running")
    die(artefact)
    assert artefact.state() == "interrupted"
    assert artefact.result(2) is None
    assert artefact.claim({}).number == 3


def test_a_process_that_was_killed_leaves_an_interrupted_attempt(artefact: Artefact) -> None:
    code = (
        "import os, sys, pathlib; from cwdpo.base.store import Store;"
        f"Store(pathlib.Path(sys.argv[1])).artefact('pairs', '{IDENTITY}').claim({{}}); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(artefact.folder.parents[1])], cwd=ROOT, check=False)
    assert artefact.newest() == 1
    assert artefact.state() == "interrupted"
    assert artefact.claim({}).number == 2


def test_a_reused_process_number_is_not_mistaken_for_the_old_process(artefact: Artefact) -> None:
    artefact.claim({})
    die(artefact)  # the claim names this very process number, but another start
    assert not artefact.alive(1)


def test_an_attempt_of_another_host_lives_while_its_heart_beats(artefact: Artefact) -> None:
    attempt = artefact.claim({})
    die(artefact, {"host": "elsewhere"})
    assert artefact.state() == "running"  # its claim is its first beat
    late = time.time() - SILENT_SECONDS - 5
    os.utime(attempt.folder / "heartbeat", (late, late))
    assert artefact.state() == "interrupted"
    attempt.start_heartbeat()
    attempt.stop_heartbeat()
    assert artefact.state() == "running"
    (attempt.folder / "heartbeat").unlink()
    assert artefact.state() == "interrupted"


@pytest.mark.parametrize("claim", [None, "", "{"])
def test_an_attempt_whose_claim_is_lost_can_be_followed_by_another(artefact: Artefact, claim: str | None) -> None:
    path = artefact.claim({}).folder / "claim.json"
    path.unlink() if claim is None else path.write_text(claim)
    assert artefact.state() == "interrupted"
    assert artefact.claim({}).number == 2


# ---- fencing


def test_a_zombie_cannot_publish(artefact: Artefact) -> None:
    zombie = write(artefact.claim({}), "zombie")
    die(artefact)
    newer = write(artefact.claim({}), "newer")
    with pytest.raises(Fenced, match=rf"pairs-{IDENTITY[:16]}: attempt 1 was overtaken by attempt 2"):
        zombie.check()
    with pytest.raises(Fenced):
        zombie.publish({})
    assert artefact.state() == "running"
    newer.check()
    newer.publish({})
    assert set(contents(artefact.files).values()) == {"newer"}
    with pytest.raises(Fenced):
        zombie.publish({})
    assert set(contents(artefact.files).values()) == {"newer"}


def overtake(artefact: Artefact, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do `act` right after the zombie's last check, before it links."""
    real = files.sync_tree

    def late(folder: Path) -> None:
        monkeypatch.setattr(files, "sync_tree", real)
        real(folder)
        act()

    monkeypatch.setattr(files, "sync_tree", late)


def test_of_two_that_finish_together_the_first_wins_whole(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(artefact.claim({}), "first")
    die(artefact)

    def newer() -> None:
        write(artefact.claim({}), "second").publish({"by": "second"})

    overtake(artefact, monkeypatch, newer)
    first.publish({"by": "first"})  # its check passed before the second came
    done = artefact.done()
    assert done is not None
    assert (done["attempt"], done["provenance"]) == (2, {"by": "second"})
    assert set(contents(artefact.files).values()) == {"second"}
    assert artefact.missing_files(hashes=True) == []
    assert leftovers(artefact.folder) == []


def test_an_orphan_that_publishes_first_is_adopted_whole(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = write(artefact.claim({}), "orphan")
    die(artefact)
    newer: list[Attempt] = []
    overtake(artefact, monkeypatch, lambda: newer.append(write(artefact.claim({}), "newer")))
    orphan.publish({})
    newer[0].publish({})
    assert set(contents(artefact.files).values()) == {"orphan"}
    assert artefact.state() == "done"


def test_without_hard_links_a_rename_commits(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write(artefact.claim({}), "one").publish({})
    assert artefact.state() == "done"
    assert leftovers(artefact.folder) == []


def test_a_claim_taken_between_look_and_rename_is_refused(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    rivals: list[Attempt] = []
    overtake(artefact, monkeypatch, lambda: rivals.append(artefact.claim({"by": "rival"})))
    with pytest.raises(Busy, match="attempt 1 was claimed by another process"):
        artefact.claim({"by": "me"})
    assert [rival.number for rival in rivals] == [1]
    assert files.read_json(artefact.attempts / "1" / "claim.json")["by"] == "rival"
    assert sorted(path.name for path in artefact.attempts.iterdir()) == ["1"]


def test_of_many_threads_one_wins_each_time(tmp_path: Path) -> None:
    for turn in range(20):
        artefact = Store(tmp_path).artefact("pairs", f"{turn:064d}"[::-1])
        start, outcomes = threading.Barrier(8), []

        def run(artefact: Artefact = artefact, start: Any = start, outcomes: list[str] = outcomes) -> None:
            start.wait()
            try:
                outcomes.append(f"won {artefact.claim({}).number}")
            except Busy:
                outcomes.append("busy")

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["busy"] * 7 + ["won 1"]
        assert [path.name for path in artefact.attempts.iterdir()] == ["1"]


RIVAL = """
import pathlib, sys, time
from cwdpo.base.errors import Busy
from cwdpo.base.store import Store
artefact = Store(pathlib.Path(sys.argv[1])).artefact("pairs", sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    attempt = artefact.claim({})
except Busy:
    print("busy", flush=True)
else:
    (attempt.out / "who").write_text(sys.argv[3])
    attempt.publish({})
    print("won", flush=True)
sys.stdin.readline()
"""


def test_of_many_processes_one_wins(artefact: Artefact) -> None:
    command = [sys.executable, "-c", RIVAL, str(artefact.folder.parents[1]), IDENTITY]
    rivals = [
        subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for n in range(4)
    ]
    said = []
    for word in ("ready", "outcome"):
        said = [rival.stdout.readline().strip() for rival in rivals if rival.stdout]
        for rival in rivals if word == "ready" else []:
            assert rival.stdin is not None
            rival.stdin.write("go\n")
            rival.stdin.flush()
    for rival in rivals:
        rival.communicate("")
    # A process that looks after the winner has published and said so may win attempt 2, which changes nothing.
    done = artefact.done()
    assert done is not None
    assert said.count("won") >= 1
    assert said.count("won") + said.count("busy") == 4
    winner = (artefact.files / "who").read_text()
    assert said[int(winner)] == "won"
    assert artefact.state() == "done"


# ---- damage


def published(artefact: Artefact) -> Artefact:
    artefact.describe({"stage": "pairs"})
    write(artefact.claim({}), "one").publish({})
    return artefact


@pytest.mark.parametrize("name", ["records.jsonl", "deep/summary.json"])
def test_a_file_that_is_gone_or_cut_is_damage(artefact: Artefact, name: str) -> None:
    path = published(artefact).files / name
    path.write_text("on")
    assert (artefact.state(), artefact.missing_files()) == ("damaged", [name])
    path.unlink()
    assert artefact.state() == "damaged"
    with pytest.raises(StoreError, match=rf"pairs-{IDENTITY[:16]}: {name} is missing or changed .*\(1 file\(s\)\)"):
        artefact.verified_files()


def test_a_file_that_was_written_to_since_is_read(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    path = published(artefact).files / "records.jsonl"
    path.write_text("two")  # as long as before
    assert (artefact.state(), artefact.missing_files()) == ("damaged", ["records.jsonl"])
    monkeypatch.setattr("cwdpo.base.store.READ_AGAIN_BYTES", 2)
    assert artefact.state() == "done", "very large files are left to who uses them"
    monkeypatch.undo()
    path.write_text("one")
    assert artefact.state() == "done", "it is what was written"


def test_a_changed_byte_is_found_before_the_file_is_used(artefact: Artefact) -> None:
    path = published(artefact).files / "records.jsonl"
    before = path.stat()
    path.write_text("two")  # as long as before
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert artefact.missing_files() == []
    with pytest.raises(StoreError, match=r"records\.jsonl is missing or changed since it was written"):
        artefact.verified_files()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"attempt": 1}', "\ufffe"])
def test_a_damaged_marker_is_damage(artefact: Artefact, text: str) -> None:
    (published(artefact).folder / "DONE").write_text(text)
    assert artefact.state() == "damaged"
    with pytest.raises(StoreError, match="DONE is damaged"):
        artefact.done()


def test_what_is_damaged_is_computed_again_and_the_evidence_stays(artefact: Artefact) -> None:
    (published(artefact).files / "records.jsonl").write_text("broken")
    artefact.retire()
    assert artefact.state() == "interrupted"
    write(artefact.claim({}), "again").publish({})
    assert artefact.state() == "done"
    assert set(contents(artefact.files).values()) == {"again"}
    assert (artefact.attempts / "1" / "out" / "records.jsonl").read_text() == "broken"
    assert files.read_json(artefact.attempts / "1" / "DONE.retired")["attempt"] == 1


def test_a_lost_attempt_folder_is_damage_that_can_be_mended(artefact: Artefact) -> None:
    shutil.rmtree(published(artefact).attempts)
    assert artefact.state() == "damaged"
    artefact.retire()
    assert artefact.state() == "interrupted"
    write(artefact.claim({}), "again").publish({})
    assert artefact.state() == "done"


def test_stage_json_must_spell_the_same_identity(artefact: Artefact, tmp_path: Path) -> None:
    artefact.describe({"stage": "pairs", "version": 1})
    artefact.describe({"stage": "pairs", "version": 1})
    card = files.read_json(artefact.folder / "stage.json")
    assert (card["id"], card["stage"]) == (IDENTITY, "pairs")
    twin = Store(tmp_path).artefact("pairs", IDENTITY[:16] + "f" * 48)  # the same 16 digits
    assert twin.folder == artefact.folder
    with pytest.raises(StoreError, match=rf"stage\.json: holds identity {IDENTITY}, expected {twin.identity}"):
        twin.describe({"stage": "pairs", "version": 1})


# ---- places that cannot be written


def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip(f"mounting a tmpfs needs root: {done.stderr.strip() if done else 'not root'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    yield from mounted(tmp_path / "small", "size=64k")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "read only", "ro,size=64k")


def fill(folder: Path) -> None:
    with open(folder / "filler", "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert shutil.disk_usage(folder).free == 0


def test_a_full_disk_is_found_before_anything_starts(small: Path) -> None:
    store = Store(small)
    store.check_writable()
    fill(small)
    with pytest.raises(StoreError, match=r"^cannot write .*: no space left on the device$"):
        store.check_writable()
    assert leftovers(small) == []


def test_a_full_disk_leaves_the_old_file_whole(small: Path) -> None:
    files.write_jsonl(small / "rows.jsonl", [{"a": 1}])
    with pytest.raises(StoreError, match=rf"^cannot write {small}/rows\.jsonl: no space left on the device$"):
        files.write_jsonl(small / "rows.jsonl", [{"a": "x" * 1000}] * 100)
    assert (small / "rows.jsonl").read_text() == '{"a": 1}\n'
    assert leftovers(small) == []


def test_a_full_disk_leaves_no_half_folder(small: Path) -> None:
    def half() -> None:
        with files.folder_written_whole(small / "model") as folder:
            (folder / "config.json").write_text("{}")
            (folder / "weights").write_bytes(b"x" * 100_000)

    with pytest.raises(StoreError, match=rf"^cannot write {small}/model: no space left on the device$"):
        half()
    assert list(small.iterdir()) == []


def test_a_full_disk_leaves_no_half_claim(small: Path) -> None:
    artefact = Store(small).artefact("pairs", IDENTITY)
    artefact.describe({})
    fill(small)
    with pytest.raises(StoreError, match=r"^cannot write .*/attempts/1: no space left on the device$"):
        artefact.claim({})
    assert list(artefact.attempts.iterdir()) == []
    assert artefact.state() == "missing"
    (small / "filler").unlink()
    assert artefact.claim({}).number == 1


def test_a_full_disk_publishes_nothing_and_can_be_tried_again(small: Path) -> None:
    artefact = Store(small).artefact("pairs", IDENTITY)
    attempt = write(artefact.claim({}), "one")
    fill(small)
    with pytest.raises(StoreError, match="no space left on the device"):
        attempt.publish({})
    assert artefact.state() == "running"
    assert leftovers(small) == []
    (small / "filler").unlink()
    attempt.publish({})
    assert set(contents(artefact.files).values()) == {"one"}


def test_a_full_disk_stops_the_events_in_a_sentence(small: Path) -> None:
    attempt = Store(small).artefact("pairs", IDENTITY).claim({})
    fill(small)
    with pytest.raises(StoreError, match=r"events\.jsonl: no space left on the device"):
        attempt.event("step")


def test_a_read_only_file_system_is_named(read_only: Path) -> None:
    with pytest.raises(StoreError, match=r"^cannot write .*: the file system is read-only$"):
        Store(read_only).check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="permission denied"):
        Store(tmp_path / "home").check_writable()


def test_a_home_under_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "home")
    for act in (store.check_writable, lambda: store.artefact("pairs", IDENTITY).claim({})):
        with pytest.raises(StoreError, match=r"^cannot write .*: a part of the path is a file, not a folder$"):
            act()
