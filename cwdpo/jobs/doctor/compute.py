"""One rank of the probe: `python -m cwdpo.jobs.doctor.compute FOLDER` writes what it finds beside the request.

Under srun it is one of several; started by hand it is one that RANK, WORLD_SIZE, ... describe.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from cwdpo.base.runtime import Rank
from cwdpo.jobs.doctor.check import Finding, failure, guarded
from cwdpo.jobs.doctor.request import Answer, Request
from cwdpo.jobs.launch import settings_of_ranks
from cwdpo.jobs.slurm.task import environment_of_rank

NO_END = "the ranks did not come to an end of their exchange"


def main(folder: Path) -> int:
    """Look at the node, write it down, then meet the other ranks, who may never come."""
    request = Request.read(folder)
    os.environ.update(_settings(request, folder))  # before numpy and torch read the number of threads
    rank = Rank.from_environment()
    node = os.environ.get("CWDPO_NODE") or socket.gethostname()
    findings = tuple(_alone(request, rank, folder))
    stuck = failure("all-reduce", NO_END, "the log of the job says more; NCCL_DEBUG=INFO in the profile's environment")
    Answer(rank.rank, node, False, (*findings, stuck)).write(folder)
    together, clock = _together(request, rank, folder)
    Answer(rank.rank, node, True, (*findings, *together), clock).write(folder)
    return 0


def _settings(request: Request, folder: Path) -> dict[str, str]:
    slurm = environment_of_rank(os.environ, request.ports, 0) if "SLURM_PROCID" in os.environ else {}
    patience = {
        "CWDPO_JOIN_TIMEOUT": str(request.join_seconds),
        "CWDPO_COLLECTIVE_TIMEOUT": str(request.exchange_seconds),
        "CWDPO_HOME": str(folder.parent.parent),  # as a worker has it: what was fetched lies there
    }
    return settings_of_ranks(request.cpus_per_task) | slurm | patience


def _alone(request: Request, rank: Rank, folder: Path) -> list[Finding]:
    """What concerns the node is for its first rank to say."""
    from cwdpo.jobs.doctor.gpu import check_gpus
    from cwdpo.jobs.doctor.node import check_node

    own = list(guarded("GPUs", check_gpus, request.gpus_per_node, request.tasks_per_node, rank))
    first = rank.rank % request.tasks_per_node == 0
    return [*own, *(check_node(request, folder) if first else [])]


def _together(request: Request, rank: Rank, folder: Path) -> tuple[list[Finding], float | None]:
    from cwdpo.jobs.doctor.exchange import Exchange

    exchange = Exchange(rank, folder, request.nodes)
    return list(guarded("all-reduce", exchange.run)), exchange.clock


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
