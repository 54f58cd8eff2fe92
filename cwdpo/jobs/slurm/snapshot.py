"""The code that runs is the code that was submitted: a copy of this package and of `configs/`, named by its content."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import cwdpo
from cwdpo.base import files
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
    source = Path(cwdpo.__file__).resolve().parent
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file() and not _left_out(path))
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name.as_posix()}\0{files.sha256_file(source / name)}\n".encode())
    version = code_version()
    digest.update(f"{version['commit']} {version['dirty']}".encode())
    for path in sorted(config_folder().rglob("*.yaml")):
        digest.update(f"{path.relative_to(config_folder())}\0{files.sha256_file(path)}\n".encode())
    target = folder / digest.hexdigest()[:16]
    if write and not target.exists():
        with files.folder_written_whole(target) as temporary:
            for name in names:
                copied = temporary / "cwdpo" / name
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, copied)
            files.write_json(temporary / "cwdpo" / COMMIT_FILE, version)
            if config_folder().is_dir():
                shutil.copytree(config_folder(), temporary / "configs")
    return target


def _left_out(path: Path) -> bool:
    return any(part in NOT_CODE for part in path.parts) or path.suffix == ".pyc"
