"""Training processes that take turns, one step at a time, so that a busy moment of the machine hits all of them.

Each side runs in a process group of its own, so that its memory is its own; while the others have their turn it is
stopped by a signal, threads and data workers too. A side reports lines of JSON:

    {"kind": "ready"}                                         all is loaded, no step is made yet
    {"kind": "step", "cpu": 1.5, "wall": 1.6, ...}            once for every optimizer step
    {"kind": "end", ...}
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from measure import REPO

THREADS = 1


@dataclass
class Measured:
    """What one side took.

    Attributes:
        cpu, wall: seconds of each step after the first; data workers are counted too.
        start_cpu: CPU seconds until all was loaded, imports included.
        resident: bytes in memory before the first step.
        peak: most bytes in memory until the last step ended.
        flops: floating-point operations of matrix products in the first step.
        more: what the side told at its end.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    start_cpu: float = 0.0
    resident: int = 0
    peak: int = 0
    flops: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    def every(self, count: int, first: int) -> Measured:
        """Of the steps after the first, each `count`-th from number `first` on."""
        return replace(self, cpu=self.cpu[first::count], wall=self.wall[first::count])

    @property
    def seconds(self) -> float:
        """CPU seconds of a step, the median."""
        return median(self.cpu)

    @property
    def wall_seconds(self) -> float:
        """Seconds of a step, the median."""
        return median(self.wall)


class Reporter:
    """A side's end of the line: reports, and waits for its turn. Standard output is kept for the reports."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._cpu, self._wall = 0.0, time.perf_counter()

    def report(self, kind: str, **more: Any) -> None:
        """Report what was taken since the last report; returns when it is this side's turn again."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        entry = {"kind": kind, "cpu": cpu - self._cpu, "wall": wall - self._wall, **memory(), **more}
        print(json.dumps(entry), file=self._out, flush=True)
        sys.stdin.readline()
        self._cpu, self._wall = cpu, time.perf_counter()


def cpu_seconds() -> float:
    """CPU time of this process, all threads, and of its living children."""
    import psutil

    children = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(child.cpu_times()[:2]) for child in children)


def memory() -> dict[str, int]:
    """Resident memory of this process in bytes, now and at most."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[key].split()[0]) * 1024 for name, key in (("resident", "VmRSS"), ("peak", "VmHWM"))}


class _Player:
    """One side's process, as the parent sees it."""

    def __init__(self, script: str, settings: Mapping[str, Any]) -> None:
        self.name, self.measured = script, Measured()
        self._steps = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / script), json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True,
            env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}, cwd=REPO,
        )  # fmt: skip

    def wait(self) -> bool:
        """Let it go on until it reports, then stop it; False once it has ended."""
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError(f"{self.name} failed:\n{self._errors()}")
        entry = json.loads(line)
        kind = entry.pop("kind")
        self._take(kind, entry)
        if kind == "end":
            self._process.communicate("\n")
            return False
        os.killpg(self._process.pid, signal.SIGSTOP)
        return True

    def turn(self) -> bool:
        """One more step."""
        os.killpg(self._process.pid, signal.SIGCONT)
        print(file=self._process.stdin, flush=True)
        return self.wait()

    def end(self) -> None:
        """Leave nothing behind."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def _take(self, kind: str, entry: dict[str, Any]) -> None:
        cpu, wall = entry.pop("cpu"), entry.pop("wall")
        found = self.measured
        if kind == "ready":
            found.start_cpu, found.resident = cpu, entry["resident"]
        elif kind == "step":
            self._steps += 1
            found.peak = entry["peak"]
            if self._steps == 1:  # it warms up
                found.flops = entry.get("flops", 0)
            else:
                found.cpu.append(cpu)
                found.wall.append(wall)
        else:
            found.more = entry

    def _errors(self) -> str:
        self._process.wait()
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-4000:]


def take_turns(sides: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Measured]:
    """Run sides (a script in this folder and its settings) to their ends, step by step in turn.

    Raises:
        RuntimeError: a side failed; holds the end of what it wrote.
    """
    players: dict[str, _Player] = {}
    try:
        for name, side in sides.items():
            players[name] = _Player(*side)
            players[name].wait()
        playing: Sequence[_Player] = list(players.values())
        while playing:
            playing = [player for player in playing if player.turn()]
        return {name: player.measured for name, player in players.items()}
    finally:
        for player in players.values():
            player.end()
