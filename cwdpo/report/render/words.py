"""The wording of tables, the same in Markdown, in LaTeX and on a terminal."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cwdpo.report.content import Column, Entry, Gap, Result, Row, Standing, Table
from cwdpo.report.render.text import capital, fixed, listed, lower_is_better, plain, published, sentence, signed
from cwdpo.version import code_version

NOT_ASKED = Entry(gaps=(Gap("not asked", "", ()),))
"""Stands where a row says nothing of a column."""

IN_DOUBT = "in doubt"
"""Said of a value whose own files are whole, but not those that it was computed from."""


@dataclass(frozen=True)
class Said:
    """What stands in one cell.

    Attributes:
        parts: the value, or why there is none; then what else must be said of it. They follow each other on a line, or
            stand below each other.
        gap: whether there is no value.
    """

    parts: tuple[str, ...]
    standing: Standing = ""
    gap: bool = False


@dataclass(frozen=True)
class Legend:
    """How a format shows what is best, as the caption says it; both in the format's own markup.

    Attributes:
        best: what is distinguishable from every other row.
        tied: the best mean, or not distinguishable from it.
    """

    best: str
    tied: str


def entry_of(row: Row, column: Column) -> Entry:
    """What a row has in a column."""
    return row.entries.get(column.key, NOT_ASKED)


def entries(table: Table) -> Iterator[Entry]:
    """All of them, row by row."""
    return (entry_of(row, column) for row in table.rows for column in table.columns)


def heading(table: Table) -> str:
    """Title of a table; a partial one says so wherever it is shown."""
    return plain(table.title) + (" (PARTIAL: only some items were scored)" if is_partial(table) else "")


def is_automatic(table: Table) -> bool:
    """Whether it is one of those that no file lays out: only they have no title beside their name."""
    return table.title == table.name


def is_partial(table: Table) -> bool:
    """Whether any value is over some of the items only."""
    return table.partial or any(entry.partial for entry in entries(table))


def is_mixed(table: Table) -> bool:
    """Whether some values are over all items and others are not, so that each must say it."""
    return len({entry.partial for entry in entries(table) if entry.mean is not None}) > 1


def baseline_of(table: Table) -> str:
    """Label of the row that differences are to."""
    return next((plain(row.label) for row in table.rows if row.key == table.baseline), plain(table.baseline))


def common_stage1(table: Table) -> str | None:
    """What all rows stand on; None where they differ, so that a column must say it."""
    found = {plain(row.stands_on) for row in table.rows}
    return found.pop() if len(found) == 1 else None


class Speaker:
    """Says what stands in the cells of one table."""

    def __init__(self, table: Table, paper: bool) -> None:
        """Look at all entries first, so that only what differs from the rest need be said."""
        self._paper = paper
        self.usual = _usual(table)
        self._mixed = is_mixed(table)

    def says(self, entry: Entry, column: Column) -> Said:
        """`139.2 ± 0.4` and `(n=3, 2 failed)`, `116.2`, or `failed`; then, on request, the paper's number."""
        digits = column.metric.digits
        paper = _paper(entry, digits) if self._paper else ""
        if entry.mean is None:
            return Said(tuple(filter(None, (_why_not(entry.gaps), paper))), gap=True)
        value = fixed(entry.mean, digits) + ("" if entry.std is None else f" ± {fixed(entry.std, digits)}")
        return Said(tuple(filter(None, (value, self._note(entry), paper))), entry.standing)

    def _note(self, entry: Entry) -> str:
        """`(n=3, 2 failed, stale)`."""
        n = len(entry.results)
        said = [f"n={n}"] if entry.gaps or (n and n != self.usual and not deterministic(entry)) else []
        said += _counted(entry.gaps)
        said += _of_all("stale", sum(result.stale for result in entry.results), n)
        said += _of_all(IN_DOUBT, sum(bool(result.doubt) for result in entry.results), n)
        said += ["partial"] if entry.partial and self._mixed else []
        return f"({', '.join(said)})" if said else ""


def _of_all(word: str, count: int, n: int) -> list[str]:
    return ([word] if count == n else [f"{count} of {n} {word}"]) if count else []


def deterministic(entry: Entry) -> bool:
    """Whether several seeds share one result."""
    return len(entry.results) == 1 and len(entry.results[0].seeds) > 1


def _usual(table: Table) -> int:
    """How many results most values are over, of those that lack none."""
    found = [entry for entry in entries(table) if entry.results and not deterministic(entry)]
    counts = Counter(len(entry.results) for entry in found if not entry.gaps)
    counts = counts or Counter(len(entry.results) for entry in found)
    return max(counts, key=lambda n: (counts[n], n), default=0)


def _why_not(gaps: Sequence[Gap]) -> str:
    """The kind of the gap; where seeds differ, how many there are of each."""
    kinds = dict.fromkeys(gap.kind for gap in gaps)
    if len(kinds) > 1:
        return ", ".join(_counted(gaps))
    return next(iter(kinds), "missing")


def _counted(gaps: Sequence[Gap]) -> list[str]:
    """`2 failed` for each kind."""
    counts: Counter[str] = Counter()
    for gap in gaps:
        counts[gap.kind] += len(gap.seeds)
    return [f"{count} {kind}" if count else kind for kind, count in counts.items()]


def _paper(entry: Entry, digits: int) -> str:
    """`/ 142.6 (-3.4)`."""
    found = paper(entry, digits)
    return f"/ {found}" if found else ""


def paper(entry: Entry, digits: int) -> str:
    """`142.6 (-3.4)`: what was published, and ours minus it; "" where nothing was."""
    if entry.paper is None:
        return ""
    beyond = beyond_paper(entry)
    return published(entry.paper, digits) + ("" if beyond is None else f" ({signed(beyond, digits)})")


def beyond_paper(entry: Entry) -> float | None:
    """The mean minus what was published."""
    return None if entry.mean is None or entry.paper is None else entry.mean - entry.paper


def caption(table: Table, paper: bool) -> list[str]:
    """What the numbers are and how to read them, a sentence each; `legend` comes after it."""
    lines = [capital(sentence(line)) for line in table.caption]
    lines += about_n(table)
    stage1 = common_stage1(table)
    lines += [f"Every row stands on Stage 1 of {stage1}."] if stage1 not in (None, "none") else []
    lines += ["↓: lower is better."] if any(map(lower_is_better, table.columns)) else []
    lines += _judges(table)
    printed = paper and any(entry.paper is not None for entry in entries(table))
    lines += [f"After the slash: the published number{_source(table)}, and ours minus it."] if printed else []
    return lines + _about_stale(table)


def legend(table: Table, marks: Legend) -> list[str]:
    """What the marks of the best mean; nothing where there are none."""
    found = {entry.standing for entry in entries(table)}
    said = [f"{marks.best}: distinguishable from every other row."] if "best" in found else []
    return said + ([f"{marks.tied}: the best mean, or not distinguishable from it."] if "tied" in found else [])


def about_n(table: Table) -> list[str]:
    """How many results values are over, and what stands behind the sign."""
    found = [entry for entry in entries(table) if entry.results]
    usual = _usual(table)
    several = [f"± is the standard deviation; n={usual} where nothing else is said."] if usual > 1 else []
    return several + (["A number without ± is a single result."] if any(len(e.results) == 1 for e in found) else [])


def _judges(table: Table) -> list[str]:
    judged: dict[str, list[str]] = {}
    for column in table.columns:
        if column.judge:
            judged.setdefault(plain(column.judge), []).append(plain(column.name))
    return [f"Judged by {judge}: {listed(titles)}." for judge, titles in judged.items()]


def _source(table: Table) -> str:
    return f" ({plain(table.paper)})" if table.paper else ""


def _about_stale(table: Table) -> list[str]:
    stale = any(entry.stale for entry in entries(table))
    return ["Stale: computed by other code than the one that is here now."] if stale else []


def notes(table: Table) -> list[str]:
    """What must be known about single rows and cells, a sentence each: marks, notes, and why values are missing."""
    marks = [f"{plain(row.label)}: {sentence(mark)}" for row in table.rows for mark in row.marks]
    return [*marks, *map(sentence, table.notes), *reasons(table)]


@dataclass(frozen=True)
class _Where:
    """Cells that lack values, or whose values are in doubt, for one reason.

    Attributes:
        rows: label -> seeds.
    """

    rows: dict[str, set[int]]
    columns: dict[str, None]


def reasons(table: Table) -> list[str]:
    """Every distinct reason for a missing or doubtful value, with the rows and columns it concerns, a sentence each."""
    found: dict[tuple[str, str], _Where] = {}
    for row in table.rows:
        for column in table.columns:
            for kind, reason, seeds in troubles(entry_of(row, column)):
                where = found.setdefault((kind, plain(reason)), _Where({}, {}))
                where.rows.setdefault(plain(row.label), set()).update(seeds)
                where.columns[plain(column.name)] = None
    return [f"{kind}: {reason} ({_told(where, table)})." for (kind, reason), where in found.items() if reason]


def troubles(entry: Entry) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """What is wrong, why, and with which seeds."""
    yield from ((gap.kind, gap.reason, gap.seeds) for gap in entry.gaps)
    yield from ((IN_DOUBT, result.doubt, result.seeds) for result in entry.results if result.doubt)


def _told(where: _Where, table: Table) -> str:
    """`dpo seeds 1, 2; COCO METEOR`."""
    every = len(where.rows) == len(table.rows) > 1
    rows = "every row" if every else listed(map(_with_seeds, where.rows.items()))
    return rows if len(where.columns) == len(table.columns) else f"{rows}; {listed(where.columns)}"


def _with_seeds(row: tuple[str, Iterable[int]]) -> str:
    label, seeds = row[0], sorted(row[1])
    return f"{label} {seeds_said(seeds)}" if seeds else label


def seeds_said(seeds: Sequence[int]) -> str:
    """`seeds 1, 2`; "" for none."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}" if seeds else ""


def origins(row: Row, table: Table) -> str:
    """`COCO score-01 (seed 0), score-02 (seed 1); Flickr30k score-03 (seed 0)`, or that there is nothing yet."""
    found: dict[str, dict[str, None]] = {}
    for column in table.columns:
        of = found.setdefault(plain(column.benchmark or column.group or column.title), {})
        for result in entry_of(row, column).results:
            of[_origin(result)] = None
    told = {name: ", ".join(folders) for name, folders in found.items() if folders}
    if len(found) == 1:
        return next(iter(told.values()), "nothing yet")
    return "; ".join(f"{name} {folders}" for name, folders in told.items()) or "nothing yet"


def _origin(result: Result) -> str:
    """`score-01 (seed 0, commit 0123abc)`."""
    about = ", ".join(filter(None, (seeds_said(result.seeds), plain(result.code))))
    return plain(result.origin) + (f" ({about})" if about else "")


def command(tables: Sequence[Table]) -> str:
    """What was typed, or does the same."""
    return plain(tables[0].command)


def on_cell(command: str, name: str, options: str) -> str:
    """`cwdpo logs cw_dpo/0 --grid demo`, to be pasted into a shell.

    Args:
        name: of a cell, which may have any characters; after `--` one that begins with a dash is no option.
    """
    quoted = shlex.quote(name)
    return f"{command} {options} -- {quoted}" if name.startswith("-") else f"{command} {quoted} {options}"


def version_line() -> str:
    """`cwdpo 0.1.0, commit 0123abc, with uncommitted changes`."""
    version = code_version()
    commit = f"commit {version['commit']}" if version["commit"] else "outside a checkout"
    return f"cwdpo {version['version']}, {commit}{', with uncommitted changes' if version['dirty'] else ''}"
