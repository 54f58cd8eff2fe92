"""A real Slurm of a few virtual nodes for tests, started and stopped by the scripts in slurm/."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import workers

SCRIPTS = Path(__file__).resolve().parents[2] / "slurm"
PORTS = range(15000, 19900, 100)
"""Bases to choose from, below the ephemeral ports; a cluster takes base ... base + 10 + nodes."""


PATIENCE = 5
"""A wait in a test ends what hangs, it measures nothing: a busy machine has so many times what an idle one needs."""


def wait_until(condition: Callable[[], object], seconds: float, what: str = "") -> None:
    """Poll until the condition holds; AssertionError after `PATIENCE` times so many seconds."""
    end = time.monotonic() + PATIENCE * seconds
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE * seconds:g} s: {what or condition}"
        time.sleep(0.1)


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_base(nodes: int) -> int:
    mine = workers.share(PORTS)
    bases = random.sample(mine, len(mine))
    return next(base for base in bases if all(_is_free(base + offset) for offset in (0, 1, 2, *range(10, 10 + nodes))))


class Cluster:
    """One cluster; `options` are those of `slurm/start.sh --help`."""

    def __init__(self, root: Path, **options: object) -> None:
        self.root = root
        """Folder of configuration, logs and state, gone after `stop`; its name must have at most 70 characters."""
        self.options = {"NODES": 4, **options}

    @property
    def env(self) -> dict[str, str]:
        """This process's environment with this cluster's SLURM_CONF and nothing else of Slurm."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))}
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        return {**kept, "SLURM_CONF": str(self.root / "slurm.conf"), "PATH": path}

    def start(self) -> Cluster:
        """Start and wait until all nodes are idle; does nothing where it runs."""
        self.options.setdefault("BASEPORT", _free_base(int(str(self.options["NODES"]))))
        self._script("start.sh", *(f"{key}={value}" for key, value in self.options.items()))
        return self

    def stop(self) -> None:
        """End all daemons and jobs and remove the folder."""
        self._script("stop.sh")

    def kill_node(self, name: str) -> None:
        """A power cut: daemon and all processes of jobs on that node are gone, and Slurm knows."""
        self._script("fault.sh", "kill", name)

    def revive_node(self, name: str) -> None:
        """Switch a killed node on again and wait until it is idle."""
        self._script("fault.sh", "revive", name)

    def stop_controller(self) -> None:
        """End slurmctld; running jobs go on."""
        self._script("fault.sh", "stop", "controller")

    def start_controller(self) -> None:
        """Start slurmctld again with the state it saved, and wait until it knows the GPUs of its nodes again."""
        self._script("fault.sh", "start", "controller")
        look = ("sbatch", "--test-only", f"--nodes={self.options['NODES']}", "--gpus-per-node=1", "--wrap=true")
        wait_until(lambda: self.attempt(*look).returncode == 0, 60, "all nodes have told what they have")

    def _script(self, name: str, *arguments: str) -> None:
        line = [str(SCRIPTS / name), *arguments, f"ROOT={self.root}"]
        done = subprocess.run(line, env=self.env, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"{' '.join(line)}\n{done.stdout}{done.stderr}"

    def attempt(self, *command: object, seconds: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in this cluster to its end; `more` are environment variables."""
        line = [str(part) for part in command]
        return subprocess.run(
            line, env={**self.env, **more}, cwd=self.root, capture_output=True, text=True,
            timeout=PATIENCE * seconds, check=False,
        )  # fmt: skip

    def run(self, *command: object, seconds: float = 60, **more: str) -> str:
        """What a command printed, stripped, after checking that it ended well."""
        done = self.attempt(*command, seconds=seconds, **more)
        for _ in range(PATIENCE):  # a look may be repeated; a busy controller answers late
            if done.returncode == 0 or command[0] == "sbatch" or "timed out" not in done.stderr:
                break
            done = self.attempt(*command, seconds=seconds, **more)
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def sbatch(self, script: str, *arguments: object) -> str:
        """Submit a bash script; the job id."""
        file = self.root / f"script-{time.monotonic_ns()}.sh"
        file.write_text(f"#!/bin/bash\n{script}\n")
        return self.run("sbatch", "--parsable", "--output=/dev/null", *arguments, file)

    def states(self, *jobs: str) -> dict[str, str]:
        """Job or element (`12` or `12_3`) -> state, of all that the controller still knows."""
        lines = self.run("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        found = dict(line.split() for line in lines)
        return {job: state for job, state in found.items() if not jobs or job.partition("_")[0] in jobs}

    def wait_for(self, state: str, *jobs: str, seconds: float = 60) -> None:
        """Wait until each job or element is in that state."""
        found: dict[str, str] = {}

        def arrived() -> bool:
            found.update(self.states())
            return all(found.get(job) == state for job in jobs)

        try:
            wait_until(arrived, seconds)
        except AssertionError:
            seen = {job: found.get(job) for job in jobs}
            raise AssertionError(f"not {state} within {PATIENCE * seconds:g} s: {seen}") from None

    def cancel_all(self) -> None:
        """End every job and wait until the queue is empty."""
        self.run("scancel", "--quiet", "--state=PENDING", f"--user={os.getuid()}")
        self.run("scancel", "--quiet", f"--user={os.getuid()}")
        wait_until(lambda: not self.run("squeue", "--noheader"), 60, "empty queue")

    def processes(self) -> list[str]:
        """Command lines of everything alive that has this cluster's folder in command line or environment."""
        return [line for _, line in _mentioning(f"{self.root}/")]

    def processes_of(self, job: str) -> list[tuple[int, str]]:
        """Process id and command line of everything that runs in a job, its step daemons left out."""
        found = []
        for pid, line in _mentioning(f"SLURM_CONF={self.root}/slurm.conf\0"):
            with suppress(OSError):
                if f"SLURM_JOB_ID={job}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append((pid, line))
        return found

    def log_tails(self, lines: int = 30) -> Iterator[tuple[str, str]]:
        """Name and end of each daemon's log."""
        files = (self.root / "log").glob("*.*")
        for file in sorted(file for file in files if file.suffix == ".log" or not file.with_suffix(".log").exists()):
            text = file.read_text(errors="replace").strip()
            if text:
                yield file.name, "\n".join(text.splitlines()[-lines:])


def _mentioning(text: str) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if text.encode() in line + environment:
            yield int(folder.name), line.replace(b"\0", b" ").decode(errors="replace")
