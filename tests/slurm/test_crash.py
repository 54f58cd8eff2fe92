"""kill -9 of `cwdpo submit` at every point of its ledger, on a real Slurm: no job twice, none missing.

Jobs do not run here where nothing else is said: their partition is down, or somebody else has all nodes, so that the
queue shows at leisure what was submitted.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import commands
import pytest
from campaign import IN_FULL
from cluster import Cluster, wait_until
from crashes import QUICK, Element, Faults, Site, campaigns, deceive, instant, profiled, reap

from cwdpo.jobs.slurm.ledger import Settled

EVERY = 1 if IN_FULL else 3
"""At which points a submission is killed."""

HOMES = 3
"""So many homes share the points of a campaign: they wait for disk and controller, not for processors."""

IMPATIENT = {"TRIES": 2, "FIRST_WAIT_SECONDS": 0.1}
"""Instead of half a minute, where the controller stays away."""

BOTH_SIDE_JOBS = {"collect": 1, "steward": 1}


@pytest.fixture
def closed(slurm: Cluster) -> Iterator[Cluster]:
    """The cluster with its partition down: jobs are accepted and wait."""
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    yield slurm
    slurm.cancel_all()
    slurm.run("scontrol", "update", "partitionname=main", "state=up")


@pytest.fixture
def taken(slurm: Cluster) -> Iterator[Cluster]:
    """The cluster with all its nodes in the hands of another job: Slurm looks at dependencies, and nothing starts."""
    blocker = slurm.sbatch("sleep 600", "--nodes=4", "--exclusive", "--partition=high")
    slurm.wait_for("RUNNING", blocker)
    yield slurm
    slurm.cancel_all()


def test_killed_at_points_of_a_submission(closed: Cluster, tmp_path: Path) -> None:
    calm = Site(closed, tmp_path / "calm")
    expected = calm.planned()
    watched = Faults(tmp_path / "watched", calm.home)
    calm.ok("submit", "--steward", faults=watched)
    assert calm.check(side=BOTH_SIDE_JOBS) == expected
    calm.end()

    points = watched.seen[::EVERY]
    sites = [Site(closed, tmp_path / f"home{number}") for number in range(HOMES)]
    kills = campaigns(sites, points, tmp_path / "faults", "submit", "--steward")
    for site in sites:
        site.age_litter()
        site.ok("submit", "--steward")
        assert site.check(side=BOTH_SIDE_JOBS) == expected
    assert kills == len(points)
    assert len(watched.seen) > 50


def cancel_element(site: Site, stage: str, cell: str) -> Element:
    """Take an element out of the queue behind cwdpo's back: what waits for it can never start."""
    place = site.element(stage, cell)
    site.cluster.run("scancel", f"{place[0]}_{place[1]}")
    return place


def fail_element(site: Site, stage: str, cell: str) -> None:
    """The same, and a made-up note in the ledger that it failed for good."""
    job, index = cancel_element(site, stage, cell)
    record = next(record for record in site.records.values() if record.job_id == job)
    record.settle({index: Settled("failed", "code", "made up")})


def with_descendants(site: Site, stage: str, cell: str) -> set[str]:
    """Ids of a stage and of everything that needs it."""
    root = [node for node in site.plan.wired[cell].nodes() if node.stage.name == stage][-1]
    found = {root.id}
    for node in site.plan.nodes:
        if any(parent.id in found for parent in node.parents):
            found.add(node.id)
    return found


KILLED_BEFORE = re.compile(r"lock|/grids/.*/(grid|plan|micro)\.|~|(generate|score)(/submitted.json)?$")
"""Points where one kill, in the test above, is enough."""


def killed_throughout(sites: Sequence[Site], folder: Path, *command: str) -> list[str]:
    """Watch a command in the first home, kill it at what was seen in the others, let it end well in all."""
    watched = Faults(folder / "watched", sites[0].home)
    sites[0].ok(*command, faults=watched)
    points = [point for point in watched.seen if not KILLED_BEFORE.search(point)]
    campaigns(sites[1:], points, folder, *command)
    for site in sites[1:]:
        site.ok(*command)
    return points


def counts(sites: Sequence[Site], **expected: Any) -> set[int]:
    """How many elements each has, after checking that they are right."""
    return {site.check(**expected) for site in sites}


@pytest.mark.campaign
def test_killed_at_every_point_of_what_follows_a_submission(taken: Cluster, tmp_path: Path) -> None:
    sites = [Site(taken, tmp_path / f"home{number}", settings=["seeds=[0]"]) for number in range(HOMES)]
    everything = sites[0].planned()
    nodes = {node.id for node in sites[0].plan.nodes}
    for site in sites:
        site.ok("submit")
        cancel_element(site, "stage1", "sft/0")
    passed = killed_throughout(sites, tmp_path / "another one takes its place", "submit")
    assert counts(sites) == {everything}

    for site in sites:
        fail_element(site, "stage1", "cw_dpo/0")
    lost = with_descendants(sites[0], "stage1", "cw_dpo/0")
    passed += killed_throughout(sites, tmp_path / "what needs it goes", "reconcile")
    (left,) = counts(sites, without=lost)
    assert left < everything

    passed += killed_throughout(sites, tmp_path / "it is tried again", "retry")
    assert counts(sites) == {everything}

    passed += killed_throughout(sites, tmp_path / "all goes", "cancel")
    assert counts(sites, without=nodes, side={}) == {0}
    kinds = ("settled", "rewired", "forgiven")
    assert {f"after replace /slurm/arrays/*/{kind}.json" for kind in kinds} <= set(passed)
    assert {f"after run {what}" for what in ("scancel", "scontrol", "sbatch train", "sbatch collect")} <= set(passed)


DECEITS = {
    "the parent dies first": "once && { kill -9 $PPID; sleep 1.5; }",
    "the parent dies while Slurm has the job": 'once && { $real "$@"; kill -9 $PPID; exit; }',
    "the answer is lost": """once && { $real "$@" >/dev/null; echo "sbatch: error: Batch job submission failed:" \
        "Socket timed out on send/recv operation" >&2; exit 1; }""",
    "the answer is lost and Slurm is slow": """once && { (sleep 1.5; $real "$@") </dev/null >/dev/null 2>&1 &
        echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1; }""",
    "Slurm is busy twice": """once || ! mkdir {folder}/twice 2>/dev/null || { echo "sbatch: error: Slurm temporarily" \
        "unable to accept job, sleeping and retrying" >&2; exit 1; }""",
}


@pytest.mark.parametrize("deceit", DECEITS)
def test_a_submission_that_slurm_answers_late_or_never(closed: Cluster, tmp_path: Path, deceit: str) -> None:
    """`sbatch` is a made-up one here that does it once, before or after the true one: such timing cannot be had else.

    A parent that dies takes the whole command with it; what it started goes on, as an sbatch does.
    """
    site = Site(closed, tmp_path / "home", settings=["seeds=[0]"])
    expected = site.planned()
    patient = Faults(tmp_path / "faults", site.home)
    text = DECEITS[deceit].replace("{folder}", str(tmp_path / "bin"))
    first = site.run("submit", faults=patient, **deceive(tmp_path / "bin", text))
    died = "dies" in deceit
    assert first.returncode == (-signal.SIGKILL if died else 0), first.stdout + first.stderr
    second = site.ok("submit", faults=patient)
    if deceit == "the parent dies while Slurm has the job":
        assert "adopted" in second
    time.sleep(2 if "first" in deceit or "slow" in deceit else 0)  # what comes late is there now
    site.ok("submit", faults=patient)
    assert site.check() == expected


@pytest.fixture(scope="module")
def small(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A site that forgets jobs soon and allows arrays of three elements; its commands give up soon.

    Jobs of the partition `closed` are accepted and wait.
    """
    more = "MessageTimeout=2\nPartitionName=closed Nodes=ALL State=DOWN"
    return make_cluster(MINJOBAGE=2, MAXARRAY=3, NODES=2, EXTRA=more)


def twice(site: Site) -> list[str]:
    """Stages that a job found computed already."""
    path = site.home / "slurm" / "twice"
    return path.read_text().split() if path.exists() else []


def done(site: Site) -> int:
    """How many stages are there."""
    plan = site.plan
    return sum(node.artefact(plan.store).done() is not None for node in plan.nodes)


def test_an_orphan_that_slurm_has_forgotten(small: Cluster, tmp_path: Path) -> None:
    """Its jobs ran and ended while nobody knew their number: what the first of them left tells, or else the store."""
    sites = [
        instant(Site(small, tmp_path / name, settings=["seeds=[0]"]), max_array=3) for name in ("noted", "finished")
    ]
    for site in sites:
        faults = Faults(site.home.with_suffix(".faults"), site.home, kill=["after run sbatch prepare"])
        assert site.run("submit", faults=faults).returncode == -signal.SIGKILL
    records = [record for site in sites for record in site.records.values()]
    wait_until(lambda: all(record.started for record in records), 20, "jobs that start")
    wait_until(lambda: not small.states(), 60, "Slurm forgets")
    (sites[1].home / "slurm" / "arrays" / records[1].name / "started").unlink()
    shown = [site.ok("submit") for site in sites]
    assert f"adopted {records[0].name}" in shown[0]
    assert f"gave up {records[1].name}" in shown[1]
    assert not [text for text in shown if re.search(r"job \d+: prepare", text)]
    small.cancel_all()
    assert [twice(site) for site in sites] == [[], []]


def test_indices_stay_below_the_limit_of_the_site(small: Cluster, tmp_path: Path) -> None:
    site = profiled(Site(small, tmp_path / "home"), max_array=3, partition="closed")
    expected = site.planned()
    site.ok("submit")
    assert site.check() == expected
    assert max(entry.place[1] for entry in site.queue()) == 2
    wrong = profiled(Site(small, tmp_path / "wrong"), max_array=1001, partition="closed")
    refused = wrong.run("submit")
    assert refused.returncode == 6
    assert "cluster profile, max_array: 1001" in refused.stderr
    assert "MaxArraySize" in refused.stderr
    assert wrong.records == {}
    assert wrong.queue() == []
    small.cancel_all()


def test_no_more_jobs_than_the_site_allows(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """A grid of 28 elements where a user may have 9 jobs: `reconcile` sends the next ones as the first are through."""
    cluster = make_cluster(ACCOUNTING="slurmdbd", MAXSUBMIT=9, NODES=2)
    site = instant(Site(cluster, tmp_path / "home"), max_submit=9)
    assert "28 jobs in the queue" not in site.ok("submit", "--steward")
    most, waves = 0, 0
    for _ in range(40):
        most = max(most, len(site.queue()))
        waves += "job " in site.ok("reconcile").replace("jobs in", "")
        if done(site) == len(site.plan.nodes):
            break
    else:
        raise AssertionError(f"{done(site)} stages done")
    assert most <= 9
    assert waves >= 2
    assert twice(site) == []
    cluster.cancel_all()


def test_two_shells_at_once(closed: Cluster, tmp_path: Path) -> None:
    site = Site(closed, tmp_path / "home", settings=["seeds=[0]"])
    expected = site.planned()
    together = reap(*[site.start("submit") for _ in range(3)])
    assert [status for status, _ in together] == [0, 0, 0], together
    assert sum(f"{expected} jobs in the queue" in text for _, text in together) == 3
    assert sum(": prepare x 1" in text for _, text in together) == 1
    assert site.check() == expected

    bigger = Site(closed, tmp_path / "home")
    together = reap(bigger.start("submit"), bigger.start("reconcile"), bigger.start("submit"), site.start("reconcile"))
    assert [status for status, _ in together] == [0] * 4, together
    bigger.check()


def test_who_holds_the_lock_is_killed_while_another_waits(closed: Cluster, tmp_path: Path) -> None:
    site = Site(closed, tmp_path / "home")
    expected = site.planned()
    faults = Faults(tmp_path / "faults", site.home, stop="before run sbatch generate")
    first = site.start("submit", faults=faults)
    wait_until(lambda: faults.fired, 30, "the first one has stopped")
    second = site.start("submit", faults=Faults(tmp_path / "quick", site.home))
    assert second.stdout is not None
    assert f"waiting for process {first.pid} on " in second.stdout.readline()
    time.sleep(0.5)
    assert second.poll() is None
    first.kill()
    _, (status, shown) = reap(first, second)
    assert status == 0, shown
    assert site.check() == expected


@pytest.mark.parametrize(
    "point", ["before replace /grids/micro/slurm.json", "before replace /slurm/arrays/train", "before run sbatch train"]
)
def test_taken_for_dead_it_submits_nothing_when_it_wakes(closed: Cluster, tmp_path: Path, point: str) -> None:
    """A submission on another host (it is told so; there is one here) hangs for longer than its lock lives."""
    site = Site(closed, tmp_path / "home")
    expected = site.planned()
    hangs = Faults(tmp_path / "hangs", site.home, hostname="elsewhere", stop=point)
    constants = {**QUICK, "cwdpo.jobs.slurm.lock": {"SILENT_SECONDS": 1.0, "POLL_SECONDS": 0.1}}
    impatient = Faults(tmp_path / "impatient", site.home, constants)
    first = site.start("submit", faults=hangs)
    wait_until(lambda: hangs.fired, 30, "the first one has stopped")
    time.sleep(1)
    site.ok("submit", faults=impatient)
    assert site.check() == expected
    before = {entry.place for entry in site.queue()}

    first.send_signal(signal.SIGCONT)
    ((status, shown),) = reap(first)
    assert status in (4, 6, 76), shown
    assert "Traceback" not in shown
    assert {entry.place for entry in site.queue()} == before
    site.ok("submit", faults=impatient)
    assert site.check() == expected
    assert {entry.place for entry in site.queue()} == before


def test_a_bigger_grid_submits_only_what_is_new(closed: Cluster, tmp_path: Path) -> None:
    small, big = Site(closed, tmp_path / "home", settings=["seeds=[0]"]), Site(closed, tmp_path / "home")
    alone = Site(closed, tmp_path / "elsewhere").planned()
    small.ok("submit")
    first = {entry.place for entry in small.queue() if entry.place[1] >= 0}
    assert big.planned() == alone - len(first)
    big.ok("submit")
    assert first < {entry.place for entry in big.queue()}
    assert big.check() == alone
    assert "job " not in big.ok("submit").replace("jobs in", ""), "nothing is new"
    assert small.check() == alone


ANOTHER_CASE = """  warm:
    stage1: {optimization: {batch_size: 4, max_steps: 4, learning_rate: 3e-2}}
    stage2:
      objective: {name: dpo, beta: 0.5}
      negatives: {source: perturb}
      optimization: {batch_size: 2, max_steps: 3, learning_rate: 3e-2}
"""


def test_two_grids_share_the_jobs_of_the_stages_they_share(closed: Cluster, tmp_path: Path) -> None:
    first = Site(closed, tmp_path / "home")
    first.ok("submit")
    shared = {entry.place for entry in first.queue() if entry.place[1] >= 0}
    grid = tmp_path / "another.yaml"
    grid.write_text(commands.MICRO.read_text().replace("cases:\n", f"cases:\n{ANOTHER_CASE}"))
    second = Site(closed, tmp_path / "home", grid)
    second.ok("submit")
    assert second.check() == first.check()
    new = [entry for entry in second.queue() if entry.place[1] >= 0 and entry.place not in shared]
    assert len(new) == 2 * 3, "stage 2, generate and score for two seeds"
    assert any(entry.needs & shared for entry in new), "they wait for jobs of the first grid"


def test_the_controller_is_down(small: Cluster, tmp_path: Path) -> None:
    """Nothing can be submitted; or it goes away in the middle of a submission, and comes back too late, or in time."""
    site = profiled(Site(small, tmp_path / "home", settings=["seeds=[0]"]), max_array=3, partition="closed")
    expected = site.planned()

    def submit(name: str, point: str, patience: dict[str, float], away: float | None) -> tuple[int, str]:
        constants = {**QUICK, "cwdpo.jobs.slurm.commands": patience}
        faults = Faults(tmp_path / name, site.home, constants, stop=point)
        running = site.start("submit", faults=faults)
        wait_until(lambda: faults.fired or running.poll() is not None, 30, point)
        assert faults.fired, reap(running)
        small.stop_controller()
        try:
            running.send_signal(signal.SIGCONT)
            if away is None:
                running.wait(60)
            else:
                time.sleep(away)
        finally:
            small.start_controller()
        found = reap(running)[0]
        # for a moment after its start the controller does not know what nodes have, and says so of every job
        asked = ("sbatch", "--test-only", "--nodes=2", "--gres=gpu:2", "--wrap=true")
        wait_until(lambda: small.attempt(*asked).returncode == 0, 30)
        return found

    status, shown = submit("from the start", "after rename /slurm/lock", IMPATIENT, None)
    assert status == 6, shown
    assert "Nothing is lost: when Slurm is back, the same command goes on" in shown
    assert "Traceback" not in shown
    assert site.records == {}
    status, shown = submit("too late", "before run sbatch train", IMPATIENT, None)
    assert status == 6, shown
    assert "trying again in 0 s" in shown
    status, shown = submit("in time", "before run sbatch score", {"FIRST_WAIT_SECONDS": 3.0}, 8.0)
    assert status == 0, shown
    assert "trying again in 3 s" in shown
    assert site.check() == expected
    small.cancel_all()
