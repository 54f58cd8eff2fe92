"""What whole processes cost, in CPU time: on a machine that others use too it says more than the clock does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from measure import REPO

Line = Sequence[object]


@dataclass(frozen=True)
class Cost:
    """One process and the processes it waited for.

    Attributes:
        seconds: of CPU time, in user and system mode.
        peak_mb: most resident memory of one of them, MB; never less than this process has.
    """

    seconds: float
    peak_mb: float


def cwdpo(*arguments: object) -> Line:
    """A command of the tool."""
    return (sys.executable, "-m", "cwdpo", *arguments)


def cost(line: Line) -> Cost:
    """Run a command to its end; raises `CalledProcessError` where it fails."""
    words = [*map(str, line)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # who uses it does not compile it anew with every command
    process = subprocess.Popen(words, cwd=REPO, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)


def cheapest(lines: Mapping[str, Line], rounds: int) -> dict[str, Cost]:
    """The round of each command that took the least; they take turns, so that a busy moment hits all of them."""
    found = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            found[name].append(cost(line))
    return {name: min(costs, key=lambda one: one.seconds) for name, costs in found.items()}
