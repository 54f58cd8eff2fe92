"""What `status`, `logs`, `why` and `collect` print."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import typer

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, name_valid
from cwdpo.cli.app import Source, print_json
from cwdpo.cli.show import console, print_status, status_json
from cwdpo.cli.slurm import known
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, Shown
from cwdpo.jobs.slurm.reconcile import Book
from cwdpo.jobs.slurm.view import OnSlurm, causes, log_files, open_book, overlay_of

FOLLOW_SECONDS = 0.5
LOOK_SECONDS = 5.0  # between two looks at Slurm while a log is followed


def show_status(source: Source, every: bool, as_json: bool, interval: float | None) -> None:
    """Print how a grid stands; every `interval` seconds until Ctrl-C where that is given."""
    while True:
        plan = source.plan()
        overlay = overlay_of(known(plan))
        if interval is not None:
            console().clear()
        print_json(status_json(plan, overlay)) if as_json else print_status(plan, every, overlay)
        if interval is None:
            return
        time.sleep(interval)


def show_why(plan: Plan, cell: str) -> int:
    """Print the chain of causes of a cell; 0 where it is done or under way, 1 where something failed."""
    _check_cell(plan, cell)
    book = known(plan)
    lines = causes(plan, cell, book)
    if not lines:
        typer.echo(f"{cell}: all done")
        for line in _gone(plan, cell, book):
            typer.echo(f"  {line}")
        return 0
    typer.echo(f"{cell}: not done, because")
    for line in lines:
        typer.echo(f"  {line}")
    failed = any(": failed " in line or ": failed: " in line or ": cancelled;" in line for line in lines)
    if failed:
        from cwdpo.report.render.words import on_cell

        options = plan.grid.options
        again = on_cell("cwdpo retry", cell, options) if book else f"cwdpo submit {options} --cluster local"
        typer.echo(f"when it is mended: {again}")
    return 1 if failed else 0


def _gone(plan: Plan, cell: str, book: Book | None) -> list[str]:
    """What finished results of a cell were computed from, as far as it is no longer whole and nothing is under way."""
    states, gone = _states(plan, book), ("missing", "damaged", "interrupted", "failed", "cancelled")
    nodes = [node for node in plan.wired[cell].nodes() if not node.share and states[node.id] in gone]
    return [
        f"but {node.title} {node.id[:16]}, which it was computed from, is {states[node.id]}; `cwdpo submit` computes it"
        " again"
        for node in nodes
    ]


def _check_cell(plan: Plan, cell: str) -> None:
    if cell not in plan.wired:
        raise ConfigError(f"unknown cell {name_valid(cell, plan.wired)}")


def show_logs(plan: Plan, cell: str, stage: str | None, follow: bool) -> None:
    """Print the logs of a cell's stage, oldest line first."""
    _check_cell(plan, cell)
    book = known(plan)
    node = _interesting(plan, cell, stage, book)
    paths = log_files(plan, node, book)
    if not paths and not follow:
        raise ConfigError(f"{node.stage.name} {node.id[:16]} of {cell} has no log: it was not started")
    read = {}
    for path in paths:
        content = path.read_bytes()
        read[path] = len(content)
        typer.echo(f"== {path}")
        typer.echo(content.decode("utf-8", "replace").rstrip("\n"))
    if follow:
        _follow(plan, node, book, read)


def _interesting(plan: Plan, cell: str, stage: str | None, book: Book | None) -> Node:
    """The one at work, else the one that failed, else the last one begun; of those that `stage` names, if given."""
    nodes = plan.wired[cell].nodes()
    if stage is not None:
        nodes = _named(nodes, stage)
    states = _states(plan, book)
    for wanted in ("running", "starting", "failed", "interrupted", "done"):
        found = [node for node in nodes if states[node.id].startswith(wanted)]
        if found:
            return found[-1]
    if stage is not None:
        return nodes[-1]
    raise ConfigError(f"{cell}: no stage was started yet")


def _named(nodes: Iterable[Node], stage: str) -> list[Node]:
    """All benchmarks and rounds of a stage."""
    named = [node for node in nodes if node.stage.name == stage]
    if not named:
        raise ConfigError(f"--stage: {name_valid(stage, {node.stage.name for node in nodes})}")
    return named


def _follow(plan: Plan, node: Node, book: Book | None, read: dict[Path, int]) -> None:
    """Print what is added to the newest attempt's log until nothing is under way; a new attempt is followed too.

    Args:
        read: bytes of each log that were printed already.
    """
    looked = -LOOK_SECONDS
    while True:
        over = node.artefact(plan.store).state() == "done"
        if not over and time.monotonic() - looked > LOOK_SECONDS:
            looked, book = time.monotonic(), open_book(plan) if book else None
            over = _states(plan, book)[node.id] not in ("running", "starting", "queued")
        _print_added(log_files(plan, node, book), read)
        if over:
            return
        time.sleep(FOLLOW_SECONDS)


def _print_added(paths: Iterable[Path], read: dict[Path, int]) -> None:
    for path in paths:
        with open(path, "rb") as file:
            file.seek(read.setdefault(path, 0))
            added = file.read()
        read[path] += len(added)
        typer.echo(added.decode("utf-8", "replace"), nl=False)


def _states(plan: Plan, book: Book | None) -> dict[str, Shown]:
    """How the stages stand, with what Slurm knows."""
    states = plan.states()
    return OnSlurm(book).states(states) if book else states


def collect(plan: Plan) -> int:
    """Write `report.md` and `gaps.json`; 1 where a cell lacks a score."""
    from cwdpo.cli.report import as_markdown, made_report
    from cwdpo.report.table import Wanted

    folder, book = plan.folder, known(plan)
    files.write_text(folder / "report.md", as_markdown(made_report(plan, Wanted())))
    gaps = {cell: found for cell in plan.wired if (found := causes(plan, cell, book))}
    files.write_json(folder / "gaps.json", gaps)
    typer.echo(f"{len(plan.wired) - len(gaps)} of {len(plan.wired)} cells complete; report in {folder / 'report.md'}")
    for cell, lines in gaps.items():
        typer.echo(f"{cell} is not done:\n" + "\n".join(f"  {line}" for line in lines))
    return 1 if gaps else 0
