"""A grid on a real Slurm: the same results as on one machine, whatever happens on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import commands
import pytest
import workers
from cluster import Cluster, wait_until
from ruamel.yaml import YAML
from slurm_grid import LANES, Run, locally, same

from cwdpo.jobs import events

ONE_SEED = ("seeds=[0]",)


def test_two_nodes_of_two_tasks_give_the_results_of_one_machine(slurm: Cluster, tmp_path: Path) -> None:
    """All stages, in one cell: 2 nodes x 2 tasks a training, against four processes of this machine.

    What answers or scores is split over two elements.
    """
    content = YAML(typ="safe").load(commands.MICRO)
    content["cases"] = {case: content["cases"][case] for case in ("cw_dpo",)}
    YAML().dump(content, tmp_path / "micro.yaml")
    run = Run(slurm, tmp_path / "home", tmp_path / "micro.yaml", (*ONE_SEED, "execution.split=2"))
    shown = run.ok("submit", "--watch")
    assert re.search(r"job \d+: train x 1, after afterok:\d+_0", shown), shown
    assert "stages done, 0 jobs in the queue" in shown, shown
    again = run.ok("submit")
    assert "job " not in again.replace("jobs", ""), "nothing is submitted twice"
    run.wait()
    assert (run.home / "grids/micro/report.md").exists(), "the collector wrote it"
    assert json.loads((run.home / "grids/micro/gaps.json").read_text()) == {}
    claim = run.artefact("stage2", "cw_dpo/0").done()
    assert claim is not None
    assert claim["provenance"]["ranks"] == 4
    assert claim["provenance"]["job"]["array"].startswith("cwdpo-")
    same(run, locally(tmp_path / "calm", run.grid, 4, *ONE_SEED))


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of two lanes, undisturbed, with the ranks they have on Slurm."""
    made = workers.made_once(tmp_path_factory, "calm", lambda to: locally(to / "home", LANES, 2, "seeds=[0,1]"))
    return made / "home"


def rank_of(run: Run, element: str) -> int:
    """Process id of one rank of an element, not the first one."""
    array, _, index = element.partition("_")
    (folder,) = [path.parent for path in run.records("train") if f'"{array}"' in (path / "submitted.json").read_text()]
    found = subprocess.run(
        ["pgrep", "-f", f"slurm.task {folder}/.* {index} "], capture_output=True, text=True, check=True
    )
    return max(map(int, found.stdout.split()))


def under_way(run: Run, lane: int) -> str:
    """Slurm's id of a training that is submitted now, once it is at work."""
    replace(run, settings=(f"seeds=[{lane}]",)).ok("submit")
    wait_until(lambda: run.steps("stage1", f"sft/{lane}") >= 25, 240, f"lane {lane} trains")
    return run.element("stage1", f"sft/{lane}")


def lose_node(cluster: Cluster, job: str) -> None:
    """The first node of a job dies, and comes back once Slurm has noticed."""
    node = cluster.run("squeue", "--noheader", "--jobs", job, "--format", "%B")
    cluster.kill_node(node)
    cluster.wait_for("PENDING", job)
    cluster.revive_node(node)


def preempt(cluster: Cluster, job: str) -> None:
    """More urgent work takes a job's nodes for a while."""
    urgent = cluster.sbatch("sleep 1", "--partition=high", "--nodes=4", "--gpus-per-node=2")
    cluster.wait_for("PENDING", job)
    cluster.wait_for("COMPLETED", urgent)


def all_is_there(run: Run, calm: Path, lanes: int) -> None:
    """After a cancelled last lane was noticed and submitted again: every bit, and a second start of each lane."""
    last = f"sft/{lanes - 1}"
    watched = run.cwdpo("reconcile", "--watch")
    assert watched.returncode == 1, watched.stdout + watched.stderr
    assert "took away" in watched.stdout, "what waits for the cancelled training would wait for ever"
    shown = run.cwdpo("why", last)
    assert shown.returncode == 1
    assert "cancelled" in shown.stdout
    rows = json.loads(run.ok("status", "--json"))["cells"]
    assert [row["stages"]["score"] for row in rows] == [*["done"] * (lanes - 1), "blocked"]
    run.ok("submit", "--watch")
    same(run, calm)
    starts = [len(list(run.artefact("stage1", f"sft/{lane}").attempts.iterdir())) for lane in range(lanes)]
    assert min(starts) >= 2, starts


def test_faults_change_nothing(slurm: Cluster, calm: Path, tmp_path: Path) -> None:
    """A dead node and a cancelled job; then all is there, to the last bit."""
    run = Run(slurm, tmp_path / "home", LANES, ("seeds=[0,1]",), nodes=1)
    lose_node(slurm, under_way(run, 0))
    slurm.run("scancel", under_way(run, 1))
    all_is_there(run, calm, 2)


@pytest.mark.campaign
def test_more_faults_change_nothing(slurm: Cluster, tmp_path: Path) -> None:
    """A killed rank, a dead node, a preemption, a cancelled job, one a lane."""
    calm = locally(tmp_path / "calm", LANES, 2)
    run = Run(slurm, tmp_path / "home", LANES, nodes=1)
    under_way(run, 0)
    os.kill(rank_of(run, run.element("stage1", "sft/0")), signal.SIGKILL)
    lose_node(slurm, under_way(run, 1))
    preempt(slurm, under_way(run, 2))
    slurm.run("scancel", under_way(run, 3))
    all_is_there(run, calm, 4)


class Hurried:
    """A training of one lane whose time limit is too short.

    Where all of it goes into starting, it gets a minute more, as an administrator would let it have.
    """

    def __init__(self, run: Run, lane: int) -> None:
        self.run, self.lane, self.minutes = run, lane, 1

    def saved(self) -> int:
        """Step at which it was last asked to save; 0 before it did a step."""
        rounds = self.rounds()
        if len(rounds) >= self.minutes and not rounds[-1]["saved"][1]:
            self.minutes = len(rounds) + 1
            self.allow(self.minutes)
        return max((entry["saved"][1] for entry in rounds), default=0)

    def rounds(self) -> list[dict[str, Any]]:
        """What is known of each time that it ended before it was done."""
        trainings = self.run.records("train")
        path = trainings[-1] / "rounds" / f"{self.lane}.jsonl" if trainings else None
        return [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []

    def allow(self, minutes: int) -> None:
        """Another time limit from now on."""
        self.run.cluster.run("scontrol", "update", f"JobId={self.element}", f"TimeLimit={minutes}")

    @property
    def element(self) -> str:
        """Slurm's id of it."""
        return self.run.element("stage1", f"sft/{self.lane}")

    def steps(self) -> list[int]:
        """Steps of its curve."""
        return [point["step"] for point in events.curve(self.run.artefact("stage1", f"sft/{self.lane}"))]


def saved_or_over(training: Hurried, submitted: subprocess.Popen[str]) -> bool:
    """Whether there is nothing to wait for any more."""
    return training.saved() > 0 or submitted.poll() is not None


def is_beyond(training: Hurried, step: int) -> bool:
    """Whether it got further."""
    return max(training.steps(), default=0) > step


@pytest.mark.campaign
def test_a_time_limit_that_is_too_short(slurm: Cluster, calm: Path, tmp_path: Path) -> None:
    """A minute, of which Slurm takes back a third to save in: trainings go through the queue and lose no step.

    Two of them: the last element of an array is special, its job id is the array's.
    """
    longer = ("seeds=[0,1]", "stage1.optimization.max_steps=3000")
    run = Run(slurm, commands.copy_home(calm, tmp_path / "home"), LANES, longer, time="00:01:00", signal=20, nodes=1)
    submitted = run.start("submit", "--cluster", run.profile, "--watch")
    trainings = [Hurried(run, lane) for lane in (0, 1)]
    wait_until(lambda: all([saved_or_over(training, submitted) for training in trainings]), 240, "both asked to save")
    assert submitted.poll() is None, submitted.communicate()
    for training in trainings:
        training.allow(30)
    for training in trainings:
        saved = training.saved()
        assert f"checkpoint written at step {saved}" in training.rounds()[-1]["message"]
        assert {entry["action"] for entry in training.rounds()} == {"requeue"}
        wait_until(partial(is_beyond, training, saved + 10), 240, f"lane {training.lane} goes on")
        slurm.run("scancel", training.element)
    submitted.communicate(timeout=900)
    for training in trainings:
        steps = training.steps()
        assert steps == list(range(1, len(steps) + 1)), "no step is missing"
