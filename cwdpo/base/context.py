"""What a stage function receives, and the fixed blocks in which long per-item work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cwdpo.base import files
from cwdpo.base.errors import Interrupted, StoreError
from cwdpo.base.runtime import Execution, Rank

Item = TypeVar("Item")


@dataclass(frozen=True)
class StageContext:
    """`(slice of the config, input artefacts, output folder) -> files`.

    Attributes:
        spec: the slice of the experiment this stage computes.
        inputs: role -> folder or file to read.
        out: empty folder for the artefact's files; rank 0 writes, unless a stage says otherwise.
        partial: folder that survives a kill; what is in it was written atomically.
        cache: folder of the home that outlives every artefact: what is in it is found by what it answers.
        rank: this process among the job's ranks.
        execution: settings that do not change the result.
        event: appends a line to the attempt's events (does nothing on other ranks).
        check: raises `Fenced` when a newer attempt took over.
        barrier: waits for all ranks.
        stopping: True once a signal asked this process to stop.
    """

    spec: Any
    inputs: Mapping[str, Path]
    out: Path
    partial: Path
    cache: Path
    rank: Rank
    execution: Execution
    event: Callable[..., None]
    check: Callable[[], None]
    barrier: Callable[[], None] = lambda: None
    stopping: Callable[[], bool] = lambda: False


class Blocks:
    """Work on items in fixed blocks: the unit of batching, seeding, sharding and resume.

    Which items share a block depends on their order and `size` alone, never on the number of shards, so any number
    of shards writes the same file. A finished block is one atomically written JSONL file in `partial/blocks`.
    """

    def __init__(self, context: StageContext, items: Sequence[Item], size: int) -> None:
        self.context = context
        self.items = items
        self.size = size
        self.count = -(-len(items) // size)

    def path(self, index: int) -> Path:
        """File of block `index`."""
        return self.context.partial / "blocks" / f"{index:06d}.jsonl"

    def members(self, index: int) -> Sequence[Any]:
        """The items of block `index`."""
        return self.items[index * self.size : (index + 1) * self.size]

    def pending(self) -> list[int]:
        """Blocks that are not finished yet."""
        return [index for index in range(self.count) if not self.path(index).exists()]

    def length(self, index: int) -> int:
        """How many items block `index` has, without reading them."""
        return len(range(len(self.items))[index * self.size : (index + 1) * self.size])

    def write(self, index: int, rows: Sequence[dict[str, Any]]) -> None:
        """Store the rows of one finished block and report progress."""
        assert len(rows) == self.length(index), "one row per item"
        self.context.check()
        files.write_jsonl(self.path(index), rows)
        self.context.event("progress", done=self.finished(), total=self.count)
        if self.context.stopping() and self.context.rank.world_size == 1:
            raise Interrupted(f"stopped by a signal after block {index}; finished blocks are kept")

    def finished(self) -> int:
        """Number of finished blocks, of all shards."""
        folder = self.context.partial / "blocks"
        return sum(1 for path in folder.glob("*.jsonl") if not path.name.startswith("."))

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows in the order of the items; every block must be finished."""
        for index in range(self.count):
            rows = list(files.read_jsonl(self.path(index)))
            if len(rows) != self.length(index):
                raise StoreError(f"{self.path(index)}: {len(rows)} rows, expected {self.length(index)}")
            yield from rows
