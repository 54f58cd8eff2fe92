"""One rank of one job: `python -m cwdpo.jobs.worker JOBFILE` computes the job's stages, in order.

Rank 0 claims each stage, writes its provenance and publishes; the other ranks only compute. A stage that is done is
passed over, so a job that is run again does only what is missing.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cwdpo.base import distributed, files
from cwdpo.base.context import WATCHED, Share, StageContext, is_share
from cwdpo.base.errors import (
    Busy,
    ConfigError,
    CwdpoError,
    DataError,
    InputMissing,
    Interrupted,
    NotAvailable,
    PeersLost,
)
from cwdpo.base.runtime import Execution, Rank
from cwdpo.base.sources import source_digests
from cwdpo.base.stopping import Stop
from cwdpo.base.store import Artefact, Attempt, Store, lineage
from cwdpo.jobs.containers.image import image_here
from cwdpo.jobs.job import StageJob
from cwdpo.jobs.memory import peak_bytes, reset_peak
from cwdpo.model.inference import release
from cwdpo.pipeline import STAGES
from cwdpo.version import code_version

log = logging.getLogger("cwdpo")

LATE_SECONDS = 60.0
"""A network file system may tell that something does not exist for so long after it was made."""


def main(job: Mapping[str, Any], about: Mapping[str, Any]) -> int:
    """Run the stages of a job as this rank; returns the exit status.

    Args:
        job: what a job file holds.
        about: which job this is; kept in the claim of every attempt.
    """
    rank = Rank.from_environment()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    Stop.install()
    stages = [StageJob(**entry) for entry in job["stages"]]
    store = Store(Path(job["home"]))
    os.environ["CWDPO_HOME"] = str(store.home)  # what was fetched lies there
    try:
        with distributed.leaving():
            if any(STAGES[stage.stage].ranks for stage in stages):
                _prepare_torch(rank, job["threads"])
            return _run_all([Worker(store, stage, rank, about) for stage in stages])
    except CwdpoError as error:
        log.error("%s", error)
        return error.exit_code


def _run_all(workers: Sequence[Worker]) -> int:
    """Run stages in order; in a job of one process, a failed stage stops only those that read its result."""
    lost: set[str] = set()
    status = 0
    for worker in workers:
        if Stop.requested():
            raise Interrupted("stopped by a signal between two stages")
        if lost & {entry.get("id") for entry in worker.job.inputs.values()}:
            lost.add(worker.job.id)
            continue
        try:
            worker.run()
        except (DataError, ConfigError, NotAvailable) as error:
            if worker.rank.world_size > 1:  # the other ranks are in the middle of something
                raise
            log.error("%s", error)
            lost.add(worker.job.id)
            status = status or error.exit_code
    return status


class Worker:
    """One stage of a job on this rank."""

    def __init__(self, store: Store, job: StageJob, rank: Rank, about: Mapping[str, Any]) -> None:
        self.store, self.job, self.rank, self.about = store, job, rank, about
        self.stage = STAGES[job.stage]
        self.spec = self.stage.spec.model_validate(job.spec)
        self.sources = source_digests(self.stage.module, self.spec)
        self.parents: dict[str, str] = {}
        self.artefact = store.artefact(job.stage, job.id)

    def run(self) -> None:
        """Compute the stage unless it is done.

        Raises:
            Busy: another living process is computing it.
        """
        number = self._agreed(self._claim)
        if number == 0:
            return
        attempt = Attempt(self.artefact, number)
        started = time.monotonic()
        with _Captured(attempt, self.rank):
            log.info("%s %s: attempt %d", self.job.stage, self.job.id[:16], number)
            distributed.position(self.job.stage)
            try:
                with distributed.naming_missing(lambda message: self._record(attempt, PeersLost(message))):
                    self._compute(attempt)
                if self.rank.is_first:
                    attempt.publish(self._provenance(started))
            except BaseException as error:
                self._record(attempt, error)
                raise
            finally:
                attempt.stop_heartbeat()
        self._agreed(lambda: 0)  # no rank goes on before the files are there

    def _record(self, attempt: Attempt, error: BaseException) -> None:
        """Keep why the attempt ended: the rank that failed first says it, the others only notice."""
        log.error("%s", error if isinstance(error, CwdpoError) else traceback.format_exc())
        if not isinstance(error, Interrupted) and not (attempt.folder / "result.json").exists():
            with suppress(CwdpoError):
                attempt.fail(error)

    def _claim(self) -> int:
        """Number of the new attempt, 0 when the artefact is done, -1 when another process is at it."""
        if self.artefact.done():
            return 0
        try:
            self.artefact.describe(self.job.card)
            number = self.artefact.claim(self.about).number
        except Busy:
            return -1
        return 0 if self.artefact.done() else number  # it may have been finished between the look and the claim

    def _agreed(self, decide: Callable[[], int]) -> int:
        """What rank 0 decides, on every rank."""
        decision = distributed.from_first_rank(decide() if self.rank.is_first else 0, self.rank)
        if decision < 0:
            raise Busy(f"{self.artefact.folder.name} is being computed by another process")
        return decision

    def _compute(self, attempt: Attempt) -> None:
        if self.rank.is_first:
            reset_peak()
            attempt.start_heartbeat()
            attempt.event("started", host=platform.node(), ranks=self.rank.world_size)
        inputs = self._inputs()
        if self.rank.is_first:
            self._check_unfinished(attempt)
        self._agreed(lambda: 0)  # no rank looks for unfinished work before what is outdated is gone
        context = StageContext(
            spec=self.spec,
            inputs=inputs,
            out=attempt.out,
            partial=self.artefact.partial,
            cache=self.store.home / "cache",
            rank=self.rank,
            execution=Execution.model_validate(self.job.execution),
            event=attempt.event if self.rank.is_first else _silent,
            check=attempt.check,
            barrier=distributed.barrier,
            stopping=Stop.requested,
            share=Share(*self.job.share) if self.job.share else None,
        )
        if not self.stage.holds:
            release()
        importlib.import_module(self.stage.module).run(context)

    def _check_unfinished(self, attempt: Attempt) -> None:
        """Drop unfinished work on inputs that were computed anew since, and say what the rest is made by and on.

        `submit` asks before other code goes on with it.
        """
        kept = self.artefact.begun()
        if kept.get("parents", self.parents) != self.parents:
            log.info("an input was computed anew: unfinished work is dropped")
            attempt.event("outdated", dropped="unfinished work on what an input was before")
            files.remove_tree(self.artefact.partial)
            kept = {}
        if "parents" not in kept:
            files.write_json(
                self.artefact.begun_file, {"sources": kept.get("sources", self.sources), "parents": self.parents}
            )

    def _inputs(self) -> dict[str, Path]:
        """Folders of the inputs; those from the store are verified byte by byte before they are used.

        Shares of the stage's own work that were computed by other code, or from what an input was before, are not.
        """
        folders = self._folders({role: one for role, one in self.job.inputs.items() if not is_share(role)})
        own, parents = {"sources": self.sources, "parents": dict(self.parents)}, dict(self.parents)
        shares = {role: one for role, one in self.job.inputs.items() if is_share(role)}
        for role, folder in self._folders(shares).items():
            artefact = self.store.artefact(shares[role]["stage"], shares[role]["id"])
            done = artefact.done()
            made_by = artefact.made_by(done) if done else {}
            if {key: made_by.get(key) for key in own} == own:
                folders[role] = folder
            else:
                log.info("%s was computed from something else: its blocks are computed again", artefact.folder.name)
        self.parents = parents  # what is put together stands on what its shares stand on
        return folders

    def _folders(self, inputs: Mapping[str, Mapping[str, str]]) -> dict[str, Path]:
        """Checked folders by role; their lineages join `parents`."""
        folders = {}
        for role, entry in inputs.items():
            if "path" in entry:
                folders[role] = Path(entry["path"])
            else:
                artefact = self.store.artefact(entry["stage"], entry["id"])
                if not self._finished(artefact):
                    raise InputMissing(f"{self.job.stage}: its {role}, {artefact.folder.name}, is not finished")
                folders[role] = artefact.verified_files() if self.rank.is_first else artefact.files
                if role != WATCHED:
                    self.parents[role] = artefact.lineage()
        return folders

    def _finished(self, artefact: Artefact) -> bool:
        """True when an input is there. A job starts a second after its parent; its node may see the result later."""
        deadline = time.monotonic() + (LATE_SECONDS if "element" in self.about else 0)
        while artefact.done() is None and time.monotonic() < deadline:
            time.sleep(1)
            if artefact.folder.is_dir():
                os.listdir(artefact.folder)  # makes a network file system look again
        return artefact.done() is not None

    def _provenance(self, started: float) -> dict[str, Any]:
        """Where and by what it was computed; beside the identity, not in it."""
        return {
            **code_version(),
            "job": dict(self.about),
            "host": platform.node(),
            "python": platform.python_version(),
            "ranks": self.rank.world_size,
            "execution": self.job.execution,
            "seconds": round(time.monotonic() - started, 3),
            "peak_bytes": peak_bytes(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "packages": _versions(),
            "image": image_here(),
            **lineage(self.sources, self.parents),
        }


class _Captured:
    """Sends this process's stdout and stderr, C libraries included, to files of the attempt."""

    def __init__(self, attempt: Attempt, rank: Rank) -> None:
        suffix = "" if rank.is_first else f".{rank.rank}"
        self._targets = {1: attempt.folder / f"stdout{suffix}", 2: attempt.folder / f"stderr{suffix}"}
        self._kept: dict[int, int] = {}

    def __enter__(self) -> None:
        _flush()
        for descriptor, path in self._targets.items():
            self._kept[descriptor] = os.dup(descriptor)
            with files.writing(path), open(path, "ab") as file:
                os.dup2(file.fileno(), descriptor)

    def __exit__(self, *exception: object) -> None:
        _flush()
        for descriptor, kept in self._kept.items():
            os.dup2(kept, descriptor)
            os.close(kept)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _silent(*_: Any, **__: Any) -> None:
    """Events are rank 0's to write."""


def _prepare_torch(rank: Rank, threads: int) -> None:
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # loading bars make logs unreadable
    if threads:
        torch.set_num_threads(threads)
    distributed.start(rank)


def _versions() -> dict[str, str]:
    """Versions of what shapes a result, of the packages this process has loaded."""
    names = ("torch", "transformers", "peft", "deepspeed", "tokenizers", "numpy", "PIL", "pycocoevalcap")
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in names}
    return {name: str(version) for name, version in found.items() if version}


if __name__ == "__main__":
    sys.exit(main(files.read_json(Path(sys.argv[1])), {"job": sys.argv[1]}))
