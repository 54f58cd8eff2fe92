"""What was probed of a running training, in files.

    partial/probe/step-000100/blocks/*.jsonl    rows, see `dynamics/probing.py`
    partial/probe/step-000100/logged.jsonl      points of the training curve since the probe before, for alarms
    partial/probe/step-000100/point.json        the line of `dynamics/curves.py`, and what it took; written last
    partial/probe/start/*.start                 what the policy at the start leaves behind for divergences

A resumed training goes back to its checkpoint: what was probed after that step is read again, so that the files tell of
one training. A round hands step 0 over to the next one, whose policy is another one from its first step on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.context import Blocks, StageContext
from cwdpo.dynamics.rows import IN_RUN, Row
from cwdpo.dynamics.samples import ProbeSample
from cwdpo.model.snapshots import name_of
from cwdpo.train.keeping import link_tree

LOGGED, POINT, START = "logged.jsonl", "point.json", "start"

Line = Mapping[str, float]


class Record:
    """The probes of one training; all but `blocks` is for the first rank.

    Args:
        size: samples of a block.
        step: where the training stands.
    """

    def __init__(self, context: StageContext, samples: Sequence[ProbeSample], size: int, step: int) -> None:
        self._context, self._samples, self._size = context, samples, size
        self.folder = context.partial / IN_RUN
        if context.rank.is_first:
            self._take_over(context.inputs.get("previous"))
            self._forget_after(step)

    def _take_over(self, previous: Path | None) -> None:
        """Step 0 as the round before this one has it; its line, which says that it is there, comes last."""
        handed = previous / IN_RUN if previous else None
        found = sorted(path for name in (START, name_of(0)) for path in (handed / name).rglob("*.*")) if handed else []
        for path in found:
            target = self.folder / path.relative_to(handed or path)
            if not target.exists():
                files.write_bytes(target, path.read_bytes())

    def hand_over(self) -> None:
        """Put step 0 into the artefact, for the next round."""
        for name in (START, name_of(0)):
            link_tree(self.folder / name, self._context.out / IN_RUN / name)

    def _forget_after(self, step: int) -> None:
        """Drop what was probed of a course that this training has gone back from."""
        for path in self.folder.glob("step-*"):
            if int(path.name.removeprefix("step-")) > step:
                files.remove_tree(path)

    def blocks(self, step: int) -> Blocks[ProbeSample]:
        """Where the rows of a step lie; stopping, and what is told of them, is up to who makes them."""
        own = replace(
            self._context,
            partial=self.folder / name_of(step),
            event=lambda *_, **__: None,
            stopping=lambda: False,
        )
        return Blocks(own, self._samples, self._size)

    def rows(self, step: int) -> list[Row]:
        """All rows of a step."""
        blocks = self.blocks(step)
        os.listdir(blocks.path(0).parent)  # makes a network file system look for what other nodes have just written
        return list(blocks.rows())

    def has(self, step: int) -> bool:
        """Whether a step was probed."""
        return (self.folder / name_of(step) / POINT).exists()

    def write(self, step: int, line: Line, logged: Iterable[Line]) -> None:
        """Say that a step was probed."""
        files.write_jsonl(self.folder / name_of(step) / LOGGED, map(finite, logged))
        files.write_json(self.folder / name_of(step) / POINT, finite(line))

    def lines(self, last: int) -> list[dict[str, float]]:
        """Of all steps up to the last one, in order."""
        found = (files.read_json(self.folder / name_of(step) / POINT) for step in self.steps() if step <= last)
        return [_numbers(line) for line in found]

    def logged(self, last: int) -> list[dict[str, float]]:
        """The training curve up to a step, as far as it was heard of."""
        paths = (self.folder / name_of(step) / LOGGED for step in self.steps() if step <= last)
        return [_numbers(point) for path in paths for point in files.read_jsonl(path)]

    def steps(self) -> list[int]:
        """What was probed, in order."""
        return sorted(int(path.parent.name.removeprefix("step-")) for path in self.folder.glob(f"step-*/{POINT}"))


def finite(line: Line) -> dict[str, Any]:
    """JSON has no infinity: what is not finite is written as text."""
    return {name: value if math.isfinite(value) else str(value) for name, value in line.items()}


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in line.items()}
