"""Sending a grid of about 1,400 jobs to Slurm, against submitit and sbatch job by job, in the same run.

Needs the packages of slurm/install.sh. The partition is down while it is timed: jobs wait, nothing runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import REPO, best, command, publish

sys.path.insert(0, str(REPO / "tests" / "slurm"))

from cluster import Cluster
from pretend import write_grid

from cwdpo.base import files

JOBS = 1000
PROFILE = REPO / "configs" / "clusters" / "one-machine.yaml"


def main() -> None:
    """Time the submissions and write results/submission.md."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder) / "slurm", MAXARRAY=2001).start()
        try:
            os.environ |= {key: cluster.env[key] for key in ("SLURM_CONF", "PATH")}
            cluster.run("scontrol", "update", "partitionname=main", "state=down")
            rows, notes = measured(cluster, Path(folder))
        finally:
            cluster.stop()
    publish(__file__, "Submitting", ("what", "seconds (best of 2)", "jobs", "ms a job"), rows, notes)


def measured(cluster: Cluster, folder: Path) -> tuple[list[tuple[str, str, str, str]], str]:
    """Rows of the table, and what they mean."""
    grid = write_grid(folder / "big.yaml", first=17, second=1, seeds=10)
    home = folder / "home"
    submit = command("submit", "-g", grid, "--home", home, "-c", PROFILE)
    works: dict[str, Callable[[], object]] = {
        "cwdpo submit, a new grid, as arrays with element-wise dependencies": submit,
        f"submitit, {JOBS} jobs one by one": lambda: submitit_jobs(folder / "single"),
        f"submitit, one array of {JOBS}, no dependencies": lambda: submitit_array(folder / "array"),
        f"sbatch, {JOBS} jobs one by one": lambda: sbatch_jobs(folder),
    }

    def empty() -> None:
        cluster.cancel_all()
        files.remove_tree(home)

    seconds = best(works, rounds=2, before=empty)
    empty()
    submit()
    queued = len(cluster.run("squeue", "--noheader", "--array").splitlines()) - 1  # the collector
    again = best({
        "cwdpo submit again, all in the queue": submit,
        "cwdpo status, all in the queue": command("status", "-g", grid, "--home", home),
    }, rounds=2)  # fmt: skip
    counts = [queued, JOBS, JOBS, JOBS, queued, queued]
    rows = [
        (name, f"{value:.2f}", str(count), f"{1000 * value / count:.1f}")
        for (name, value), count in zip([*seconds.items(), *again.items()], counts, strict=True)
    ]
    notes = (
        f"{queued} jobs of 1,361 stages in {len(list((home / 'slurm' / 'arrays').iterdir()))} arrays. Whole processes"
        " for cwdpo, with planning, the ledger and the code snapshot; submitit and sbatch are timed in one process"
        " that is running already, and plan nothing."
    )
    return rows, notes


def submitit_jobs(folder: Path) -> None:
    """One sbatch each, through submitit."""
    import submitit

    executor = submitit.AutoExecutor(folder)
    executor.update_parameters(timeout_min=5)
    for number in range(JOBS):
        executor.submit(abs, number)


def submitit_array(folder: Path) -> None:
    """One array through submitit."""
    import submitit

    executor = submitit.AutoExecutor(folder)
    executor.update_parameters(timeout_min=5, slurm_array_parallelism=JOBS)
    executor.map_array(abs, range(JOBS))


def sbatch_jobs(folder: Path) -> None:
    """One sbatch each, by hand."""
    script = folder / "job.sh"
    script.write_text("#!/bin/bash\ntrue\n")
    for _ in range(JOBS):
        subprocess.run(["sbatch", "--output=/dev/null", script], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
