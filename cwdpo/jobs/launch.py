"""Starting the ranks of one job as processes of this machine, and ending them."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PORTS = range(20000, 32768)  # below the ephemeral range, which other programs draw from


@dataclass
class Launched:
    """The processes of one job."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def exit_status(self) -> int | None:
        """None while running; a non-zero status ends the other ranks too.

        A rank that was killed counts before those that only noticed.
        """
        statuses = [process.poll() for process in self.processes]
        failed = sorted(status for status in statuses if status)
        if failed:
            self.end(grace=0.0)
            return failed[0]
        return None if None in statuses else 0

    def ask(self) -> None:
        """Ask every rank to save and stop."""
        for process in self.processes:
            _signal_group(process, signal.SIGTERM)

    def end(self, grace: float) -> None:
        """Wait up to `grace` seconds, then kill what is left, children included."""
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(process.poll() is None for process in self.processes):
            time.sleep(0.05)
        for process in self.processes:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def launch(job: Path, ranks: int, threads: int, gpus: Sequence[str], started: Launched | None = None) -> Launched:
    """Start `ranks` workers on a job file; their own output before a stage captures it goes beside the job file.

    Args:
        started: gets the processes one by one; who is interrupted on the way knows those that run.
    """
    port = free_port()
    started = started or Launched()
    for rank in range(ranks):
        environment = _environment(rank, ranks, threads, port, gpus)
        with open(job.with_suffix(f".{rank}.log"), "ab") as log, _undisturbed():
            process = subprocess.Popen(
                [sys.executable, "-m", "cwdpo.jobs.worker", str(job)],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            started.processes.append(process)
    return started


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold Ctrl-C back for a moment: cut off inside of `Popen`, nobody would know of the process it made."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        signal.raise_signal(signal.SIGINT)


def _environment(rank: int, ranks: int, threads: int, port: int, gpus: Sequence[str]) -> Mapping[str, str]:
    settings = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "CWDPO_JOB_TOKEN": f"{os.getpid()}.{port}",
        **settings_of_ranks(threads),
    }
    if gpus:
        settings["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return {**os.environ, **settings}


def settings_of_ranks(threads: int) -> dict[str, str]:
    """What every rank is started with, here and on a cluster."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # a job reads what was fetched before; compute nodes have no internet
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    """A port of `PORTS` nobody listens on now."""
    for port in random.Random(time.time_ns()).sample(PORTS, 64):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise OSError(f"no free port found in {PORTS.start}-{PORTS.stop - 1}")
