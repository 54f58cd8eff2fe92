"""Commands of cwdpo that are killed, stopped or deceived, and what must be true of the queue all the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import commands
import pretend
from cluster import Cluster

from cwdpo.base.config import read_yaml
from cwdpo.base.store import Store
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.slurm.ledger import Ledger, Record

FAULTS = Path(__file__).resolve().parent / "faults"
QUICK = {
    "cwdpo.jobs.slurm.standing": {"ADOPTION_SECONDS": 0.3},
    "cwdpo.jobs.slurm.lock": {"POLL_SECONDS": 0.1},
    "cwdpo.jobs.slurm.commands": {"FIRST_WAIT_SECONDS": 0.2},
}
"""Waiting times for tests, put in by `faults/sitecustomize.py`."""

Element = tuple[str, int]
"""(job id of the array, index)."""


class Faults:
    """What shall happen to processes, and what did."""

    def __init__(self, folder: Path, home: Path, constants: Mapping[str, Mapping[str, float]] = QUICK, **more: Any):
        self.folder = folder
        (folder / "fired").mkdir(parents=True)
        settings = {"home": str(home), "constants": constants, **more}
        (folder / "settings.json").write_text(json.dumps(settings))

    @property
    def environment(self) -> dict[str, str]:
        """For a process that they shall happen to."""
        return {"CWDPO_FAULTS": str(self.folder), "PYTHONPATH": f"{FAULTS}{os.pathsep}{commands.REPO}"}

    @property
    def seen(self) -> list[str]:
        """Points that were passed, each once."""
        path = self.folder / "seen"
        return list(dict.fromkeys(path.read_text().splitlines())) if path.exists() else []

    @property
    def fired(self) -> set[str]:
        """Points at which a process was stopped or killed, as names of files."""
        return {path.name for path in (self.folder / "fired").iterdir()}


def file_name(point: str) -> str:
    """How a point is called in `Faults.fired`."""
    return re.sub(r"[^\w~]+", "-", point)


@dataclass(frozen=True)
class Entry:
    """A line of squeue."""

    place: Element
    state: str
    name: str
    needs: frozenset[Element]


@dataclass
class Site:
    """A grid in a home on a cluster."""

    cluster: Cluster
    home: Path
    grid: Path = commands.MICRO
    settings: Sequence[str] = ()
    profile: object = "one-machine"

    def line(self, command: str, *arguments: object) -> list[str]:
        """A command line on this grid."""
        given = ["--grid", self.grid, "--home", self.home, *(w for s in self.settings for w in ("--set", s))]
        if command == "submit":
            given += ["--cluster", self.profile]
        return commands.command(command, *arguments, *given)

    def environment(self, faults: Faults | None = None, **more: str) -> dict[str, str]:
        """Of a process on this cluster."""
        slurm = {key: self.cluster.env[key] for key in ("SLURM_CONF", "PATH")}
        return commands.environment(**{**slurm, **(faults.environment if faults else {}), **more})

    def run(
        self, command: str, *arguments: object, faults: Faults | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            self.line(command, *arguments), env=self.environment(faults, **more), cwd=commands.REPO,
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip

    def start(
        self, command: str, *arguments: object, faults: Faults | None = None, **more: str
    ) -> subprocess.Popen[str]:
        """A command that goes on while something happens to it."""
        return subprocess.Popen(
            self.line(command, *arguments), env=self.environment(faults, **more), cwd=commands.REPO,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def ok(self, command: str, *arguments: object, faults: Faults | None = None, **more: str) -> str:
        """What a command printed, after checking that it ended well."""
        return commands.succeed(self.run(command, *arguments, faults=faults, **more))

    @property
    def plan(self) -> Plan:
        """Its plan."""
        return commands.plan_of(self.home, *self.settings, grid=self.grid)

    @property
    def records(self) -> dict[str, Record]:
        """The ledger by name, without what was given up."""
        return {record.name: record for record in Ledger(Store(self.home)).records() if not record.abandoned}

    def planned(self) -> int:
        """Elements that a dry run would submit."""
        shown = self.ok("submit", "--dry-run")
        found = re.search(r"\d+ arrays, (\d+) jobs; nothing submitted", shown)
        assert found, shown
        return int(found[1])

    def queue(self) -> list[Entry]:
        """The elements and side jobs of this home in Slurm's queue."""
        mine = {path.name for folder in ("arrays", "side") for path in (self.home / "slurm" / folder).glob("cwdpo-*")}
        lines = self.cluster.run("squeue", "--noheader", "--array", "--format=%F|%K|%T|%j|%E").splitlines()
        entries = [_entry(line) for line in lines]
        return [entry for entry in entries if entry.name in mine and entry.state not in ("COMPLETING", "CANCELLED")]

    def nodes_at(self) -> dict[Element, set[str]]:
        """Element in the queue -> ids of the stages it computes; fails for a job that nobody should have."""
        records, found = self.records, {}
        for entry in self.queue():
            if (self.home / "slurm" / "side" / entry.name).exists():
                continue
            record = records.get(entry.name)
            assert record is not None, f"stray: {entry} was given up"
            assert record.job_id == entry.place[0], f"stray: {entry} is not job {record.job_id} of its record"
            assert entry.place[1] not in record.settled, f"stray: {entry} has ended as far as the ledger knows"
            found[entry.place] = {identity for _, identity in record.elements[entry.place[1]].nodes}
        return found

    def element(self, stage: str, cell: str) -> Element:
        """Where in the queue a stage is."""
        plan = self.plan
        identity = [node.id for node in plan.wired[cell].nodes() if node.stage.name == stage][-1]
        return next(place for place, nodes in self.nodes_at().items() if identity in nodes)

    def check(self, without: Iterable[str] = (), side: Mapping[str, int] | None = None) -> int:
        """Every unfinished stage is in the queue once and waits for its inputs; nothing else is; no litter.

        Args:
            without: ids of stages that shall not be in the queue.
            side: purpose -> how many side jobs; one collector by default.

        Returns:
            How many elements there are.
        """
        nodes_at = self.nodes_at()
        names = {node.id: f"{node.stage.name} {node.id[:8]}" for node in self.plan.nodes}
        covered = Counter(names[identity] for nodes in nodes_at.values() for identity in nodes if identity in names)
        todo = {node.id for node in self.plan.nodes if not node.artefact(Store(self.home)).done()} - set(without)
        wanted = {names[identity] for identity in todo}
        assert covered.keys() == wanted, f"missing: {wanted - covered.keys()}, too many: {covered.keys() - wanted}"
        assert set(covered.values()) <= {1}, f"more than once: {[name for name in covered if covered[name] > 1]}"
        self._check_dependencies(nodes_at)
        self._check_side(nodes_at, {"collect": 1} if side is None else side)
        assert not (self.home / "slurm" / "lock").exists()
        assert not [path for path in (self.home / "slurm").rglob(".*.tmp") if path.is_dir()]
        assert all(record.job_id for record in self.records.values())
        return len(nodes_at)

    def _check_dependencies(self, nodes_at: Mapping[Element, set[str]]) -> None:
        place_of = {identity: place for place, nodes in nodes_at.items() for identity in nodes}
        needs = {entry.place: entry.needs for entry in self.queue()}
        nodes = {node.id: node for node in self.plan.nodes}
        for place, computed in nodes_at.items():
            parents = {parent.id for identity in computed if identity in nodes for parent in nodes[identity].parents}
            wanted = {place_of[parent] for parent in parents - computed if parent in place_of}
            before = _closure(place, needs)
            assert wanted <= before, f"{place} does not wait for {wanted - before}"
            ancestors = {place_of[i] for i in _ancestors(computed, nodes) if i in place_of}
            more = needs[place] - ancestors
            assert not more or not computed <= nodes.keys(), f"{place} waits for {more}, which it does not need"

    def _check_side(self, nodes_at: Mapping[Element, set[str]], expected: Mapping[str, int]) -> None:
        intents = {
            path.parent.name: json.loads(path.read_text()) for path in self.home.glob("slurm/side/*/intent.json")
        }
        entries = [entry for entry in self.queue() if entry.name in intents]
        ours = [entry for entry in entries if intents[entry.name]["grid"] == self.plan.grid.name]
        assert Counter(intents[entry.name]["purpose"] for entry in ours) == dict(expected)
        ids = {node.id for node in self.plan.nodes}
        under_way = {array for (array, _), nodes in nodes_at.items() if nodes & ids}
        for entry in ours:
            if intents[entry.name]["purpose"] == "collect":
                assert {array for array, _ in entry.needs} >= under_way, "the collector does not wait for all"

    def age_litter(self) -> None:
        """Make what a killed process left of a half-taken lock look old: nobody could say whose it is."""
        for path in (self.home / "slurm").glob(".lock.*.tmp"):
            if not (path / "owner.json").exists():
                os.utime(path, (0, 0))

    def end(self) -> None:
        """Take everything of this home out of the queue."""
        jobs = {entry.place[0] for entry in self.queue()}
        if jobs:
            self.cluster.run("scancel", "--quiet", *jobs)


def _entry(line: str) -> Entry:
    array, index, state, name, dependency = line.split("|")
    place = (array, int(index) if index.isdigit() else -1)
    terms = re.findall(r"after\w+:(\d+)(?:_(\d+|\*))?\(", dependency)
    corresponding = "aftercorr" in dependency
    needs = {(job, place[1] if at == "*" and corresponding else int(at) if at.isdigit() else -1) for job, at in terms}
    return Entry(place, state, name, frozenset(needs))


def _closure(place: Element, needs: Mapping[Element, frozenset[Element]]) -> set[Element]:
    found: set[Element] = set()
    left = list(needs[place])
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += needs.get(one, ())
    return found


def _ancestors(identities: Iterable[str], nodes: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    left = [parent.id for identity in identities if identity in nodes for parent in nodes[identity].parents]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += [parent.id for parent in nodes[one].parents]
    return found


def campaign(site: Site, points: Sequence[str], folder: Path, *command: str) -> int:
    """Give a command again and again, killed once at every point, until it ends well; returns how often it was killed.

    Fails for a point that was never reached.
    """
    faults = Faults(folder, site.home, kill=list(points))
    kills = 0
    for _ in range(len(points) + 2):
        done = site.run(*command, faults=faults)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        kills += 1
    else:
        raise AssertionError("the campaign does not come to an end")
    missed = {file_name(point) for point in points} - faults.fired
    assert not missed, f"never reached: {sorted(missed)}"
    assert kills == len(points)
    return kills


def campaigns(sites: Sequence[Site], points: Sequence[str], folder: Path, *command: str) -> int:
    """The same in several homes at once, each of which gets its share of the points."""
    with ThreadPoolExecutor() as pool:
        shares = [points[number :: len(sites)] for number in range(len(sites))]
        folders = [folder / str(number) for number in range(len(sites))]
        running = [pool.submit(campaign, *given, *command) for given in zip(sites, shares, folders, strict=True)]
        return sum(one.result() for one in running)


def deceive(folder: Path, text: str) -> dict[str, str]:
    """An environment in which `sbatch` is a made-up one; `real` in it is the true one, `once` makes it act once."""
    folder.mkdir(parents=True)
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    script = f"""#!/bin/bash
real={real}
[[ $1 == --parsable ]] || exec $real "$@"
once() {{ mkdir {folder}/acted 2>/dev/null; }}
{text}
exec $real "$@"
"""
    path = folder / "sbatch"
    path.write_text(script)
    path.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def instant(site: Site, seconds: float = 0, **keys: object) -> Site:
    """The same site with jobs that take so many seconds, and whose work is made up; `keys` are of the profile."""
    template = site.home.with_suffix(".template")
    plan = commands.plan_of(template, *site.settings, grid=site.grid)
    if not plan.nodes[0].artefact(plan.store).done():
        pretend.pretend_done(plan, plan.nodes)
    work = site.home.with_suffix(".sh")
    program = Path(__file__).with_name("stand_in.py")
    work.write_text(f"""srun() {{
    sleep {seconds}
    [[ -z ${{record-}} ]] || {sys.executable} -S {program} {template} "$record" "$index"
}}
""")
    return profiled(site, setup=[f"source {work}"], **keys)


def profiled(site: Site, **keys: object) -> Site:
    """The same site with other keys in the profile."""
    content = {**read_yaml(commands.REPO / "configs/clusters/one-machine.yaml"), **keys}
    path = site.home.with_suffix(".yaml")
    path.write_text(json.dumps(content))
    return replace(site, profile=path)


def reap(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Status and words of each, all ended."""
    found = []
    for process in processes:
        try:
            text, _ = process.communicate(timeout=900)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                process.kill()
            text, _ = process.communicate()
        found.append((process.returncode, text))
    return found
