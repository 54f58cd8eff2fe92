"""Sites that are less kind than the usual test cluster: no requeue, a short memory, accounting with limits.

The work of jobs is made up (`made_up/sitecustomize.py`); what Slurm does to them is not.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster, wait_until
from slurm_grid import Run, stand_in_for, sweep


def at_work(run: Run, *cells: str) -> None:
    """Wait until the trainings of these cells are at their first steps."""
    wait_until(lambda: all(run.steps("stage1", cell) > 1 for cell in cells), 60, f"{cells} train")


def kill_without_a_trace(run: Run, element: str) -> None:
    """SIGKILL to every process of a job, stopped before: nobody notices that another one is gone, or says anything."""
    job = run.cluster.run("squeue", "--noheader", "--jobs", element, "--format", "%A")
    found = sorted(run.cluster.processes_of(job), key=lambda entry: "slurm_script" not in entry[1])
    assert "slurm_script" in found[0][1], found
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid, _ in found:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def settled(run: Run, stage: str, cell: str) -> list[tuple[str, str]]:
    """State and kind of failure of each element that was to compute a stage, oldest first."""
    identity = run.node(stage, cell).id
    return [
        (found[index].state, found[index].kind)
        for record in run.ledger
        for found in [record.settled]
        for index, element in record.elements.items()
        if index in found and identity in [name for _, name in element.nodes]
    ]


@pytest.fixture(scope="module")
def accounted(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A site with slurmdbd, whose controller soon forgets, and which ends jobs that take more memory than they said."""
    limits = "JobAcctGatherParams=OverMemoryKill\nJobAcctGatherFrequency=task=1"
    return make_cluster(ACCOUNTING="slurmdbd", MINJOBAGE=2, EXTRA=limits)


@dataclass(frozen=True)
class CutOff:
    """Trainings that did not hear the signal before their end, as Slurm knows them."""

    run: Run
    late: str
    cancelled: str


@pytest.fixture(scope="module")
def cut_off(accounted: Cluster, tmp_path_factory: pytest.TempPathFactory) -> CutOff:
    """Slurm looks at time limits twice a minute only."""
    run = sweep(accounted, tmp_path_factory.mktemp("cut_off"))
    run.work.rule("stage1", hold=True, deaf=True)
    run.ok("submit")
    at_work(run, "sft/0", "sft/1", "sft/2")
    late, running = run.element("stage1", "sft/0"), run.element("stage1", "sft/1")
    accounted.run("scontrol", "update", f"jobid={late}", "endtime=now+1")
    accounted.run("scancel", running, run.element("score", "sft/2"))
    return CutOff(run, late, running)


# No requeue


@pytest.fixture(scope="module")
def no_requeue(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A site whose jobs are not requeued unless they ask for it."""
    return make_cluster(JOBREQUEUE=0, NODES=2, REQUEUEDELAY=5)


def test_jobs_ask_to_be_requeued(no_requeue: Cluster, tmp_path: Path) -> None:
    """Asked to save, as before a time limit, and a dead node: the same job goes on, and its children wait for it."""
    run = sweep(no_requeue, tmp_path, "seeds=[0,1]")
    run.work.rule("stage1", hold=True)
    run.ok("submit")
    at_work(run, "sft/0", "sft/1")
    asked, lost = run.element("stage1", "sft/0"), run.element("stage1", "sft/1")
    node = no_requeue.run("squeue", "--noheader", "--jobs", lost, "--format", "%B")
    no_requeue.run("scancel", "--signal=USR2", asked)
    no_requeue.kill_node(node)
    wait_until(lambda: "back to the queue" in job_log(run, 0), 30, "the job asks for it")
    no_requeue.revive_node(node)
    run.work.rule("stage1")
    run.wait(60)
    assert run.is_done("score", "sft/0"), run.cwdpo("why", "sft/0").stdout
    assert run.is_done("score", "sft/1"), run.cwdpo("why", "sft/1").stdout
    assert (run.element("stage1", "sft/0"), run.element("stage1", "sft/1")) == (asked, lost), "no second job"
    assert run.artefact("stage1", "sft/0").newest() == 2


def job_log(run: Run, index: int) -> str:
    """What an element of the newest training array said."""
    return (run.records("train")[-1] / "logs" / f"{index}.out").read_text()


@pytest.mark.campaign
def test_where_requeue_is_refused_another_job_goes_on(no_requeue: Cluster, tmp_path: Path) -> None:
    """A `scontrol` that refuses (made up: this Slurm allows it to everybody) is first on the PATH of the jobs."""
    refuse = '[[ $1 != requeue ]] || { echo "scontrol: error: Access/permission denied" >&2; exit 1; }'
    folder = stand_in_for("scontrol", tmp_path / "bin", refuse)
    run = sweep(no_requeue, tmp_path, "seeds=[0,1]", more=f'environment: {{PATH: "{folder}:{no_requeue.env["PATH"]}"}}')
    run.work.rule("stage1", hold=True)
    run.ok("submit")
    at_work(run, "sft/0", "sft/1")
    first, child = run.element("stage1", "sft/0"), run.element("generate", "sft/0")
    no_requeue.run("scancel", "--signal=USR2", first)
    no_requeue.wait_for("FAILED", first)
    assert "Access/permission denied" in job_log(run, 0)
    shown = run.ok("reconcile")
    second = run.element("stage1", "sft/0")
    assert second != first, shown
    assert f"{child} (generate sft/0) now waits for afterok:{second}" in shown, shown
    assert settled(run, "stage1", "sft/0") == [("failed", "interrupted")]
    run.work.release("stage1")
    run.wait(60)
    assert run.is_done("score", "sft/0"), run.cwdpo("why", "sft/0").stdout
    assert run.is_done("score", "sft/1"), "its sibling kept its own chain"


# A short memory


@pytest.fixture(scope="module")
def forgetful(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A site whose controller soon forgets jobs that have ended, without accounting."""
    return make_cluster(MINJOBAGE=2)


def test_what_slurm_has_forgotten_is_known_all_the_same(forgetful: Cluster, tmp_path: Path) -> None:
    """One training done, one failed, one killed without a trace; then Slurm knows none of them."""
    run = sweep(forgetful, tmp_path)
    run.work.rule("stage1", hold=True)
    run.rule("stage1", "sft/1", fail=["DataError", "images/7.png: cannot be decoded"])
    run.rule("stage1", "sft/0")
    run.ok("submit")
    at_work(run, "sft/2")
    killed = run.element("stage1", "sft/2")
    kill_without_a_trace(run, killed)
    array = killed.partition("_")[0]
    wait_until(lambda: run.is_done("score", "sft/0") and not forgetful.states(array), 60, "Slurm forgets")
    assert run.stages("sft/0")["score"] == "done"
    assert run.stages("sft/1")["stage1"] == "failed"
    assert settled(run, "stage1", "sft/1") == [("failed", "data")]
    assert settled(run, "generate", "sft/1") == [("reaped", "dependency")], "it does not start without its input"
    assert settled(run, "stage1", "sft/2") == [("failed", "lost")]

    for _ in range(2):
        again = run.element("stage1", "sft/2")
        assert again != killed, "it is tried again, under another number"
        at_work_again(run, again)
        kill_without_a_trace(run, again)
        wait_until(lambda job=again: forgetful.states().get(job) in (None, "FAILED"), 60, "it ended")
        run.ok("reconcile")
        killed = again
    assert run.element("stage1", "sft/2") == killed, "not for ever"
    assert settled(run, "stage1", "sft/2") == [("failed", "lost")] * 3
    why = run.cwdpo("why", "sft/2")
    assert why.returncode == 1
    assert "failed 3 times: lost: it ended and nobody said why" in why.stdout, why.stdout
    run.work.rule("stage1")
    run.rule("stage1", "sft/1")
    run.rule("stage1", "sft/2")
    run.ok("retry")
    run.wait(60)
    assert all(run.is_done("score", f"sft/{seed}") for seed in range(3)), run.ok("status")


def at_work_again(run: Run, element: str) -> None:
    """Wait until a training runs in this job."""
    run.cluster.wait_for("RUNNING", element)
    before = run.steps("stage1", "sft/2")
    wait_until(lambda: run.steps("stage1", "sft/2") > before + 1, 60, f"{element} trains")


# Accounting


@pytest.mark.campaign
def test_accounting_tells_ends_apart_that_left_no_trace(cut_off: CutOff) -> None:
    """Cut off by the time limit, cancelled by hand while running, and while waiting; the controller has forgotten."""
    run, late, running = cut_off.run, cut_off.late, cut_off.cancelled
    ended, array = {late, running}, late.partition("_")[0]
    wait_until(lambda: not ended & run.cluster.states(array).keys(), 60, "the controller forgets")
    run.ok("reconcile")
    assert settled(run, "stage1", "sft/0") == [("failed", "time_limit")]
    assert settled(run, "stage1", "sft/1") == [("cancelled", "cancelled")]
    assert settled(run, "score", "sft/2") == [("cancelled", "cancelled")]
    assert run.element("stage1", "sft/0") != late, "what the time limit cut off goes on"
    assert run.element("stage1", "sft/1") == running, "what somebody cancelled does not"
    run.cluster.cancel_all()


@pytest.mark.campaign
def test_a_job_that_takes_more_memory_than_it_said(accounted: Cluster, tmp_path: Path) -> None:
    """Slurm ends it: each time it is to take less, until there is nothing less to take."""
    run = sweep(accounted, tmp_path, "seeds=[0]", more="sbatch: {mem-per-cpu: 200M}")
    run.work.rule("stage1", take=400)
    assert run.submit("--watch").returncode == 1
    (rounds,) = [path.read_text().splitlines() for path in (run.records("train")[0] / "rounds").iterdir()]
    rows = [json.loads(line) for line in rounds]
    assert [row["class"] for row in rows] == ["memory"] * 4, rows
    assert [row["changes"] for row in rows] == [
        {"micro_batch": 2},
        {"micro_batch": 1},
        {"micro_batch": 1, "gradient_checkpointing": True},
        {},
    ]
    why = run.cwdpo("why", "sft/0").stdout
    assert re.search(r"failed once: memory: out of memory: .*nothing can be smaller", why), why


def test_an_account_that_is_not_there(accounted: Cluster, tmp_path: Path) -> None:
    run = sweep(accounted, tmp_path, more="account: nonsense")
    refused = run.submit()
    assert refused.returncode == 6
    assert "cluster profile, account: nonsense" in refused.stderr, refused.stderr
    assert run.ledger == []
    assert "Traceback" not in refused.stderr


def test_more_jobs_than_the_site_allows(accounted: Cluster, tmp_path: Path) -> None:
    """Nobody told the profile: what Slurm took stays, the error names the key, and with it the rest follows."""
    accounted.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=7")
    try:
        run = sweep(accounted, tmp_path)
        run.work.rule("stage1", hold=True)
        refused = run.submit()
        assert refused.returncode == 6, refused.stdout + refused.stderr
        assert "cluster profile, max_submit: no limit" in refused.stderr, refused.stderr
        first = run.element("stage1", "sft/0")
        told = sweep_again(run, "max_submit: 7")
        shown = told.ok("submit")
        assert told.element("stage1", "sft/0") == first, "what was submitted stays"
        run.work.release("stage1")
        told.ok("submit", "--watch")
        assert all(told.is_done("score", f"sft/{seed}") for seed in range(3)), shown
    finally:
        accounted.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")
        accounted.cancel_all()


def sweep_again(run: Run, more: str) -> Run:
    """The same with another profile."""
    return Run(run.cluster, run.home, run.grid, run.settings, nodes=1, tasks=1, more=more, work=run.work)
