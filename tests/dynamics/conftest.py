"""Trainings that several files of tests read, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import workers
from harness import Micro
from trainings import Trainings


@pytest.fixture(scope="session")
def begun(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """Probe set, a first adapter, and preference training from it: unprobed (`dpo`) and watched as it ran."""

    def make(home: Path) -> None:
        found = _nodes(home, micro)
        found.compute(*found.nodes)

    return _nodes(workers.made_once(tmp_path_factory, "probed", make), micro)


def _nodes(home: Path, micro: Micro) -> Trainings:
    found = Trainings(home, micro)
    found.stage2("dpo")
    found.stage2("dpo, watched", watched=True)
    return found
