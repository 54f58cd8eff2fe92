"""A finished home with what `cwdpo track` wrote, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import workers
from commands import MICRO, copy_home, cwdpo, succeed
from mlflow_rows import emptied


def _track(finished: Path, folder: Path) -> None:
    home, here = copy_home(finished, folder / "home"), folder / "here"
    here.mkdir()
    (folder / "shown").write_text(succeed(cwdpo("track", "-g", MICRO, "--home", home, cwd=here)))


@pytest.fixture(scope="session")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `home`, which was tracked from the folder `here`, and of what the command has `shown`; to be read."""
    return workers.made_once(tmp_path_factory, "tracked-grid", lambda folder: _track(finished, folder))


@pytest.fixture
def tracked(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a home that was tracked."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copy_home(made / "home", tmp_path / "home")


@pytest.fixture
def untracked(tracked: Path) -> Path:
    """The same with a database that has its tables (seconds to make) and nothing in them."""
    emptied(tracked / "mlflow.db")
    return tracked
