"""The command line on a real Slurm, and what its queue and its store hold then."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import harness
import pretend
from cluster import Cluster, wait_until

from cwdpo.base.store import Artefact
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.slurm.ledger import Ledger, Record

SIBLINGS = commands.GRIDS / "siblings.yaml"
LANES = commands.GRIDS / "lanes.yaml"
MADE_UP = Path(__file__).resolve().parent / "made_up"

PROFILE = """
kind: slurm
node: {gpus: 2, cpus: 16}
train: {nodes: %(nodes)s, tasks_per_node: %(tasks)s, cpus_per_task: 1, time: "%(time)s"}
generate: {nodes: 1, tasks_per_node: 1, cpus_per_task: 2, time: "00:30:00"}
score: {time: "00:30:00"}
prepare: {time: "00:30:00"}
signal_seconds: %(signal)s
%(more)s
"""


class MadeUp:
    """Jobs whose work is made up (`made_up/sitecustomize.py`), and what shall happen to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "go").mkdir(parents=True)
        self.rules: dict[str, dict[str, Any]] = {}
        constants = {"cwdpo.cli.slurm": {"POLL_SECONDS": 0.5}, "cwdpo.jobs.slurm.commands": {"FIRST_WAIT_SECONDS": 0.2}}
        (folder / "constants.json").write_text(json.dumps(constants))

    def rule(self, name: str, **rule: Any) -> None:
        """What a stage, or one artefact's folder, does from now on; without anything it is made up again."""
        self.rules[name] = rule
        temporary = self.folder / "rules.json.tmp"
        temporary.write_text(json.dumps(self.rules))
        temporary.replace(self.folder / "rules.json")

    def release(self, name: str) -> None:
        """Let those that are held go on."""
        (self.folder / "go" / name).touch()

    @property
    def environment(self) -> dict[str, str]:
        """For a process that shall know."""
        return {"CWDPO_MADE_UP": str(self.folder), "PYTHONPATH": f"{MADE_UP}{os.pathsep}{commands.REPO}"}

    @property
    def setup(self) -> str:
        """Line of a profile whose jobs shall know."""
        lines = [f"export CWDPO_MADE_UP={self.folder}", f"export PYTHONPATH={MADE_UP}:$PYTHONPATH"]
        return f"setup: {json.dumps(lines)}"


@dataclass(frozen=True)
class Run:
    """One grid in one home on one cluster.

    Attributes:
        settings: what `--set` says.
        more: further lines of the profile.
        work: what jobs do instead of computing; None for real work.
    """

    cluster: Cluster
    home: Path
    grid: Path
    settings: Sequence[str] = ()
    time: str = "00:30:00"
    signal: int = 30
    nodes: int = 2
    tasks: int = 2
    more: str = ""
    work: MadeUp | None = None

    @property
    def profile(self) -> Path:
        """The cluster profile, written."""
        path = self.home.with_suffix(".cluster.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        more = "\n".join([self.more, self.work.setup if self.work else ""])
        values = {"time": self.time, "signal": self.signal, "nodes": self.nodes, "tasks": self.tasks, "more": more}
        path.write_text(PROFILE % values)
        return path

    def cwdpo(self, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A command on this grid."""
        return commands.cwdpo(command, *arguments, *self._given, **self.environment)

    def start(self, command: str, *arguments: object) -> subprocess.Popen[str]:
        """A command on this grid that goes on meanwhile; stdout and stderr together."""
        return subprocess.Popen(
            commands.command(command, *arguments, *self._given), env=commands.environment(**self.environment),
            cwd=commands.REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    @property
    def _given(self) -> list[object]:
        return ["--grid", self.grid, "--home", self.home, *(w for s in self.settings for w in ("--set", s))]

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands."""
        slurm = {key: self.cluster.env[key] for key in ("SLURM_CONF", "PATH")}
        return {**slurm, **(self.work.environment if self.work else {})}

    @property
    def plan(self) -> Plan:
        """Its plan."""
        return commands.plan_of(self.home, *self.settings, grid=self.grid)

    def pretend(self, *stages: str) -> None:
        """Have all stages of these names, as if they had been computed."""
        plan = self.plan
        pretend.pretend_done(plan, [node for node in plan.nodes if node.stage.name in stages])

    def rule(self, stage: str, cell: str, **rule: Any) -> None:
        """What the job of a stage of one cell does from now on."""
        assert self.work is not None, "only made-up work obeys"
        self.work.rule(self.artefact(stage, cell).folder.name, **rule)

    def submit(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`cwdpo submit`."""
        return self.cwdpo("submit", "--cluster", self.profile, *arguments)

    def ok(self, command: str, *arguments: object) -> str:
        """What a command printed, after checking that it ended well."""
        if command == "submit":
            return commands.succeed(self.submit(*arguments))
        return commands.succeed(self.cwdpo(command, *arguments))

    def node(self, stage: str, cell: str) -> Node:
        """The node of a stage in a cell."""
        plan = commands.plan_of(self.home, *self.settings, grid=self.grid)
        return [node for node in plan.wired[cell].nodes() if node.stage.name == stage][-1]

    def artefact(self, stage: str, cell: str) -> Artefact:
        """Its artefact."""
        plan = commands.plan_of(self.home, *self.settings, grid=self.grid)
        return self.node(stage, cell).artefact(plan.store)

    def steps(self, stage: str, cell: str) -> int:
        """Steps that all attempts of a training reported."""
        return sum(
            path.read_text(errors="replace").count('"event": "step"')
            for path in self.artefact(stage, cell).attempts.glob("*/events.jsonl")
        )

    def records(self, kind: str) -> list[Path]:
        """Ledger folders of a kind of job, oldest first."""
        return sorted((self.home / "slurm" / "arrays").glob(f"*-{kind}-*"))

    def element(self, stage: str, cell: str) -> str:
        """`123_4`: Slurm's id of the newest element that computes a stage."""
        wanted = self.node(stage, cell).id
        for folder in reversed(sorted((self.home / "slurm" / "arrays").glob("cwdpo-*"))):
            intent = json.loads((folder / "intent.json").read_text())
            for element in intent["elements"]:
                if wanted in [node["id"] for node in element["nodes"]]:
                    job = json.loads((folder / "submitted.json").read_text())["job_id"]
                    return f"{job}_{element['index']}"
        raise AssertionError(f"{stage} of {cell} was never submitted")

    @property
    def ledger(self) -> list[Record]:
        """Its arrays, oldest first."""
        return Ledger(self.plan.store).records()

    def records_of(self, kind: str) -> list[Record]:
        """Arrays of one kind of job, oldest first."""
        return [record for record in self.ledger if record.intent["kind"] == kind]

    def stages(self, cell: str) -> dict[str, str]:
        """Stage -> state of a cell, as `status --json` tells it."""
        rows = json.loads(self.ok("status", "--json"))["cells"]
        (found,) = [row["stages"] for row in rows if f"{row['case']}/{row['seed']}" == cell]
        return dict(found)

    def is_done(self, stage: str, cell: str) -> bool:
        """True when a stage is there."""
        return self.artefact(stage, cell).done() is not None

    def wait(self, seconds: float = 300) -> None:
        """Wait until the queue is empty."""
        try:
            wait_until(lambda: not self.cluster.run("squeue", "--noheader"), seconds)
        except AssertionError:
            raise AssertionError(f"after {seconds:g} s still there:\n{self.cluster.run('squeue')}") from None

    def results(self) -> Any:
        """The tables as `report --json` prints them."""
        return json.loads(self.ok("report", "--json"))

    def files(self) -> dict[str, Any]:
        """Stage folder -> names, sizes and digests of its files, after comparing every byte with them."""
        found = {}
        plan = commands.plan_of(self.home, *self.settings, grid=self.grid)
        for node in plan.nodes:
            artefact = node.artefact(plan.store)
            artefact.verified_files()
            done = artefact.done()
            assert done is not None
            found[artefact.folder.name] = done["files"]
        return found


def sweep(cluster: Cluster, folder: Path, *settings: str, grid: Path = SIBLINGS, more: str = "") -> Run:
    """Trainings that are ready to start, with made-up work; everything before them is there."""
    run = Run(cluster, folder / "home", grid, settings, nodes=1, tasks=1, more=more, work=MadeUp(folder / "work"))
    run.pretend("world", "pairs", "negatives", "pretrain")
    return run


def locally(home: Path, grid: Path, ranks: int, *settings: str) -> Path:
    """The home, with a grid that was computed on this machine, all its torch stages in one job of so many ranks."""
    nodes = commands.plan_of(home, *settings, grid=grid).nodes
    scores = [node for node in nodes if node.stage.name == "score"]
    ranked = [node for node in nodes if node.stage.ranks]
    harness.compute(home, [node for node in nodes if node not in (*scores, *ranked)])
    harness.compute(home, ranked, ranks)
    harness.compute(home, scores)
    return home


def same(run: Run, other: Path) -> None:
    """Every file of every artefact, and every number, as in another home."""
    reference = Run(run.cluster, other, run.grid, run.settings)
    assert run.files() == reference.files()
    assert run.results() == reference.results()


def stand_in_for(name: str, folder: Path, text: str) -> str:
    """Folder for the front of a PATH with a made-up command `name`; `real` in it is the true one."""
    folder.mkdir(parents=True, exist_ok=True)
    real = shutil.which(name)
    (folder / name).write_text(f'#!/bin/bash\nreal={real}\n{text}\nexec $real "$@"\n')
    (folder / name).chmod(0o755)
    return str(folder)
