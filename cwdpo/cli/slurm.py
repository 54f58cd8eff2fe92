"""What `submit`, `reconcile`, `retry` and `cancel` do on a Slurm cluster, and what they print."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cwdpo.base.errors import Busy, ConfigError, Interrupted, StoreError, name_valid
from cwdpo.cli.app import Source
from cwdpo.jobs.clusters import SlurmCluster, check_slurm
from cwdpo.jobs.containers.image import Image, identify, keep
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.prepare import prepare
from cwdpo.jobs.ranks import check_ranks
from cwdpo.jobs.slurm import commands
from cwdpo.jobs.slurm.commands import SlurmDown, SlurmError
from cwdpo.jobs.slurm.desired import Desired, path_of, wanted_by_others
from cwdpo.jobs.slurm.dryrun import names, write_dry_run
from cwdpo.jobs.slurm.ledger import Ledger, Settled
from cwdpo.jobs.slurm.lock import locked
from cwdpo.jobs.slurm.reconcile import WAIT_SECONDS, Book, Outcome, Pass, forgive, reconcile, take_away
from cwdpo.jobs.slurm.side import SideJobs
from cwdpo.jobs.slurm.snapshot import snapshot
from cwdpo.jobs.slurm.standing import Standings, adopt, strays
from cwdpo.jobs.slurm.submission import Submission
from cwdpo.jobs.slurm.view import open_book

if TYPE_CHECKING:
    from cwdpo.cli.submit import Wishes

POLL_SECONDS = 10.0
SOON_SECONDS = 60.0  # a start that is expected within this time needs no mention


def submit_slurm(source: Source, cluster: SlurmCluster, wishes: Wishes) -> int:
    """Send what is missing to Slurm; returns the exit status."""
    plan = source.plan(writable=True)
    check_ranks(plan.grid, cluster)
    if wishes.dry_run:
        return _dry_run(plan, cluster)
    with locked(Ledger(plan.store).folder / "lock", WAIT_SECONDS, typer.echo) as check:
        outcome = _submit(plan, cluster, wishes, check)
    _tell(plan, outcome)
    return watch(plan) if wishes.watch else 0


def _submit(plan: Plan, cluster: SlurmCluster, wishes: Wishes, check: Callable[[], None]) -> Outcome:
    """One submission; the lock is held."""
    plan = prepare(plan, wishes.on_stale, typer.echo)
    desired = _desire(plan, cluster, {node.id for node in plan.nodes})
    check()
    _forgive(plan, desired, kinds={"cancelled"})
    _preflight(plan, desired)
    check()
    _write_down(plan, desired)
    outcome = Pass(plan, desired, check, typer.echo).run()
    side = SideJobs(plan, desired, check)
    side.collect(typer.echo)
    if wishes.steward:
        side.steward(typer.echo)
    return outcome


def _desire(plan: Plan, cluster: SlurmCluster, nodes: set[str]) -> Desired:
    """What is asked for from now on, with the code and the image as they are at this moment."""
    code = snapshot(Ledger(plan.store).folder / "code")
    return Desired(cluster, code, frozenset(nodes) | _wanted_before(plan), _image(plan, cluster, say=typer.echo))


def _wanted_before(plan: Plan) -> frozenset[str]:
    """What was asked for until now; nothing where that cannot be read any more: it is about to be written anew."""
    try:
        before = Desired.read(plan)
    except StoreError:
        typer.echo(f"{path_of(plan)} is damaged: writing it anew")
        return frozenset()
    return before.nodes if before else frozenset()


def _write_down(plan: Plan, desired: Desired) -> None:
    """The grid as it is submitted: what a refused submission asked for must not count as what the grid needs."""
    plan.write()
    desired.write(plan)


def _image(
    plan: Plan, cluster: SlurmCluster, write: bool = True, say: Callable[[str], None] = lambda text: None
) -> Image | None:
    """The image of the profile as it is at this moment; `write` gives it a name that stays."""
    if cluster.container.image is None:
        return None
    cache = plan.store.home / "digests"
    found = identify(Path(cluster.container.image).expanduser().absolute(), cache)
    say(f"image {found.short}: {found.path}")
    return keep(found, Ledger(plan.store).folder / "images", cache) if write else found


def _preflight(plan: Plan, desired: Desired) -> None:
    """Ask Slurm about every shape of job before any is submitted."""
    book = Book(plan, desired, Standings(Ledger(plan.store)))
    submission = Submission(plan, desired.cluster, desired.code, desired.image)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + SOON_SECONDS))
    for kind, sentence in submission.preflight(book.missing, book.queued):
        start = re.search(r"start at (\S+)", sentence)
        if start and start[1] > soon:
            typer.echo(f"{kind}: Slurm expects to start such a job at {start[1]}")


def _forgive(plan: Plan, desired: Desired, kinds: set[str] | None = None, cells: list[str] | None = None) -> int:
    """Let failures count no longer; all kinds, all cells where nothing else is said."""
    book = Book(plan, desired, Standings(Ledger(plan.store)))
    wanted = nodes_of(plan, cells)
    found = [name for name, why in book.given_up.items() if name in wanted and (kinds is None or why.kind in kinds)]
    return forgive(book, found)


def nodes_of(plan: Plan, cells: list[str] | None) -> set[str]:
    """Ids of the stages of cells; `cells` are CASE/SEED or CASE, None is all.

    Raises:
        ConfigError: no such cell.
    """
    names = list(plan.wired)
    if cells is None or not cells:
        return {node.id for node in plan.nodes}
    chosen: set[str] = set()
    for cell in cells:
        found = [name for name in names if name == cell or name.rpartition("/")[0] == cell]
        if not found:
            raise ConfigError(f"unknown cell {name_valid(cell, [*names, *plan.grid.cases])}")
        chosen |= set(found)
    return {node.id for name in chosen for node in plan.wired[name].nodes()}


def retry(source: Source, cells: list[str] | None) -> int:
    """Try again what failed, with the code as it is now."""
    plan = source.plan(writable=True)
    _check_known(plan)
    with locked(Ledger(plan.store).folder / "lock", WAIT_SECONDS, typer.echo) as check:
        before = _submitted(plan)
        desired = _desire(plan, before.cluster, nodes_of(plan, cells))
        check()
        _write_down(plan, desired)
        count = _forgive(plan, desired, cells=cells)
        typer.echo(f"{count} failure(s) count no longer")
        outcome = Pass(plan, desired, check, typer.echo).run()
        SideJobs(plan, desired, check).collect(typer.echo)
    _tell(plan, outcome)
    return 0


def cancel(source: Source, cells: list[str] | None) -> int:
    """Take waiting and running jobs of cells away; what other cells need stays."""
    plan = source.plan()
    _check_known(plan)
    with locked(Ledger(plan.store).folder / "lock", WAIT_SECONDS, typer.echo) as check:
        adopt(Standings(Ledger(plan.store)), typer.echo)
        check()
        commands.cancel(strays(Standings(Ledger(plan.store))))
        desired = _submitted(plan)
        wanted = nodes_of(plan, cells)
        kept = {node.id for cell, wired in plan.wired.items() for node in wired.nodes()
                if not {node.id for node in wired.nodes()} <= wanted}  # fmt: skip
        kept |= wanted_by_others(plan)
        book = Book(plan, desired, Standings(Ledger(plan.store)))
        gone = [s for s in book.relevant if s.live and {name for _, name in s.element.nodes} <= wanted - kept]
        take_away(gone, lambda standing: Settled("cancelled", "cancelled", "cancelled by `cwdpo cancel`"))
        replace(desired, nodes=desired.nodes - (wanted - kept)).write(plan)
        if not cells:
            SideJobs(plan, desired, check).cancel()
    typer.echo(f"cancelled {len(gone)} job(s); `cwdpo submit {plan.grid.options}` starts them again")
    return 0


def _check_known(plan: Plan) -> None:
    """Raise where the grid was never submitted, or Slurm cannot be asked about it here."""
    _submitted(plan)
    check_slurm(f"grid '{plan.grid.name}' is on Slurm", "log in to its cluster")


def _submitted(plan: Plan) -> Desired:
    found = Desired.read(plan)
    if found is None:
        raise ConfigError(f"grid '{plan.grid.name}' was never submitted to Slurm from {plan.store.home}")
    return found


def reconcile_grid(source: Source, stay: bool) -> int:
    """One pass, or passes until all is settled."""
    plan = source.plan(writable=True)
    _check_known(plan)
    if stay:
        return watch(plan)
    _tell(plan, reconcile(plan, typer.echo))
    return 0


def known(plan: Plan) -> Book | None:
    """What is known of a grid on Slurm, after a pass on the way of another command; None of one that is not there.

    What cannot be read is said, and what is known without it is shown all the same.
    """
    faults, book = _passed(plan), None
    try:
        book = open_book(plan, look=not faults)
    except StoreError as error:
        faults += [str(error), "going on without what Slurm knows"]
    for fault in dict.fromkeys(faults):
        typer.echo(f"warning: {fault}", err=True)
    return book


def _passed(plan: Plan) -> list[str]:
    """What went wrong in a pass, unless somebody else is at one."""
    try:
        if Desired.read(plan) and shutil.which("sbatch"):
            reconcile(plan, lambda text: typer.echo(text, err=True), wait=0)
    except Busy:
        pass
    except (SlurmError, StoreError) as error:
        return [str(error)]
    return []


def watch(plan: Plan) -> int:
    """Reconcile until nothing is under way; returns 1 where something was given up.

    Raises:
        Interrupted: a signal, such as the one before the time limit of a steward's job.
    """
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, _interrupt)
    said = ""
    while True:
        outcome, text = _look(plan)
        if text != said:
            typer.echo(f"{time.strftime('%H:%M:%S')} {text}")
            said = text
        if outcome and outcome.settled:
            return _conclude(plan, outcome)
        time.sleep(POLL_SECONDS)


def _look(plan: Plan) -> tuple[Outcome | None, str]:
    """What a pass did, and one line about it; None where it has to be tried again: who watches stays."""
    try:
        outcome = reconcile(plan, typer.echo)
        return outcome, _summary(plan, outcome)
    except (SlurmDown, Busy) as error:
        return None, str(error)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}; what is in the queue goes on")


def _summary(plan: Plan, outcome: Outcome) -> str:
    done = sum(node.artefact(plan.store).done() is not None for node in plan.nodes)
    left = f", {outcome.left} stages wait for room in the queue" if outcome.left else ""
    failed = f", {len(outcome.given_up)} given up" if outcome.given_up else ""
    return f"{done} of {len(plan.nodes)} stages done, {outcome.live} jobs in the queue{left}{failed}"


def _tell(plan: Plan, outcome: Outcome) -> None:
    typer.echo(_summary(plan, outcome))
    if outcome.left:
        typer.echo(
            "The rest is submitted as the queue empties, by any cwdpo command on this grid: stay with `submit --watch`,"
            " or let a job do it with `submit --steward`."
        )
    _conclude(plan, outcome)


def _conclude(plan: Plan, outcome: Outcome) -> int:
    for identity, why in outcome.given_up.items():
        stage = next(node.stage.name for node in plan.nodes if node.id == identity)
        typer.echo(f"failed: {stage} {identity[:16]}: {why.kind}: {why.message}", err=True)
    if outcome.given_up:
        typer.echo(
            f"see `cwdpo why CELL {plan.grid.options}`; when it is mended, `cwdpo retry {plan.grid.options}`", err=True
        )
    return 1 if outcome.given_up else 0


def _dry_run(plan: Plan, cluster: SlurmCluster) -> int:
    """Write what would be submitted."""
    folder = plan.store.home / "grids" / plan.grid.name / "dry-run"
    ledger = Ledger(plan.store)
    code = snapshot(ledger.folder / "code", write=False)
    desired = Desired(cluster, code, frozenset(node.id for node in plan.nodes))
    look = shutil.which("squeue") is not None
    book = Book(plan, desired, Standings(ledger, look=look))
    submission = Submission(plan, cluster, code, _image(plan, cluster, write=False))
    arrays = submission.arrays(book.missing, book.queued)
    write_dry_run(submission, arrays, folder)
    ids = {name: name for name in names(submission, arrays)}
    for array in arrays:
        waits = array.dependency(ids)
        typer.echo(f"{array.name}: {array.kind} x {len(array.elements)}{f', after {waits}' if waits else ''}")
    if look:
        for kind, sentence in submission.preflight(book.missing, book.queued):
            typer.echo(f"preflight {kind}: {sentence}")
    done = " (every stage is done or in the queue)" if not arrays else ""
    typer.echo(f"{len(arrays)} arrays, {sum(len(array.elements) for array in arrays)} jobs{done}; nothing submitted")
    typer.echo(f"scripts, job files, dag.mmd and dag.dot are in {_shown(folder)}")
    return 0


def _shown(path: Path) -> Path:
    with suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
