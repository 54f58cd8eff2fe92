"""Saying plainly that weights could not be written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.errors import StoreError


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """`files.writing`, also for what safetensors and torch raise in place of an OSError when a disk is full."""
    from safetensors import SafetensorError

    try:
        with files.writing(path):
            yield
    except (SafetensorError, RuntimeError) as error:
        if _is_exchange(error):
            raise
        raise StoreError(f"cannot write {path}: {' '.join(str(error).split())}") from error


def _is_exchange(error: Exception) -> bool:
    """True for ranks that lost each other while they saved together: no fault of the disk."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or re.search(r"gloo|nccl|connection", str(error), re.IGNORECASE) is not None
