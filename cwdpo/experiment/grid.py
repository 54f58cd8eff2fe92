"""A grid in memory: its cells, and the file in which a submitted one is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base.config import validate
from cwdpo.base.errors import StoreError
from cwdpo.base.files import read_json
from cwdpo.experiment.schema import Experiment


@dataclass(frozen=True)
class Cell:
    """One experiment of a grid: a case (with its axis values) and a seed.

    Attributes:
        case: `GRID:CASE` where the grid is made of others.
        family: the case as the grid file names it, without axis values.
    """

    case: str
    seed: int
    experiment: Experiment
    family: str

    @property
    def name(self) -> str:
        """`case/seed`, unique in the grid."""
        return f"{self.case}/{self.seed}"


@dataclass(frozen=True)
class Grid:
    """A named grid and its cells.

    Attributes:
        options: what was typed to name it, such as `--grid demo --set 'seeds=[0]'`.
        tables_of: the grid whose tables its cells fill: `main`, also in another size or limited.
    """

    name: str
    options: str
    description: str
    cells: tuple[Cell, ...]
    tables_of: str = ""

    @property
    def cases(self) -> list[str]:
        """Case names in the order of the file."""
        return list(dict.fromkeys(cell.case for cell in self.cells))

    def as_json(self) -> dict[str, Any]:
        """Every cell with all its settings: what `submitted_grid` reads."""
        about = {"name": self.name, "options": self.options, "description": self.description}
        families = {cell.case: cell.family for cell in self.cells}
        cells = {cell.name: cell.experiment.model_dump(mode="json") for cell in self.cells}
        return {**about, "tables_of": self.tables_of, "families": families, "cells": cells}


def submitted_grid(path: Path) -> Grid:
    """A grid as it was when it was submitted, from the `grid.json` that was written then.

    Raises:
        StoreError: the file is damaged.
        ConfigError: a key that this version does not know.
    """
    content = read_json(path)
    try:
        cells = tuple(_cell(path, name, one, content["families"]) for name, one in content["cells"].items())
        return Grid(content["name"], content["options"], content["description"], cells, content["tables_of"])
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: no grid that was submitted ({error!r:.80})") from error


def _cell(path: Path, name: str, content: Mapping[str, Any], families: Mapping[str, str]) -> Cell:
    experiment = validate(Experiment, content, f"{path}, cell '{name}'")
    case = name.rpartition("/")[0]
    return Cell(case, experiment.seed, experiment, families[case])
