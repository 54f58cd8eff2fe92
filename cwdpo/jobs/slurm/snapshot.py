"""The code that runs is the code that was submitted: a copy of this package and of `configs/`, named by its content."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import cwdpo
from cwdpo.base import files
from cwdpo.base.identity import digest
from cwdpo.experiment import config_folder
from cwdpo.version import COMMIT_FILE, code_version

NOT_CODE = ("__pycache__", COMMIT_FILE)


def snapshot(folder: Path, write: bool = True) -> Path:
    """Copy the running package and its configurations to `folder/<digest>/` unless they are there; returns that folder.

    Only for who holds the lock; others learn with `write=False` where it will be.

    The copy knows the commit it was made from. A job finds it first: on PYTHONPATH, which comes before what is
    installed, editable or not, and with PYTHONSAFEPATH, so that the folder the job was submitted from does not come
    before it.
    """
    found = dict(_sources())
    target = folder / _digest(found)
    if write and not target.exists():
        with files.folder_written_whole(target) as temporary:
            for name, source in found.items():
                copied = temporary / name
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copied)
            files.write_json(temporary / "cwdpo" / COMMIT_FILE, code_version())
    return target


def _sources() -> Iterator[tuple[str, Path]]:
    """Name in the copy -> file, of the package and of `configs/`."""
    package, configs = Path(cwdpo.__file__).resolve().parent, config_folder()
    for path in sorted(path for path in package.rglob("*") if path.is_file() and not _left_out(path)):
        yield f"cwdpo/{path.relative_to(package).as_posix()}", path
    for path in sorted(configs.rglob("*.yaml")):
        yield f"configs/{path.relative_to(configs).as_posix()}", path


def _digest(sources: Mapping[str, Path]) -> str:
    version = code_version()
    lines = [f"{name}\0{files.sha256_file(path)}" for name, path in sources.items()]
    return digest([lines, version["commit"], version["dirty"]])[:16]


def _left_out(path: Path) -> bool:
    return any(part in NOT_CODE for part in path.parts) or path.suffix == ".pyc"
