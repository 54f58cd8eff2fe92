"""A worker whose stages are each asked to stop after STEPS steps, and which goes on to the next stage then.

`python tests/unsteady_worker.py JOBFILE STEPS`: one process leaves many stages half done, always at the same step, as
so many interrupted jobs would. Stages that fail are passed over too.
"""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.errors import CwdpoError
from cwdpo.base.store import Store
from cwdpo.graph import Node
from cwdpo.jobs import worker
from cwdpo.jobs.job import write_job
from cwdpo.jobs.launch import Launched, _environment, free_port

plain_run = worker.Worker.run


def run_unsteadily(self: worker.Worker) -> None:
    """`Worker.run`, which asks once a step whether to stop and hears yes at the last one."""
    calls = itertools.count(1)
    worker.Stop.requested = lambda: next(calls) >= int(sys.argv[2])  # type: ignore[method-assign]
    try:
        plain_run(self)
    except CwdpoError as error:
        logging.info("passed over: %s", error)
    finally:
        worker.Stop.requested = lambda: False  # type: ignore[method-assign]


def start(home: Path, nodes: Sequence[Node], steps: int, ranks: int = 1) -> Launched:
    """`harness.start` with unsteady workers."""
    path = home / "jobs" / f"{uuid.uuid4().hex[:8]}.json"
    write_job(path, Store(home), nodes, threads=1)
    port = free_port()
    started = Launched()
    for rank in range(ranks):
        with open(path.with_suffix(f".{rank}.log"), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, str(path), str(steps)],
                env=_environment(rank, ranks, 1, port, []), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        started.processes.append(process)
    return started


if __name__ == "__main__":
    worker.Worker.run = run_unsteadily  # type: ignore[method-assign]
    sys.exit(worker.main(files.read_json(Path(sys.argv[1])), {"job": sys.argv[1]}))
