"""What a process in a container gets from the machine it is on. Nothing else of it gets in."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DEPTH = 2
"""Levels of a folder in which links are looked for: `root/images/train2014` may be one."""

MANY = 4
"""So many files behind links are bound by their folder, such as the `blobs` of the hub's cache."""

SYSTEM = frozenset(
    map(
        Path, ("/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/run", "/sbin", "/sys", "/usr")
    )
)
"""Folders that the image has itself; the host's are never put over them."""


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
    """The folders, and whatever the links in them name on the way to their files, without what lies in another one.

    A model in the hub's cache is links; so may the images of a data folder be, one by one or as a whole.
    """
    wanted: set[Path] = set()
    for folder in folders:
        wanted |= {folder, *_behind_links(folder)}
    return tuple(sorted(path for path in wanted if wanted.isdisjoint(path.parents)))


@cache
def _behind_links(folder: Path) -> frozenset[Path]:
    """Folders and files that links in a folder name, each as it is named: it is looked up by that name inside."""
    found: set[Path] = set()
    files: dict[Path, set[Path]] = defaultdict(set)
    for link in _links(folder, DEPTH):
        for name in _hops(link):
            if name.is_dir():
                found |= {name} - SYSTEM
            elif name.exists():
                files[name.parent].add(name)
    for parent, names in files.items():
        found |= {parent} if len(names) >= MANY and not _is_everything(parent) else names
    return frozenset(found)


def _is_everything(folder: Path) -> bool:
    return folder in SYSTEM or folder == Path.home()


def _links(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # who needs the folder says what is wrong with it
        return
    for entry in entries:
        if entry.is_symlink():
            yield Path(entry.path)
        elif depth > 1 and entry.is_dir():
            yield from _links(Path(entry.path), depth - 1)


def _hops(link: Path) -> Iterator[Path]:
    """What a link names, what that names if it is a link itself, and so on."""
    seen = {link}
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / os.readlink(link)))
        if link in seen:
            return
        seen.add(link)
        yield link
