"""`plan`, `status`, `report` and what `submit` does before the first job, on grids of 1,000 and 10,000 cells.

The stores are made up (`tests/pretend.py`): folders in the real format with small files and random scores, nothing was
computed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from measure import publish
from pretend import pretend_done, pretend_ended, write_grid
from processes import Cost, Line, cheapest, cost, cwdpo

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.job import job_content
from cwdpo.jobs.plan import Plan, make_plan
from cwdpo.jobs.prepare import prepare

CELLS = {
    "1,000": {"first": 5, "second": 10, "seeds": 10},
    "10,000": {"first": 10, "second": 50, "seeds": 10},
}
BENCHMARKS = {"12": {"first": 2, "second": 1, "seeds": 3}, "120": {"first": 4, "second": 5, "seeds": 3}}
"""Fewer cells, each with a score of as many items as COCO's test split has."""
ITEMS, COCO_ITEMS = 20, 5_000
INTERVALS = ("seeds+items", "items")
"""What reads the values per item."""
HOMES = {"nothing done": "empty", "15 of 16 done": "partly", "all done": "finished"}
"""How a store is called here -> its folder."""


def main() -> None:
    """Write the stores, time the commands and write results/grids.md."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for cells in CELLS:
            python("write", home / cells, cells, ITEMS)
        for cells in BENCHMARKS:
            python("write", home / cells, cells, COCO_ITEMS)
        found = {cells: cheapest(lines(home / cells), rounds=1) for cells in CELLS}
        by_items = {kind: [by_items_of(home / cells, kind) for cells in BENCHMARKS] for kind in INTERVALS}
    rows = [row(name, *(found[cells][name] for cells in CELLS)) for name in found["1,000"]]
    rows += [
        row(f"report --interval {kind}, {COCO_ITEMS:,} items a score (12 and 120 cells)", *costs)
        for kind, costs in by_items.items()
    ]
    columns = (
        "what",
        *(f"CPU seconds, {cells} cells" for cells in CELLS),
        "ratio",
        *(f"MB, {cells}" for cells in CELLS),
    )
    publish(__file__, "Big grids", columns, rows, NOTES)


NOTES = (
    f"Made-up stores on a local disk: 3,108 and 30,208 distinct stages, {ITEMS} items a score but in the last rows."
    " Whole processes, start included, each once; CPU time, which other work on the machine disturbs less than the"
    " clock. Where 1 of 16 cells is not done, half of those failed while they generated and half were not begun. Before"
    " the first job: reading the grid, wiring it, preparing the store, writing grid.json and plan.json, and the content"
    " of a job for every stage. A report again, of a store that nothing was written to since, compares the times of"
    " change of all that was looked at and reads no more. The last rows have 12 and 120 cells instead."
)


def python(*arguments: object) -> Cost:
    """This file in a process of its own, so that what it holds is not counted as what the commands hold."""
    return cost((sys.executable, __file__, *arguments))


def command(name: str, folder: Path, home: str, *options: str) -> Line:
    """A command on one of the stores of a grid."""
    return cwdpo(name, *options, "-g", folder / "big.yaml", "--home", folder / home)


def by_items_of(folder: Path, kind: str) -> Cost:
    """A report that reads the values per item."""
    return cost(command("report", folder, "finished", "--interval", kind))


def lines(folder: Path) -> dict[str, Line]:
    """Name -> command, for one grid."""
    found = {f"{name}, {label}": command(name, folder, HOMES[label]) for name in ("plan", "status") for label in HOMES}
    for label in ("15 of 16 done", "all done"):
        found[f"report, {label}"] = command("report", folder, HOMES[label])
        found[f"report again, unchanged, {label}"] = command("report", folder, HOMES[label])
    for name in ("plan --all", "status --all", "status --json", "report --json", "report --format=html"):
        found[f"{name}, all done"] = command(*name.split()[:1], folder, "finished", *name.split()[1:])
    found["before the first job"] = (sys.executable, __file__, "prepare", folder / "big.yaml", folder / "new")
    return found


def row(name: str, small: Cost, big: Cost) -> Sequence[str]:
    """One command on both grids."""
    seconds = (f"{small.seconds:.2f}", f"{big.seconds:.2f}", f"{big.seconds / small.seconds:.1f}")
    return (name, *seconds, f"{small.peak_mb:.0f}", f"{big.peak_mb:.0f}")


def write(folder: str, cells: str, items: str) -> None:
    """A grid, a store with all of it done, and one that shares most of its folders."""
    home = Path(folder)
    home.mkdir()
    grid = write_grid(home / "big.yaml", **{**CELLS, **BENCHMARKS}[cells])
    whole, partly = plan_of(grid, home / "finished"), plan_of(grid, home / "partly")
    pretend_done(whole, whole.nodes, items=int(items))
    ends = [late_nodes(partly, cell.name) for cell in partly.grid.cells[::16]]
    left = {node.id for nodes in ends for node in nodes}
    partly.store.folder.mkdir(parents=True)
    for node in partly.nodes:
        if node.id not in left:
            node.artefact(partly.store).folder.symlink_to(node.artefact(whole.store).folder)
    for generated, _ in ends[::2]:
        pretend_ended(partly.store, generated, failed=True)


def plan_of(grid: Path, home: Path) -> Plan:
    """A grid in a home."""
    return make_plan(load_grid(str(grid)), Store(home))


def late_nodes(plan: Plan, cell: str) -> list[Node]:
    """Generation and score of a cell."""
    return [node for node in plan.wired[cell].nodes() if node.stage.name in ("generate", "score")]


def before_the_first_job(grid: str, home: str) -> None:
    """What `submit` does with a new grid before anything starts."""
    files.remove_tree(Path(home))
    plan = plan_of(Path(grid), Path(home))
    prepare(plan, "refuse", print)
    plan.write()
    for node in plan.nodes:
        job_content(plan.store, [node], threads=1)


PARTS: dict[str, Callable[..., None]] = {"write": write, "prepare": before_the_first_job}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        PARTS[sys.argv[1]](*sys.argv[2:])
    else:
        main()
