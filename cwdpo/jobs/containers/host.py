"""What a process in a container gets from the machine it is on. Nothing else of it gets in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """One job's view.

    Attributes:
        code: folder of the code that jobs run.
        image: file of the image; None without one.
        folders: folders it sees, under the same paths as outside.
        variables: names of the environment variables it gets.
        gpus: True when it uses GPUs.
    """

    code: Path
    image: Path | None = None
    folders: tuple[Path, ...] = ()
    variables: tuple[str, ...] = ()
    gpus: bool = False


def visible(folders: Iterable[Path]) -> tuple[Path, ...]:
    """The folders, and where the links among their entries lead to, without those that lie in another one.

    A model in the hub's cache is such links; so is a data folder whose images lie elsewhere.
    """
    wanted: set[Path] = set()
    for folder in folders:
        wanted |= {folder, folder.resolve(), *_behind_links(folder)}
    return tuple(sorted(path for path in wanted if wanted.isdisjoint(path.parents)))


def _behind_links(folder: Path) -> set[Path]:
    try:
        links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
    except OSError:  # who needs the folder says what is wrong with it
        return set()
    targets = {Path(link).resolve() for link in links}
    return {target if target.is_dir() else target.parent for target in targets if target.exists()}
