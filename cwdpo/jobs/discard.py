"""Removing files and folders so that a kill in the middle leaves nothing that looks whole."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from cwdpo.base import files

SUFFIX = ".discarded"


def discard(path: Path) -> None:
    """Remove a file or folder: a hidden name first, then its content. A link is removed, not what it points to.

    Raises:
        StoreError: it cannot be removed.
    """
    with files.writing(path):
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{SUFFIX}")
        os.replace(path, aside)
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink()
