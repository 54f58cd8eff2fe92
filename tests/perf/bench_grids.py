"""`plan`, `status` and what `submit` does before the first job, on grids of 1,000 and 5,000 cells.

The stores are made up (`tests/pretend.py`): folders in the real format with small files, nothing was computed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from measure import best, command, publish
from pretend import pretend_done, write_grid

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.experiment import load_grid
from cwdpo.jobs.job import job_content
from cwdpo.jobs.plan import Plan, make_plan
from cwdpo.jobs.prepare import prepare

DEMO = "the demo grid, 10 cells"


def main() -> None:
    """Time the commands and write results/grids.md."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        grid = write_grid(home / "big.yaml", first=5, second=50, seeds=10)
        whole = plan_of(grid, home / "finished")
        pretend_done(whole, whole.nodes)
        partly = plan_of(grid, home / "partly")
        left = late_nodes(partly, [cell.name for cell in partly.grid.cells[::16]])
        pretend_done(partly, [node for node in partly.nodes if node.id not in left])
        homes = {"nothing done": "empty", "15 of 16 done": "partly", "all done": "finished"}
        works: dict[str, Callable[[], object]] = {}
        for name in ("status", "plan"):
            works[f"{name}: {DEMO}"] = command(name, "-g", "demo", "--home", home / "empty")
            for label, place in homes.items():
                works[f"{name}: 5,000 cells, {label}"] = command(name, "-g", grid, "--home", home / place)
            works[f"{name} --all: 5,000 cells, all done"] = command(
                name, "--all", "-g", grid, "--home", home / "finished"
            )
        trainings = write_grid(home / "trainings.yaml", first=34, second=1, seeds=10)  # 340 Stage 1, 680 Stage 2
        works["before the first job: 1,020 trainings"] = lambda: before_the_first_job(trainings, home / "new")
        seconds = best(works, rounds=3)
    base = {name: seconds[f"{name}: {DEMO}"] for name in ("status", "plan")}
    rows = [
        (name, f"{value:.2f}", f"{value / base.get(name.split(':')[0].split()[0], base['plan']):.1f}")
        for name, value in seconds.items()
    ]
    notes = (
        f"5,000 cells are {len(whole.nodes)} distinct stages here. Made-up stores on a local disk. Before the first"
        " job: reading the grid, wiring it, preparing the store, writing grid.json and plan.json, and the content of"
        " every job. Commands are whole processes, interpreter start included; that last row is not."
    )
    publish(__file__, "Big grids", ("what", "seconds (best of 3)", "times the demo grid"), rows, notes)


def plan_of(grid: Path, home: Path) -> Plan:
    """A grid in a home."""
    return make_plan(load_grid(str(grid)), Store(home))


def late_nodes(plan: Plan, cells: Sequence[str]) -> set[str]:
    """Ids of the generations and scores of some cells."""
    nodes = [node for cell in cells for node in plan.wired[cell].nodes()]
    return {node.id for node in nodes if node.stage.name in ("generate", "score")}


def before_the_first_job(grid: Path, home: Path) -> None:
    """What `submit` does with a new grid before anything starts."""
    files.remove_tree(home)
    plan = plan_of(grid, home)
    prepare(plan, "refuse")
    plan.write()
    for node in plan.nodes:
        job_content(plan.store, [node], threads=1)


if __name__ == "__main__":
    main()
