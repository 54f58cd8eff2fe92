"""The file system of the home: what the store, the ledger and the locks rely on, tried in a folder of its own."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.jobs.doctor.check import Finding, failure, guarded, ok, unchecked, warning

FREE_BYTES = 50 * 10**9
FREE_FILES = 100_000
SLOW_SYNC_SECONDS = 0.5
SKEW_WARNING_SECONDS = 2.0
SKEW_FAILURE_SECONDS = 30.0
"""A heartbeat older than 60 seconds by this host's clock counts as dead."""

RACERS = 8
ROUNDS = 20
FLOCK = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"

NETWORK = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "panfs",
    "wekafs",
    "pvfs2",
    "afs",
    "cifs",
    "smb",
    "9p",
)
VOLATILE = ("tmpfs", "ramfs")
ELSEWHERE = "put the home on another file system: --home or CWDPO_HOME"


def check_home(home: Path, shared: bool) -> Iterator[Finding]:
    """Every check of a home folder; what they write is gone afterwards.

    Args:
        shared: other machines have to see it, too.
    """
    try:
        with _room(home) as room:
            yield ok("home", f"{home.resolve()} can be written")
            yield from _checks(home, room, shared)
    except StoreError as error:
        yield failure("home", str(error), "free space or rights there, or another home: --home or CWDPO_HOME")


def _checks(home: Path, room: Path, shared: bool) -> Iterator[Finding]:
    for name, check in _TRIED.items():
        yield from guarded(f"home: {name}", check, room)
    yield from guarded("home: file system", kind, room, shared)
    yield from guarded("home: clock", file_clock, room)
    yield from guarded("home: code", code_folder, home)


@contextmanager
def _room(home: Path) -> Iterator[Path]:
    """A folder in the home, which goes again, with the home if it was not there before."""
    added = [folder for folder in (home, *home.parents) if not folder.exists()]
    room = home / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        files.write_bytes(room / "probe", b"\0" * 4096)
        yield room
    finally:
        files.remove_tree(room)
        for folder in added:
            with suppress(OSError):  # somebody else began to use it meanwhile
                folder.rmdir()


def rename(room: Path) -> Iterator[Finding]:
    """A new file takes the name of an old one at once; a folder never takes that of one that is not empty."""
    name = "home: rename"
    old, new = room / "old", room / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with open(old, "rb") as reader:
        os.replace(new, old)
        whole = reader.read() == b"old" and old.read_bytes() == b"new"
    if not whole:
        yield failure(name, "who had the old file open, or who opens the new one, does not see it whole", ELSEWHERE)
    elif _renames_over_full_folder(room):
        yield failure(name, "a folder replaced another one that was not empty: locks do not hold", ELSEWHERE)
    else:
        yield ok(name, "atomic, for files and folders")


def _renames_over_full_folder(room: Path) -> bool:
    taken, other = room / "taken", room / "other"
    for folder in (taken, other):
        folder.mkdir()
        (folder / "owner").touch()
    try:
        os.rename(other, taken)
    except OSError:
        return False
    return True


def hard_link(room: Path) -> Iterator[Finding]:
    """Publishing a result is making a link, which fails where it is there already."""
    name = "home: hard link"
    target = room / "link"
    try:
        os.link(room / "probe", target)
    except OSError as error:
        reason = error.strerror or str(error)
        yield failure(name, f"refused ({reason}): results could not be published", f"{ELSEWHERE}, one with hard links")
        return
    try:
        os.link(room / "probe", target)
    except FileExistsError:
        yield ok(name, "works, and refuses a name that is taken")
    else:
        yield failure(name, "a second link took the name of the first: two attempts could publish", ELSEWHERE)


def exclusive(room: Path) -> Iterator[Finding]:
    """Of many who make the same folder or file at once, one succeeds."""
    for what, make in (("mkdir", os.mkdir), ("O_EXCL", _make_file)):
        winners = [_race(room / f"{what}-{number}", make) for number in range(ROUNDS)]
        name = f"home: {what}"
        if set(winners) == {1}:
            yield ok(name, f"exclusive: of {RACERS} at once one succeeds")
        else:
            yield failure(name, f"of {RACERS} at once {max(winners)} made the same name", ELSEWHERE)


def _make_file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def _race(path: Path, make: Callable[[Path], None]) -> int:
    """How many of several threads think that they made it."""
    gate, won = threading.Barrier(RACERS), []

    def run() -> None:
        gate.wait()
        with suppress(FileExistsError):
            make(path)
            won.append(1)

    threads = [threading.Thread(target=run) for _ in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(won)


def durable(room: Path) -> Iterator[Finding]:
    """Checkpoints and events are flushed to the disk."""
    seconds = median(_sync_seconds(room / f"sync-{number}") for number in range(5))
    name, found = "home: fsync", f"{1000 * seconds:.0f} ms for a small file and its folder"
    if seconds > SLOW_SYNC_SECONDS:
        yield warning(name, found, f"saving will be slow; {ELSEWHERE} (scratch or project, not an archive)")
    else:
        yield ok(name, found)


def _sync_seconds(path: Path) -> float:
    began = time.monotonic()
    files.write_bytes(path, b"\0" * 4096)
    return time.monotonic() - began


def space(room: Path) -> Iterator[Finding]:
    """Room for checkpoints, bytes and files."""
    found = os.statvfs(room)
    free = found.f_bavail * found.f_frsize
    text = f"{free / 1e9:.1f} GB free"
    if free < FREE_BYTES:
        yield warning("home: space", f"{text}, less than {FREE_BYTES / 1e9:.0f} GB", f"`cwdpo prune`, or {ELSEWHERE}")
    else:
        yield ok("home: space", text)
    if found.f_files == 0:  # file systems that make inodes as they need them
        yield ok("home: files", "no limit on their number")
    elif found.f_favail < FREE_FILES:
        text = f"{found.f_favail:,} more files fit, less than {FREE_FILES:,}"
        yield warning("home: files", text, f"`cwdpo prune`, a larger inode quota, or {ELSEWHERE}")
    else:
        yield ok("home: files", f"{found.f_favail:,} more fit")


def kind(room: Path, shared: bool) -> Iterator[Finding]:
    """Which file system it is, and whether others see it as far as its name tells."""
    name, found = "home: file system", file_system(room)
    if found is None:
        yield unchecked(name, "/proc/mounts cannot be read")
    elif found in VOLATILE:
        yield warning(name, f"{found}: in memory, gone after a reboot, and no other node sees it", ELSEWHERE)
    elif is_network(found):
        yield ok(name, f"{found}, a network file system")
    elif shared:
        text = f"{found}: by its name a disk of this machine, which other nodes may not see"
        yield warning(name, text, f"`cwdpo doctor --submit` tries it; if they do not: {ELSEWHERE}, one that all see")
    else:
        yield ok(name, f"{found}, a disk of this machine as far as it can be told")


def is_network(name: str) -> bool:
    """True for the name of a file system that several machines see."""
    return name.removeprefix("fuse.").startswith(NETWORK)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Type of the file system a path lies on, as the kernel names it."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    resolved = path.resolve()
    places = [(Path(_unescaped(place)), name) for _, place, name, *_ in lines]
    holding = [(place, name) for place, name in places if resolved.is_relative_to(place)]
    return max(reversed(holding), key=lambda entry: len(entry[0].parts))[1] if holding else None  # the last mount wins


def _unescaped(text: str) -> str:
    r"""/proc/mounts writes a blank as \040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def flock(room: Path) -> Iterator[Finding]:
    """A note only: nothing here relies on it, but downloads into the Hugging Face cache do."""
    import fcntl

    name = "home: flock"
    with open(room / "probe", "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield ok(
                name, f"not offered ({error.strerror}); cwdpo needs none, keep HF_HOME elsewhere while downloading"
            )
            return
        second = subprocess.run([sys.executable, "-c", FLOCK, str(room / "probe")], capture_output=True, check=False)
    if second.returncode:
        yield ok(name, "excludes other processes of this machine (cwdpo does not rely on it)")
    else:
        yield ok(name, "does not exclude; cwdpo needs none, but do not download into one HF_HOME twice at once")


def file_clock(room: Path, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Times of files are compared with this host's clock, to tell a dead process from a living one."""
    yield judged_skew("home: clock", seconds_ahead(room, now), "file times", "this machine's clock")


def seconds_ahead(folder: Path, now: Callable[[], float] = time.time) -> float:
    """Seconds by which the time of a new file is outside of when it was made; negative when it is too old."""
    path = folder / f".clock-{uuid.uuid4().hex[:8]}"
    before = now()
    path.touch()
    made, after = path.stat().st_mtime, now()
    path.unlink()
    return made - after if made > after else min(made - before, 0.0)


def judged_skew(name: str, skew: float, one: str, other: str) -> Finding:
    """A finding about two clocks, `skew` seconds apart."""
    if abs(skew) < SKEW_WARNING_SECONDS:
        return ok(name, f"{one} and {other} agree to {SKEW_WARNING_SECONDS:.0f} s")
    found = f"{one} are {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {other}"
    remedy = "have the clocks set (chrony, NTP): living jobs could be taken for dead, and dead ones for living"
    return (failure if abs(skew) >= SKEW_FAILURE_SECONDS else warning)(name, found, remedy)


def code_folder(home: Path) -> Iterator[Finding]:
    """Where a submission keeps the code that its jobs run."""
    folder = home / "slurm" / "code"
    place = next(path for path in (folder, *folder.parents) if path.exists())
    probe = place / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = "permission denied" if error.errno == errno.EACCES else error.strerror
        yield failure("home: code", f"{place}: {reason}: no copy of the code for jobs", f"chown or chmod {place}")
    else:
        yield ok("home: code", "a copy of the code for jobs can be kept")


_TRIED: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "rename": rename,
    "hard link": hard_link,
    "exclusive": exclusive,
    "fsync": durable,
    "space": space,
    "flock": flock,
}
