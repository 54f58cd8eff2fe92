"""Tables as Markdown, as JSON, and on a terminal; one wording for all of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cwdpo.report.table import NAMES, Row, Table, Value
from cwdpo.version import code_version


def header(table: Table) -> list[str]:
    """Column titles."""
    difference = f"ΔCIDEr to {table.baseline} [95%]"
    return ["method", *(NAMES.get(metric, metric) for metric in table.metrics), difference]


def cells(table: Table, row: Row) -> list[str]:
    """One row as text."""
    return [row.case, *(value_text(row.values[metric]) for metric in table.metrics), _difference_text(row)]


def value_text(value: Value) -> str:
    """`93.1 ± 0.4`, `93.1` for one result, or why there is none. A mean over fewer seeds says so."""
    reasons = "/".join(dict.fromkeys(reason.split(":")[0] for reason in value.missing))
    if value.mean is None:
        return reasons or "missing"
    text = f"{value.mean:.1f}" if value.std is None else f"{value.mean:.1f} ± {value.std:.1f}"
    return f"{text} (n={value.n}, rest {reasons})" if reasons else text


def _difference_text(row: Row) -> str:
    found = row.difference
    return "" if found is None else f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def caption(table: Table) -> list[str]:
    """What the numbers are, and what they cannot show; one sentence a line."""
    counts = sorted({value.n for row in table.rows for value in row.values.values() if value.n})
    lines = [
        f"Benchmark {table.benchmark}, {table.items} items; scores x100; mean ± standard deviation over"
        f" n = {', '.join(map(str, counts)) or '0'} results (one where greedy decoding of one model has no seed).",
        f"The last column compares these checkpoints with {table.baseline}: paired bootstrap over items (10,000"
        " resamples) of per-item CIDEr averaged over seeds. It says nothing about the variance of training.",
    ]
    if table.partial:
        lines.insert(0, "PARTIAL: only the first items were scored (benchmark limit).")
    lines += [f"{row.case}: {mark}." for row in table.rows for mark in row.marks]
    return lines + [f"Note: {note}." for note in table.notes] + _reasons(table)


def _reasons(table: Table) -> list[str]:
    """Every distinct reason for a missing value, with the rows it concerns."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        for reason in dict.fromkeys(reason for value in row.values.values() for reason in value.missing):
            found.setdefault(reason, []).append(row.case)
    return [f"{', '.join(cases)}: {reason}." for reason, cases in found.items()]


def markdown(found: list[Table], dynamics: str = "") -> str:
    """The report file.

    Args:
        dynamics: a section on how trainings went.
    """
    version = code_version()
    commit = f"commit {version['commit']}" if version["commit"] else "outside a checkout"
    dirty = ", with uncommitted changes" if version["dirty"] else ""
    parts = [f"# {found[0].grid}\n"]
    parts += [*(_markdown_table(table) for table in found), *([dynamics] if dynamics else [])]
    parts.append(f"Rendered by cwdpo {version['version']}, {commit}{dirty}: `cwdpo report {found[0].options}`\n")
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    titles = header(table)
    lines = [_line(titles), _line(["---"] + ["---:"] * (len(titles) - 1))]
    lines += [_line(cells(table, row)) for row in table.rows]
    origins = [f"- {row.case}: {', '.join(row.origins) or 'nothing yet'}" for row in table.rows]
    where = ["", "Where the numbers come from (folders of the store; `stage.json` in each names its parents):", ""]
    return "\n".join([f"## {table.benchmark}\n", *lines, "", *caption(table), *where, *origins, ""])


def _line(entries: list[str]) -> str:
    return "| " + " | ".join(entry.replace("|", "\\|") for entry in entries) + " |"


def as_json(found: list[Table]) -> list[dict[str, Any]]:
    """Everything, lossless."""
    result = []
    for table in found:
        content = asdict(table)
        for row, source in zip(content["rows"], table.rows, strict=True):
            row["difference"] = source.difference._asdict() if source.difference else None
        result.append(content)
    return result


def print_tables(found: list[Table]) -> None:
    """On the terminal; plain text where stdout is none."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=110)
    for table in found:
        shown = RichTable(title=escape(f"{table.grid} / {table.benchmark}"), title_justify="left")
        for position, title in enumerate(header(table)):
            shown.add_column(escape(title), justify="left" if position == 0 else "right")
        for row in table.rows:
            shown.add_row(*map(escape, cells(table, row)))
        console.print(shown)
        for line in caption(table):
            console.print(line, markup=False)
