"""Where configurations lie, and which files the name of a grid stands for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from cwdpo.base.errors import ConfigError, name_valid
from cwdpo.base.trail import note


def config_folder() -> Path:
    """`$CWDPO_CONFIGS`, else `configs/` of the current folder, else of the checkout this package is installed from."""
    if os.environ.get("CWDPO_CONFIGS"):
        return Path(os.environ["CWDPO_CONFIGS"])
    here = Path("configs")
    note(here)
    return here if here.is_dir() else Path(__file__).resolve().parents[2] / "configs"


def find_config(kind: str, name: str) -> Path:
    """File of a named configuration (`models`, `clusters`, ...), or the path itself if `name` is one.

    Raises:
        ConfigError: unknown name; lists the known ones.
    """
    if is_path(name):
        return Path(name)
    folder = config_folder() / kind
    path = folder / f"{name}.yaml"
    note(path)
    if not path.is_file():
        raise ConfigError(f"unknown {kind.removesuffix('s')} {name_valid(name, _names(folder))} (looked in {folder}/)")
    return path


def is_path(name: str) -> bool:
    """Whether a name says itself where the file is."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


@dataclass(frozen=True)
class Files:
    """The files of a grid.

    Attributes:
        name: as it was named, without folders.
        size: what is laid over the grid, or None.
    """

    name: str
    grid: Path
    size: Path | None = None

    @property
    def where(self) -> str:
        """For errors."""
        return f"{self.grid} with {self.size}" if self.size else str(self.grid)


def find_grid(name: str) -> Files:
    """`main` is `grids/main.yaml`; `main-demo` the same with `sizes/demo.yaml`, unless `grids/main-demo.yaml` is there.

    Raises:
        ConfigError: unknown name; lists grids and sizes.
    """
    if is_path(name):
        return Files(Path(name).stem, Path(name))
    grids, sizes = config_folder() / "grids", config_folder() / "sizes"
    note(grids / f"{name}.yaml")
    if (grids / f"{name}.yaml").is_file():
        return Files(name, grids / f"{name}.yaml")
    for stem, size in _splits(name):
        found = Files(name, grids / f"{stem}.yaml", sizes / f"{size}.yaml")
        note(grids / f"{stem}.yaml", sizes / f"{size}.yaml")
        if found.grid.is_file() and found.size and found.size.is_file():
            return found
    raise ConfigError(_unknown(name, grids, sizes))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """A name cut in two at each dash; the longest size comes first."""
    for place, letter in enumerate(name):
        if letter == "-":
            yield name[:place], name[place + 1 :]


def _unknown(name: str, grids: Path, sizes: Path) -> str:
    known, endings = _names(grids), [f"-{size}" for size in _names(sizes)]
    close = get_close_matches(name, [*known, *(grid + ending for grid in known for ending in endings)], n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    more = f"; each also in a size of {sizes}/: {', '.join(endings)}" if endings else ""
    return f"unknown grid '{name}'{hint} valid: {', '.join(known) or 'none'}{more} (looked in {grids}/)"
