"""One-core jobs beside the arrays: a collector that writes the report and flags gaps, a steward that reconciles.

$CWDPO_HOME/slurm/side/<name>/     the name is the unique name of the Slurm job
    intent.json                    what for, written before sbatch
    script.sh
    submitted.json                 Slurm's job id, written after sbatch
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.jobs.plan import SUBMITTED, Plan
from cwdpo.jobs.slurm import commands, standing
from cwdpo.jobs.slurm.batch import side_script
from cwdpo.jobs.slurm.desired import Desired
from cwdpo.jobs.slurm.ledger import Ledger, unique_name
from cwdpo.jobs.slurm.standing import ENDED, Standings
from cwdpo.jobs.slurm.submission import sbatch


@dataclass(frozen=True)
class Queued:
    """A side job that Slurm has.

    Attributes:
        waits: job ids of the arrays it waits for.
    """

    job: str
    waits: frozenset[str]


@dataclass(frozen=True)
class SideJobs:
    """The side jobs of a grid. Asking twice for the same changes nothing, also where the first time was cut off.

    Attributes:
        check: raises when this process lost the lock.
    """

    plan: Plan
    desired: Desired
    check: Callable[[], None] = lambda: None

    def collect(self, say: Callable[[str], None]) -> None:
        """See that one collector waits for every array that computes a stage of this grid; the one at work goes on."""
        waits = self._under_way()
        queued = [job for job in self._queued("collect") if job.job != os.environ.get("SLURM_JOB_ID")]
        fitting = [job for job in queued if waits <= job.waits]
        self._end([job for job in queued if job not in fitting[-1:]])
        if waits and not fitting:
            say(f"job {self._send('collect', ['collect'], waits)}: report and gaps, after all")

    def steward(self, say: Callable[[str], None]) -> None:
        """See that one steward is in the queue."""
        queued = self._queued("steward")
        self._end(queued[1:])
        if queued:
            say("the steward is in the queue already")
            return
        say(f"job {self._send('steward', ['reconcile', '--watch'], frozenset())}: steward")

    def cancel(self) -> None:
        """Take both away."""
        self._end([*self._queued("collect"), *self._queued("steward")])

    @property
    def folder(self) -> Path:
        """Where they are written down."""
        return Ledger(self.plan.store).folder / "side"

    def _under_way(self) -> frozenset[str]:
        """Job ids of arrays with a live element that computes a stage of this grid."""
        nodes = {node.id for node in self.plan.nodes}
        found = Standings(Ledger(self.plan.store)).all
        return frozenset(
            str(one.record.job_id)
            for one in found
            if one.live and one.record.job_id and any(identity in nodes for _, identity in one.element.nodes)
        )

    def _queued(self, purpose: str) -> list[Queued]:
        """The side jobs of a purpose that are in the queue, oldest first."""
        mine = {name: intent for name, intent in self._intents() if intent["purpose"] == purpose}
        unsure = {name for name in mine if not (self.folder / name / "submitted.json").exists()}
        youngest = max((float(mine[name]["created"]) for name in unsure), default=0.0)
        standing.wait_until_old(youngest, standing.ADOPTION_SECONDS)
        queue = [entry for entry in commands.queue() if entry.name in mine and entry.state not in ENDED]
        for entry in queue:
            if entry.name in unsure:
                self._acknowledge(entry.name, entry.job)
        return [Queued(e.job, frozenset(mine[e.name]["waits"])) for e in sorted(queue, key=lambda entry: entry.name)]

    def _acknowledge(self, name: str, job_id: str) -> None:
        files.write_json(self.folder / name / "submitted.json", {"job_id": job_id, "time": time.time()})

    def _intents(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and intent of every side job that was ever meant for this grid."""
        paths = sorted(self.folder.glob("cwdpo-*/intent.json"))
        found = [(path.parent.name, files.read_json(path)) for path in paths]
        return [(name, intent) for name, intent in found if intent["grid"] == self.plan.grid.name]

    def _end(self, jobs: Sequence[Queued]) -> None:
        if jobs:
            self.check()
            commands.cancel([job.job for job in jobs])

    def _send(self, purpose: str, command: list[str], waits: frozenset[str]) -> str:
        """Write the name down, then submit under it: cut off in between, the next one finds it by that name."""
        grid, home = self.plan.grid.name, self.plan.store.home.resolve()
        name = unique_name(grid, purpose)
        line = [*command, "--grid", str(home / "grids" / grid / SUBMITTED), "--home", str(home)]
        folder = self.folder / name
        intent = {"purpose": purpose, "grid": grid, "created": time.time(), "waits": sorted(waits)}
        self.check()
        with files.folder_written_whole(folder) as temporary:
            (temporary / "intent.json").write_text(json.dumps(intent), encoding="utf-8")
            text = side_script(folder, name, self.desired.cluster, self.desired.code, line)
            (temporary / "script.sh").write_text(text, encoding="utf-8")
        self.check()
        options = [f"--dependency=afterany:{':'.join(sorted(waits))}"] if waits else []
        job_id = sbatch(name, folder / "script.sh", options, lambda text: None)
        self._acknowledge(name, job_id)
        return job_id
