"""What `submit` does on any cluster; on this machine, progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from cwdpo.base.errors import ConfigError, CwdpoError, Interrupted
from cwdpo.cli.app import Source
from cwdpo.jobs.clusters import LocalCluster, SlurmCluster, check_slurm, load_cluster
from cwdpo.jobs.events import last_progress
from cwdpo.jobs.local import LocalExecutor, Outcome
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.prepare import OnStale, prepare
from cwdpo.jobs.ranks import check_ranks

if TYPE_CHECKING:
    from rich.progress import TaskID

    from cwdpo.graph import Node


@dataclass(frozen=True)
class Wishes:
    """How to submit."""

    on_stale: OnStale = "refuse"
    dry_run: bool = False
    watch: bool = False
    steward: bool = False
    rehearse: bool = False


def submit_grid(source: Source, cluster_name: str | None, wishes: Wishes) -> int:
    """Compute what is missing; returns the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if wishes.rehearse:
        from cwdpo.cli.rehearse import rehearse

        return rehearse(source, cluster_name, wishes)
    cluster = load_cluster(cluster_name)
    if isinstance(cluster, SlurmCluster):
        from cwdpo.cli.slurm import submit_slurm

        if not wishes.dry_run:
            if not shutil.which("sbatch"):  # what is wrong with the grid or the home is worth more than that
                source.plan(writable=True)
            name = cluster_name or os.environ.get("CWDPO_CLUSTER") or "default"
            elsewhere = "log in to the cluster, or say --cluster local to compute on this machine"
            check_slurm(f"cluster '{name}' needs Slurm", elsewhere)
        return submit_slurm(source, cluster, wishes)
    wrong = [name for name in ("dry_run", "watch", "steward") if getattr(wishes, name)]
    if wrong:
        raise ConfigError(f"--{wrong[0].replace('_', '-')} is for a Slurm cluster; this one computes while you wait")
    return _submit_local(source.plan(writable=True), cluster.resolved(), wishes)


def _submit_local(plan: Plan, cluster: LocalCluster, wishes: Wishes) -> int:
    check_ranks(plan.grid, cluster)
    plan = prepare(plan, wishes.on_stale, typer.echo)
    with reporting(plan) as reporter:
        outcome = LocalExecutor(plan, cluster, reporter).run()
    return conclude(plan, outcome)


def _interrupt(number: int, frame: object) -> None:
    """A closed terminal or a `kill` ends the jobs as Ctrl-C does."""
    raise Interrupted(f"stopped by {signal.Signals(number).name}; the same command goes on where it stopped")


def reporting(plan: Plan) -> Lines:
    """Who tells what happens: bars on a terminal, lines elsewhere."""
    return Bars(plan) if sys.stdout.isatty() else Lines(plan)


def conclude(plan: Plan, outcome: Outcome, wanted: int | None = None) -> int:
    """Say how a submission ended; returns the exit status.

    Args:
        wanted: how many stages it was to compute, where these are not all of the plan.
    """
    total = len(plan.nodes) if wanted is None else wanted
    done = total - len(outcome.failed) - len(outcome.blocked)
    typer.echo(f"{done} of {total} stages done ({len(outcome.computed)} computed now)")
    if outcome.failed:
        names = ", ".join(f"{node.stage.name} {node.id[:16]}" for node in outcome.failed)
        typer.echo(f"failed: {names}; {len(outcome.blocked)} stage(s) wait for them", err=True)
        typer.echo(f"see `cwdpo status {plan.grid.options}`; the same submit tries again", err=True)
        return 1
    return 0


class Lines:
    """One line per event, for logs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.began = time.monotonic()
        self.finished_count = 0
        self.total = len(plan.nodes)

    def __enter__(self) -> Lines:
        done = sum(node.artefact(self.plan.store).state() == "done" for node in self.plan.nodes)
        self.finished_count = done
        self._say(f"{self.total} stages, {done} already done")
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def started(self, node: Node) -> None:
        """Announce a stage."""
        self._say(f"start  {_label(node)}")

    def progressed(self, running: Sequence[Node]) -> None:
        """Nothing: lines are for what begins and ends."""

    def finished(self, node: Node, seconds: float) -> None:
        """Count it."""
        self.finished_count += 1
        self._say(f"done   {_label(node)} in {seconds:.0f} s  [{self.finished_count}/{self.total}]")

    def failed(self, node: Node, message: str) -> None:
        """Say why, at once."""
        self._say(f"FAILED {_label(node)}: {message}")

    def waiting(self, node: Node) -> None:
        """Say that the work is not lost."""
        self._say(f"wait   {_label(node)}: another process is computing it")

    def _say(self, text: str) -> None:
        typer.echo(f"[{time.monotonic() - self.began:6.0f} s] {text}")


class Bars(Lines):
    """A bar for the whole grid and one per running stage."""

    def __enter__(self) -> Bars:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # Without a thread of its own, for which rich does not wait: a process that ends meanwhile may be aborted.
        self._progress = Progress(*columns, auto_refresh=False)
        self._progress.start()
        self._bars: dict[str, TaskID] = {}
        super().__enter__()
        self._whole = self._progress.add_task(self.plan.grid.name, total=self.total, completed=self.finished_count)
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def started(self, node: Node) -> None:
        """A new bar, without a total until the stage reports one."""
        self._bars[node.id] = self._progress.add_task(_label(node), total=None)

    def progressed(self, running: Sequence[Node]) -> None:
        """Move the bars to the newest events."""
        for node in running:
            try:
                found = last_progress(node.artefact(self.plan.store))
            except (OSError, CwdpoError):
                continue
            if found and node.id in self._bars:
                self._progress.update(self._bars[node.id], completed=found[0], total=found[1])
        self._progress.refresh()

    def finished(self, node: Node, seconds: float) -> None:
        """Drop its bar, move the whole."""
        super().finished(node, seconds)
        self._progress.remove_task(self._bars.pop(node.id))
        self._progress.update(self._whole, completed=self.finished_count)

    def failed(self, node: Node, message: str) -> None:
        """Drop its bar and say why."""
        super().failed(node, message)
        self._progress.remove_task(self._bars.pop(node.id))

    def _say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


def _label(node: Node) -> str:
    name = getattr(getattr(node.spec, "objective", None), "name", "")
    seed = getattr(node.spec, "seed", None)
    detail = f" {name} seed {seed}" if name else ""
    return f"{node.title}{detail} ({node.id[:8]})"
