"""Which tables a grid fills: those of the files in `configs/tables/`, or one for each benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cwdpo.base.config import read_yaml, validate
from cwdpo.base.errors import ConfigError, name_valid
from cwdpo.base.trail import note
from cwdpo.evaluate.benchmarks.benchmark import Benchmark
from cwdpo.experiment import config_folder, find_config
from cwdpo.experiment.folders import find_grid
from cwdpo.experiment.loading import WITHIN
from cwdpo.jobs.plan import Plan
from cwdpo.report.content import Column
from cwdpo.report.derived import PARTS
from cwdpo.report.layout import LaidColumn, LaidRow, Layout
from cwdpo.report.published import Published, published
from cwdpo.report.scored import FromBenchmark
from cwdpo.report.written import DERIVED, ColumnFile, RowFile, TableFile

AUTOMATIC = "benchmarks"
"""Stands for a table of each benchmark, with every case and every metric."""


def layouts(plan: Plan, names: Sequence[str] = ()) -> list[Layout]:
    """The tables of a grid, as yet without values.

    Args:
        names: files in `configs/tables/`, or `benchmarks`, each shown once however often it is named; none is all that
            name the grid, or else `benchmarks`.

    Raises:
        ConfigError: unknown table, a fault in a file, or nothing to report.
    """
    if names:
        return [layout for name in dict.fromkeys(names) for layout in _named(plan, name)]
    return _whole(plan, list(_of_grid(plan)))


def load_table(name: str) -> TableFile:
    """A file in `configs/tables/`, checked.

    Raises:
        ConfigError: names the file and the key.
    """
    path = find_config("tables", name)
    return validate(TableFile, read_yaml(path), str(path))


def _named(plan: Plan, name: str) -> list[Layout]:
    if name == AUTOMATIC:
        return _automatic(plan, plan.grid.cases)
    file = load_table(name)
    parts = [part for part in _parts(plan) if part.grid in file.grids] or [Part("", "", False)]
    return [_laid(plan, name, file, part) for part in parts]


def _of_grid(plan: Plan) -> Iterator[Layout]:
    """The table files that name the grid, or those of the grids that it includes, in their order."""
    parts = _parts(plan)
    folder = config_folder() / "tables"
    note(folder)
    paths = sorted(folder.glob("*.yaml"))
    names = {part.grid for part in parts}
    tables = {path.stem: load_table(path.stem) for path in paths if _mentions(path, names)}
    for part in parts:
        for name, file in tables.items():
            if part.grid in file.grids:
                yield _laid(plan, name, file, part)


def _whole(plan: Plan, found: list[Layout]) -> list[Layout]:
    """With a table of each benchmark for included grids that have no table file, and a word on what no table shows."""
    shown = {row.key for layout in found for row in layout.rows if row.asked}
    last = {_prefix(row.key): place for place, layout in enumerate(found) for row in layout.rows if row.asked}
    bare = [case for case in plan.grid.cases if _prefix(case) not in last]
    for prefix, place in last.items():
        remarks = (*found[place].remarks, *_unshown(plan, prefix, shown, found))
        found[place] = replace(found[place], remarks=remarks)
    return [*found, *(_automatic(plan, bare) if bare or not found else [])]


def _unshown(plan: Plan, prefix: str, shown: Collection[str], found: Sequence[Layout]) -> Iterator[str]:
    """What the tables of one part of the grid do not show, and what would."""
    cases = [case for case in plan.grid.cases if _prefix(case) == prefix]
    if left := [case for case in cases if case not in shown]:
        yield f"in none of these tables: {', '.join(left)} (`--table {AUTOMATIC}` has all cases)"
    asked = dict.fromkeys(
        one.name for cell in plan.grid.cells if cell.case in shown and cell.case in cases
        for one in cell.experiment.benchmarks
    )  # fmt: skip
    in_tables = {name for layout in found for name in layout.benchmarks}
    if rest := [name for name in asked if name not in in_tables]:
        yield f"asked, but in none of these tables: {', '.join(rest)} (`--table {AUTOMATIC}` has all benchmarks)"


def _mentions(path: Path, grids: Iterable[str]) -> bool:
    """Whether a file may name one of the grids: reading the YAML of all of them takes longer than most reports."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, IsADirectoryError):  # the lock of an editor is a link to nowhere
        return False
    except OSError:  # whoever reads it says why
        return True
    return any(grid in text for grid in grids)


@dataclass(frozen=True)
class Part:
    """Cells that fill the tables of one grid.

    Attributes:
        prefix: what the names of its cases begin with: "" where they are of no included grid.
        grid: whose tables they fill.
        ambiguous: whether other cells fill the same tables.
    """

    prefix: str
    grid: str
    ambiguous: bool


def _parts(plan: Plan) -> list[Part]:
    """The grid itself, then the grids that it includes."""
    grids = {"": plan.grid.tables_of}
    for prefix in filter(None, map(_prefix, plan.grid.cases)):
        grids.setdefault(prefix, _grid_of(prefix.removesuffix(WITHIN).rpartition(WITHIN)[2]))
    counts = Counter(grid for prefix, grid in grids.items() if prefix)
    return [Part(prefix, grid, counts[grid] > 1) for prefix, grid in grids.items()]


def _prefix(case: str) -> str:
    """`main-demo:` of `main-demo:cw_dpo`; "" where the case is the grid's own."""
    before, within, _ = case.rpartition(WITHIN)
    return before + within


def _grid_of(included: str) -> str:
    """`main` of `main-demo`."""
    try:
        return find_grid(included).grid.stem
    except ConfigError:
        return included


# ---- from files


def _laid(plan: Plan, name: str, file: TableFile, part: Part) -> Layout:
    path, cases, prefix = find_config("tables", name), set(plan.grid.cases), part.prefix
    rows = tuple(_row(prefix, key, row, cases) for key, row in file.rows.items())
    included = prefix.removesuffix(WITHIN) if part.ambiguous else ""
    return Layout(
        name=f"{path.stem}-{included}" if included else path.stem,
        title=f"{file.title} ({included})" if included else file.title,
        baseline=prefix + (file.baseline or next(iter(file.rows))),
        rows=rows,
        columns=tuple(_column(key, column) for key, column in file.columns.items()),
        groups=tuple(prefix + key for key in file.groups),
        published=_published(file, str(path)),
        remarks=tuple(_not_asked(plan, rows, file)),
    )


def _not_asked(plan: Plan, rows: Sequence[LaidRow], file: TableFile) -> Iterator[str]:
    """Rows and benchmarks of the file that the grid does not have: left out there, or misspelt here."""
    if lacking := [row.key for row in rows if not row.asked]:
        yield f"cases that grid '{plan.grid.name}' does not have: {', '.join(lacking)}"
    asked = {one.name for cell in plan.grid.cells for one in cell.experiment.benchmarks}
    named = dict.fromkeys(column.benchmark for column in file.columns.values() if column.benchmark)
    if unasked := [name for name in named if name not in asked]:
        yield f"benchmarks that grid '{plan.grid.name}' does not ask: {', '.join(unasked)}"


def _published(file: TableFile, where: str) -> Published | None:
    """The paper's numbers; `ConfigError` for a key that it does not have."""
    found = published(file.paper, where) if file.paper else None
    for section, named, valid in (
        ("rows", file.rows, found.rows if found else ()),
        ("columns", file.columns, found.columns if found else ()),
    ):
        for key, one in named.items():
            if one.published and one.published not in valid:
                known = name_valid(one.published, valid) if found else f"'{one.published}': the file names no paper"
                raise ConfigError(f"{where}: {section}.{key}.published: unknown {section[:-1]} {known}")
    return found


def _row(prefix: str, key: str, row: RowFile, cases: set[str]) -> LaidRow:
    cost_of = prefix + row.cost_of if row.cost_of else ""
    return LaidRow(prefix + key, prefix + key in cases, row.label or key, row.stands_on, row.published or key, cost_of)


def _column(key: str, file: ColumnFile) -> LaidColumn:
    metric, ranked = file.measured()
    higher = metric.higher if file.direction in (None, "none") else file.direction == "higher"
    metric = replace(metric, digits=metric.digits if file.digits is None else file.digits, higher=higher)
    column = Column(
        key=key,
        title=file.title or metric.title,
        group=file.group,
        benchmark=file.benchmark or "",
        metric=metric,
        ranked=ranked if file.direction is None else file.direction != "none",
    )
    source, reads = file.source(), tuple(PARTS) if file.derived == "hallucination_gain" else ()
    return LaidColumn(column, source, file.published or key, reads, compared=file.derived != "step_cost")


# ---- of benchmarks


def _automatic(plan: Plan, cases: Collection[str]) -> list[Layout]:
    """A table of each benchmark that any of these cases is asked."""
    found: dict[str, dict[str, None]] = {}
    about: dict[str, Benchmark] = {}
    for cell in plan.grid.cells:
        for benchmark in cell.experiment.benchmarks if cell.case in cases else ():
            found.setdefault(benchmark.name, {})[cell.case] = None
            about.setdefault(benchmark.name, benchmark)
    if not found:
        raise ConfigError(f"grid '{plan.grid.name}' has no benchmarks: there is nothing to report")
    tables = [_of_benchmark(about[name], list(rows)) for name, rows in found.items()]
    return [*tables, *_of_hallucinations(tables)]


def _of_benchmark(benchmark: Benchmark, cases: Sequence[str]) -> Layout:
    rows = tuple(LaidRow(case, True, case, "", case, "") for case in cases)
    columns = tuple(
        LaidColumn(
            Column(metric.key, metric.title, "", benchmark.name, metric),
            FromBenchmark(benchmark.name, metric),
            metric.key,
            optional=metric.optional,
        )
        for metric in benchmark.metrics
    )
    return Layout(benchmark.name, benchmark.name, cases[0], rows, columns)


def _of_hallucinations(tables: Sequence[Layout]) -> Iterator[Layout]:
    """nSFT's total gain, where a grid has all of its benchmarks."""
    parts = {table.name: table for table in tables if table.name in PARTS}
    if len(parts) < len(PARTS):
        return
    columns = [one for name in PARTS for one in parts[name].columns if one.column.metric.key == PARTS[name][0]]
    metric, source = DERIVED["hallucination_gain"]
    gain = LaidColumn(Column(metric.key, metric.title, "", "", metric), source, metric.key, tuple(PARTS))
    shown = [replace(one, column=_grouped(one.column)) for one in columns]
    rows = next(iter(parts.values())).rows
    yield Layout("hallucinations", "hallucinations", rows[0].key, rows, (*shown, gain))


def _grouped(column: Column) -> Column:
    return replace(column, key=f"{column.benchmark}_{column.key}", group=column.benchmark)
