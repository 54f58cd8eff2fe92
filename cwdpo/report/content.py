"""What a table holds, before anybody prints it: columns, rows, and entries that know where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cwdpo.evaluate.question import Metric

GapKind = Literal[
    "missing",
    "blocked",
    "queued",
    "starting",
    "running",
    "interrupted",
    "cancelled",
    "failed",
    "damaged",
    "not available",
    "not asked",
]
"""Why there is no value: how a stage on the way to it stands; `damaged` is a file of a finished stage that is not what
was written; `not available` was scored but has no value; `not asked` is no part of the grid."""

Standing = Literal["best", "tied", ""]
"""`best`: distinguishable from every other row; `tied`: the highest mean, or not distinguishable from it."""


@dataclass(frozen=True)
class Gap:
    """Why results are missing.

    Attributes:
        reason: a sentence without its full stop, or "" where the kind says all.
        seeds: of the cells that are without.
    """

    kind: GapKind
    reason: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """One distinct result: seeds that share a deterministic one count once.

    Attributes:
        seeds: of the cells that share it.
        value: in the units of the column.
        origin: folder of the store that has it, such as `score-0123456789abcdef`; several where it was derived from
            several, joined by " + ".
        stale: whether other code than this computed it.
        code: what computed it, such as `commit 0123456789ab with changes, image sha256:4567`.
        doubt: what is wrong with the files that it was computed from, although its own are whole; "" where nothing is.
    """

    seeds: tuple[int, ...]
    value: float
    origin: str
    stale: bool = False
    code: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class Column:
    """What is measured.

    Attributes:
        key: unique in the table, such as `coco_cider`.
        title: without the group, such as `CIDEr`.
        group: columns of one group stand below one heading; "" for none.
        benchmark: "" where it is no benchmark's.
        metric: how it is printed, and whether more is better.
        judge: the model that judged; "" where nobody did.
        ranked: whether one end is better at all; where it is not, nothing is best and no arrow says which way is up.
    """

    key: str
    title: str
    group: str
    benchmark: str
    metric: Metric
    judge: str = ""
    ranked: bool = True

    @property
    def name(self) -> str:
        """Group and title, as a sentence names them."""
        return f"{self.group} {self.title}" if self.group else self.title


@dataclass(frozen=True)
class Difference:
    """A row minus the table's baseline, in the units of the column.

    Attributes:
        low, high: ends of its 95% interval; None where there are too few results for one.
        p: of the two-sided test that there is none.
        adjusted: the same after Holm's correction over the rows of the column.
        test: what was tested, in words, such as `Welch's t over seeds`.
        covers: what the interval speaks of, such as `new trainings` or `these checkpoints`.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None
    test: str
    covers: str


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Attributes:
        results: the distinct results behind it.
        gaps: what is missing.
        mean, std: over the results, in the units of the column; None where there are none, or only one.
        low, high: ends of the 95% interval of the mean over new trainings; None for fewer than two results.
        partial: whether only some items were scored.
        paper: the published number, or None.
    """

    results: tuple[Result, ...] = ()
    gaps: tuple[Gap, ...] = ()
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    partial: bool = False
    standing: Standing = ""
    difference: Difference | None = None
    paper: float | None = None

    @property
    def stale(self) -> bool:
        """Whether other code than this computed any of it."""
        return any(result.stale for result in self.results)

    @property
    def doubtful(self) -> bool:
        """Whether files are damaged that any of it was computed from."""
        return any(result.doubt for result in self.results)


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        key: the case of the grid.
        label: as it is printed.
        stands_on: Stage 1 that it stands on, such as `sft_c`; "none" where there is none.
        entries: by key of the column.
        marks: sentences on the whole row, such as identical adapters.
    """

    key: str
    label: str
    stands_on: str
    entries: Mapping[str, Entry]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table, as a file in `configs/tables/` or a benchmark lays it out.

    Attributes:
        name: of the file, or of the benchmark.
        title: as it is printed.
        options: name the grid on a command line.
        command: prints this table.
        baseline: key of the row that differences are to.
        paper: where published numbers are from, such as "Table 1 of arXiv 2510.11978"; "" where there are none.
        caption: what the numbers are and what they cannot show, a sentence each.
        notes: what must be known about single rows, columns or cells, a sentence each.
        groups: keys of rows before which a line is drawn.
    """

    name: str
    title: str
    grid: str
    options: str
    command: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    baseline: str
    partial: bool = False
    paper: str = ""
    caption: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] = field(default=())
