"""Wiring a grid: what cells share is made, hashed and read once, and is what each cell alone would have made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from every_setting import build, changed, experiments, make_files
from pretend import write_grid

from cwdpo import supplies
from cwdpo.experiment import load_grid
from cwdpo.graph import Wired
from cwdpo.pipeline import Wiring


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("pipeline"))


def ids(wired: Wired) -> list[str]:
    return [node.id for node in wired.nodes()]


def test_equal_nodes_of_a_grid_are_one_object(tmp_path: Path) -> None:
    grid = load_grid(str(write_grid(tmp_path / "grid.yaml", first=2, second=3, seeds=2)))
    wiring = Wiring(tmp_path / "cache")
    nodes = [node for cell in grid.cells for node in wiring.wire(cell.experiment).nodes()]
    assert len({id(node) for node in nodes}) == len({node.id for node in nodes})
    assert {id(parent) for node in nodes for parent in node.parents} <= {id(node) for node in nodes}


def test_a_cell_is_wired_as_if_it_were_alone(tmp_path: Path) -> None:
    grid = load_grid(str(write_grid(tmp_path / "grid.yaml", first=2, second=2, seeds=2)))
    wiring = Wiring(tmp_path / "cache")
    for cell in grid.cells:
        assert ids(wiring.wire(cell.experiment)) == ids(Wiring(tmp_path / "cache").wire(cell.experiment)), cell.name


def test_a_data_folder_and_a_model_are_digested_once(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 72B model on a parallel file system takes seconds, a large data set a minute."""
    calls: list[Any] = []

    def counted(name: str) -> None:
        real = getattr(supplies, name)
        monkeypatch.setattr(supplies, name, lambda *arguments: calls.append((name, arguments)) or real(*arguments))

    counted("data_digest")
    counted("model_digest")
    wiring = Wiring(files / "cache")
    content = experiments(files)["files"]
    first = wiring.wire(build(content))
    once = len(calls)
    assert sum(name == "model_digest" for name, _ in calls) == 1
    again = [wiring.wire(build({**content, "seed": seed})) for seed in range(2, 5)]
    assert len(calls) == once
    assert len({*ids(first), *(name for wired in again for name in ids(wired))}) > len(ids(first))


def test_another_place_of_the_same_data_is_the_same_node(files: Path) -> None:
    content = experiments(files)["files"]
    moved = changed(content, ("data", "root"), str(files / "elsewhere" / "data"))
    wiring = Wiring(files / "cache")
    first, second = wiring.wire(build(content)), wiring.wire(build(moved))
    assert first.nodes() == second.nodes()
