"""Adapters that a LoRA training keeps on its way, so that it can be probed, exported or gone back to later.

partial/snapshots/step-000100/      while it trains; then beside its result, see `model/snapshots.py`
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.model.snapshots import COURSE, FOLDER, name_of
from cwdpo.train.engine import Engine, Trainables
from cwdpo.train.export import save_adapter
from cwdpo.train.saving import saving


class Keeper:
    """Keeps an adapter every so many steps.

    Args:
        every: 0 keeps none but those that are asked for.
        dtype: the policy's precision.
    """

    def __init__(self, context: StageContext, every: int, dtype: str) -> None:
        self._context, self._every, self._dtype = context, every, dtype
        self.folder = context.partial / FOLDER

    def is_due(self, step: int) -> bool:
        """Whether the adapter of a step is kept without being asked for."""
        return self._every > 0 and step % self._every == 0

    def keep(self, engine: Engine, step: int) -> None:
        """Write the adapter as it is. Collective."""
        weights = Trainables(engine).weights()
        path = self.folder / name_of(step)
        if self._context.rank.is_first:
            self._context.check()
            with saving(path), files.folder_written_whole(path) as temporary:
                save_adapter(engine.model, weights, temporary, self._dtype)

    def publish(self, begin: int, end: int, total: int, at: int | None = None) -> None:
        """Put what was kept into the artefact, on the first rank; what other runs of this stage left is dropped.

        Args:
            at: step whose adapter is the result, in place of the last one.
        """
        if not self._context.rank.is_first:
            return
        kept = self._context.out / FOLDER
        if at is not None and at != end:
            self._go_back(at, kept / name_of(end) if self._every else None)
        if not self._every:
            return
        for step in range(self._every * (begin // self._every + 1), end, self._every):
            # A run that went on with another interval than it had begun with lacks some.
            if (self.folder / name_of(step)).is_dir():
                link_tree(self.folder / name_of(step), kept / name_of(step))
        course = {"begin": begin, "end": end, "total": total, "every": self._every}
        files.write_json(kept / COURSE, course | ({"result": at} if at is not None else {}))

    def _go_back(self, step: int, last: Path | None) -> None:
        """Make the adapter of a step the result; the last one, which was, goes to `last`."""
        for file in (self.folder / name_of(step)).iterdir():
            result = self._context.out / file.name
            if last:
                files.write_bytes(last / file.name, result.read_bytes())
            files.write_bytes(result, file.read_bytes())


def link_tree(source: Path, target: Path) -> None:
    """The same files under another folder: linked where the file system can, since they are big."""
    with files.writing(target):
        shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> Any:
    with suppress(OSError):
        return os.link(source, target)
    return shutil.copy2(source, target)
