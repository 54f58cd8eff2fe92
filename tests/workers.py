"""Tests on several workers at a time (pytest-xdist): who takes what, and what they share.

More workers than cores pay: the tests of Slurm mostly wait.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

APART = (
    "cli/test_cli.py", "docs/test_shipped_files.py", "jobs/test_kill.py", "jobs/test_local.py",
    "jobs/test_lost_rank.py", "slurm/test_cluster.py", "slurm/test_crash.py", "slurm/test_grid.py",
    "slurm/test_trouble.py",
)  # fmt: skip
"""Files whose tests share nothing that takes long to make, so that each may go to another worker."""

FIRST = (
    "container/", "jobs/test_kill.py::test_killed_at_write_points", "slurm/test_grid.py::test_faults",
    "train/test_checkpoints.py", "slurm/test_grid.py", "slurm/test_crash.py::test_killed", "train/", "dynamics/",
    "evaluate/", "slurm/", "jobs/", "base/test_distributed.py", "docs/", "report/", "cli/", "model/",
)  # fmt: skip
"""What takes long: else a worker is still busy with it when all others have nothing left to do."""


def number() -> int:
    """Which worker this is, from 0 on."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def count() -> int:
    """How many workers there are."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def group(nodeid: str) -> str:
    """Tests of one group go to one worker, one after the other: those of a file, or of the folder of the image."""
    file = nodeid.partition("::")[0].removeprefix("tests/")
    if file.startswith("container/"):
        return "container"
    return nodeid if file in APART else file


def place(nodeid: str) -> int:
    """What comes first has the lower number."""
    name = nodeid.removeprefix("tests/")
    return next((place for place, start in enumerate(FIRST) if name.startswith(start)), len(FIRST))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that all workers of this session read, filled by the first of them that needs it."""
    own = factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, made = shared / name, shared / f"{name}.made"
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a worker left that failed at it
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def share(things: Sequence[int]) -> Sequence[int]:
    """Those of the things, such as ports, that no other worker takes."""
    return things[number() :: count()]
