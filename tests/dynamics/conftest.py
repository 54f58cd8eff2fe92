"""Trainings and readings that several files of tests look at, made once a session."""

from __future__ import annotations

import pytest
import workers
from harness import Micro
from runs import Runs


@pytest.fixture(scope="session")
def runs(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What is probed in the tests of the stage and of steering; who changes it takes a copy."""
    home = workers.made_once(tmp_path_factory, "probed", lambda home: Runs(home, micro).make())
    return Runs(home, micro).known()
