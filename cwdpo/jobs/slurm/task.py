"""One rank under srun: `python -m cwdpo.jobs.slurm.task ARRAYFOLDER INDEX ROUND CHANGES` computes one element.

The only place that reads Slurm's variables of a rank: a worker started by hand inside an allocation does not see them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cwdpo.base.errors import CwdpoError, Fenced, StoreError
from cwdpo.base.stopping import Stop
from cwdpo.base.watch import complain
from cwdpo.jobs.launch import settings_of_ranks
from cwdpo.jobs.slurm.ledger import Record

RESTART_STRIDE, ROUND_STRIDE = 1009, 101  # primes, so that a port is not soon tried again


def main(folder: Path, index: int, number: int, changes: Mapping[str, Any]) -> int:
    """Compute the element as this rank; returns the exit status.

    Args:
        folder: of the array in the ledger.
        number: how often the element was started before in this allocation.
        changes: to `execution`, that earlier failures asked for; the same for every rank, as the host script read it.
    """
    record = Record(folder)
    if record.abandoned:
        raise Fenced(f"{folder.name} was given up: ending")
    job = job_of(folder, index, changes)
    ports = record.intent["cluster"]["ports"]
    os.environ.update(settings_of_ranks(job["threads"]) | environment_of_rank(os.environ, ports, number))
    from cwdpo.jobs import worker  # numpy reads the number of threads when it is imported

    return worker.main(job, about(os.environ, folder, index, number))


def environment_of_rank(environ: Mapping[str, str], ports: tuple[int, int], number: int) -> dict[str, str]:
    """What a rank has to know about the others, from what srun tells it."""
    hosts = hosts_of(environ)
    return {
        "RANK": environ["SLURM_PROCID"],
        "LOCAL_RANK": str(_device(environ)),
        "WORLD_SIZE": environ.get("SLURM_STEP_NUM_TASKS") or environ["SLURM_NTASKS"],
        "MASTER_ADDR": hosts[0],
        "MASTER_PORT": str(port_of(environ, ports, number)),
        "CWDPO_JOB_TOKEN": f"{environ['SLURM_JOB_ID']}.{_restart(environ)}.{number}",
        "CWDPO_HOSTS": " ".join(hosts),
        "CWDPO_NODE": environ.get("SLURMD_NODENAME", ""),
    }


def hosts_of(environ: Mapping[str, str]) -> list[str]:
    """Hosts of the step, rank 0's first."""
    from submitit.slurm.slurm import _parse_node_list  # `SlurmJobEnvironment.hostnames` knows the job's only

    hosts: list[str] = _parse_node_list(environ.get("SLURM_STEP_NODELIST") or environ["SLURM_JOB_NODELIST"])
    return hosts


def port_of(environ: Mapping[str, str], ports: tuple[int, int], number: int) -> int:
    """Where ranks meet: jobs that follow each other get different ports, and so does each start of one job."""
    first, last = ports
    shift = int(environ["SLURM_JOB_ID"]) + RESTART_STRIDE * _restart(environ) + ROUND_STRIDE * number
    return first + shift % (last - first + 1)


def _restart(environ: Mapping[str, str]) -> int:
    return int(environ.get("SLURM_RESTART_COUNT") or 0)


def _device(environ: Mapping[str, str]) -> int:
    """Index of this rank's GPU among those it sees: where a site shows each rank its own only, that is the first."""
    local = int(environ["SLURM_LOCALID"])
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    return local % len(visible.split(",")) if visible else local


def job_of(folder: Path, index: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What element `index` computes, with `changes` to its `execution`.

    Raises:
        StoreError: it is not in the array, or unreadable.
    """
    job = _line_of(folder / "jobs.jsonl", index)
    stages = [{**stage, "execution": {**stage["execution"], **changes}} for stage in job["stages"]]
    return {**job, "stages": stages}


def _line_of(path: Path, index: int) -> dict[str, Any]:
    """The line of an element; the others, up to a thousand, are not parsed."""
    pattern = re.compile(rf'"index": {index}\b')
    try:
        with open(path, encoding="utf-8") as lines:
            found = (json.loads(line) for line in lines if pattern.search(line))
            job: dict[str, Any] | None = next((row for row in found if row["index"] == index), None)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    if job is None:
        raise StoreError(f"{path}: no element {index}")
    return job


def about(environ: Mapping[str, str], folder: Path, index: int, number: int) -> dict[str, Any]:
    """Which job and which run of it this is, for claims and provenance."""
    return {
        "element": f"{folder.name}/{index}",
        "array": folder.name,
        "index": index,
        "run": [_restart(environ), number],
        "slurm_job": environ["SLURM_JOB_ID"],
        "slurm_array": environ.get("SLURM_ARRAY_JOB_ID", ""),
        "nodes": environ["CWDPO_HOSTS"].split(),
    }


def _run(arguments: list[str]) -> int:
    folder, index, number, changes = arguments
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    Stop.install()  # before the imports that take seconds
    try:
        return main(Path(folder), int(index), int(number), json.loads(changes))
    except CwdpoError as error:
        complain(str(error))
        return error.exit_code
    finally:
        Stop.ignore()


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
