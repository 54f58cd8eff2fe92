"""What `plan` and `status` print."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cwdpo.jobs.status import cell_statuses, failures
from cwdpo.pipeline import STAGES

if TYPE_CHECKING:
    from cwdpo.jobs.plan import Plan

STYLES = {"done": "green", "running": "cyan", "failed": "red", "damaged": "red", "stale": "yellow", "blocked": "yellow"}


def console() -> Console:
    """The terminal, or 110 columns of plain text where stdout is none."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=110)


def print_plan(plan: Plan) -> None:
    """Distinct stages, how many cells use each, and what is done."""
    states = plan.states()
    uses = Counter(node.id for wired in plan.wired.values() for node in wired.nodes())
    table = Table(title=escape(f"{plan.grid.name}: {plan.grid.description}"), title_justify="left")
    for title in ("stage", "id", "cells", "state", "reads"):
        table.add_column(title)
    for node in sorted(plan.nodes, key=lambda node: list(STAGES).index(node.stage.name)):
        state = states[node.id]
        reads = ", ".join(f"{parent.stage.name} {parent.id[:6]}" for parent in node.parents)
        shown = f"[{STYLES[state]}]{state}[/]" if state in STYLES else state
        table.add_row(node.stage.name, node.id[:16], str(uses[node.id]), shown, reads)
    screen = console()
    screen.print(table)
    done = sum(state == "done" for state in states.values())
    screen.print(
        f"{len(plan.grid.cells)} cells, {len(plan.nodes)} distinct stages"
        f" ({plan.naive_count()} if nothing were shared), {done} done"
    )


def print_status(plan: Plan) -> None:
    """Cells x stages, then every failure with its reason."""
    table = Table(title=escape(plan.grid.name), title_justify="left")
    rows = cell_statuses(plan)
    columns = [name for name in STAGES if any(name in row.stages for row in rows)]
    for title in ("cell", *columns):
        table.add_column(title)
    for row in rows:
        table.add_row(escape(f"{row.case}/{row.seed}"), *(_coloured(row.stages.get(name, "-")) for name in columns))
    screen = console()
    screen.print(table)
    for folder, reason in failures(plan):
        screen.print(f"{folder}: {reason}", markup=False, soft_wrap=True)  # a path broken in two cannot be copied


def _coloured(text: str) -> str:
    style = STYLES.get(text.split()[0])
    return f"[{style}]{text}[/]" if style else text


def status_json(plan: Plan) -> dict[str, Any]:
    """The same for a script."""
    cells = [{"case": row.case, "seed": row.seed, "stages": row.stages} for row in cell_statuses(plan)]
    return {"grid": plan.grid.name, "cells": cells, "failures": dict(failures(plan))}
