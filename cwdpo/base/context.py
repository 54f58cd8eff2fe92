"""What a stage function receives, and the fixed blocks in which long per-item work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from cwdpo.base import files
from cwdpo.base.errors import Interrupted, StoreError
from cwdpo.base.runtime import Execution, Rank

Item = TypeVar("Item")


SHARE = "share-"
"""Before the number of a share in the role of its artefact."""


WATCHED = "watched"
"""Role of what a training is only looked at with: its result does not stand on it."""


def is_share(role: str) -> bool:
    """Whether what is read under this role is a share of the stage's own work."""
    return role.startswith(SHARE) and role.removeprefix(SHARE).isdigit()


@dataclass(frozen=True)
class Share:
    """Every `of`-th block of a stage, from block `number` on: what one of several jobs computes."""

    number: int
    of: int


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
        share: which blocks this job computes, where several jobs share a stage; None is all of them.
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
    share: Share | None = None


DIFFERENT = "different"
"""Key of the values that a setting had in several parts of one work."""


def settings_of_all(found: Any, more: Any) -> Any:
    """The settings of work that was done in parts: equal ones once, of others `{"different": [every value]}`."""
    if found == more:
        return found
    several = [one[DIFFERENT] if isinstance(one, dict) and DIFFERENT in one else [one] for one in (found, more)]
    if isinstance(found, dict) and isinstance(more, dict) and several == [[found], [more]]:
        return {key: settings_of_all(found.get(key), more.get(key)) for key in dict.fromkeys([*found, *more])}
    first, second = several
    return {DIFFERENT: [*first, *(value for value in second if value not in first)]}


class Blocks(Generic[Item]):
    """Work on items in fixed blocks: the unit of batching, seeding, sharding and resume.

    Which items share a block depends on their order and `size` alone, never on the number of shards, so any number
    of shards writes the same file. A finished block is one atomically written JSONL file in `partial/blocks`. Where
    other jobs have computed shares of the stage, theirs are taken over.
    """

    def __init__(self, context: StageContext, items: Sequence[Item], size: int) -> None:
        self.context = context
        self.items = items
        self.size = size
        self.count = -(-len(items) // size)
        share = context.share or Share(0, 1)
        self.own = range(share.number, self.count, share.of)
        if context.rank.is_first:
            self._take_over()

    def _take_over(self) -> None:
        """Copy what shares have computed to where this job would have written it."""
        for folder in (folder for role, folder in self.context.inputs.items() if is_share(role)):
            for path in sorted(folder.glob("blocks/*.jsonl")):
                target = self.context.partial / path.relative_to(folder)
                if not target.exists():
                    files.write_bytes(target, path.read_bytes())
            for path in sorted(folder.glob("*.json")):
                self.keep(path.name, files.read_json(path))

    def keep(self, name: str, content: dict[str, Any]) -> None:
        """Remember something beside the blocks until the stage is done, on the first rank.

        Where blocks were computed under other settings, before an upgrade or by another job, both are told: see
        `settings_of_all`.
        """
        if self.context.rank.is_first:
            path = self.context.partial / name
            begun = path.exists() and any((self.context.partial / "blocks").glob("*.jsonl"))
            files.write_json(path, settings_of_all(files.read_json(path), content) if begun else content)

    def publish(self, name: str, *kept: str) -> None:
        """Write what the artefact is made of, on the first rank: all rows as one file, and what was kept.

        Of a share it is the blocks, as they are.
        """
        if not self.context.rank.is_first:
            return
        if self.context.share:
            for index in self.own:
                files.write_bytes(self._path(self.context.out, index), self.path(index).read_bytes())
        else:
            files.write_jsonl(self.context.out / name, self.rows())
        for other in kept:
            path = self.context.partial / other
            if path.exists() or not self.context.share:  # a share of no blocks has nothing to tell
                files.write_bytes(self.context.out / other, path.read_bytes())

    def path(self, index: int) -> Path:
        """File of block `index`."""
        return self._path(self.context.partial, index)

    @staticmethod
    def _path(folder: Path, index: int) -> Path:
        return folder / "blocks" / f"{index:06d}.jsonl"

    def members(self, index: int) -> Sequence[Item]:
        """The items of block `index`."""
        return self.items[index * self.size : (index + 1) * self.size]

    def pending(self) -> list[int]:
        """Blocks that are not finished yet."""
        return [index for index in self.own if not self.path(index).exists()]

    def length(self, index: int) -> int:
        """How many items block `index` has, without reading them."""
        return len(range(len(self.items))[index * self.size : (index + 1) * self.size])

    def write(self, index: int, rows: Sequence[dict[str, Any]]) -> None:
        """Store the rows of one finished block and report progress."""
        assert len(rows) == self.length(index), "one row per item"
        self.context.check()
        files.write_jsonl(self.path(index), rows)
        self.context.event("progress", done=self.finished(), total=len(self.own))
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
