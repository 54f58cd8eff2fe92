"""Where the results of a cell come from: every stage on the way to them, and what the store knows of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.store import Artefact, folder_name
from cwdpo.evaluate.generate import GenerateSpec
from cwdpo.graph import Node, Outside
from cwdpo.jobs.containers.image import named
from cwdpo.jobs.plan import Plan, Shown
from cwdpo.negatives.stage import NegativesSpec
from cwdpo.train.config import Stage1Spec, Stage2Spec
from cwdpo.train.reference import ReferenceSpec

COMMIT = 12
"""Digits of a commit that people are shown."""

LAST_MOMENT = 253402300800.0
"""Seconds since 1970 until the end of the year 9999."""


@dataclass(frozen=True)
class Try:
    """One attempt at a stage.

    Attributes:
        outcome: `done`, `failed`, `running`, `interrupted`, `retired` (its result was taken back), or `unreadable`.
        reason: why it failed, else nothing.
        host: "" where the claim does not say.
        slurm: such as `1234_5`; "" outside of Slurm.
        nodes: that Slurm gave it; nothing outside of Slurm.
        started: seconds since 1970, None where the claim does not say.
        seconds: until it ended, or was last heard of; None where nobody knows.
    """

    number: int
    outcome: str
    reason: str = ""
    host: str = ""
    slurm: str = ""
    started: float | None = None
    seconds: float | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One stage on the way to a result.

    Attributes:
        title: what humans call it.
        folder: its name in the store.
        about: what counts of its settings, in a few words; "" where the title says all.
        inputs: role -> folder of the store, or path outside of it.
        settings: the slice of the configuration that it computes.
        tries: its attempts, in order.
        made: provenance as the finished attempt recorded it, without the digests of sources; empty before it is done.
        out: of its files below the home, "" before it is done.
        files: their names.
    """

    id: str
    stage: str
    title: str
    folder: str
    state: Shown
    about: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    tries: tuple[Try, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    out: str = ""
    files: tuple[str, ...] = ()

    @property
    def commit(self) -> str:
        """Of the code, as people are shown it; "" before it is done."""
        if not self.made:
            return ""
        if not self.made.get("commit"):
            return f"cwdpo {self.made.get('version', 'of an unknown version')}"
        return str(self.made["commit"])[:COMMIT] + (" with changes" if self.made.get("dirty") else "")

    @property
    def image(self) -> str:
        """What it was computed in; "" before it is done."""
        return named(self.made) if self.made else ""

    @property
    def host(self) -> str:
        """Where it was computed, or was last tried."""
        return str(self.made.get("host") or (self.tries[-1].host if self.tries else ""))

    @property
    def slurm(self) -> tuple[str, ...]:
        """Slurm jobs of all attempts, each once."""
        return tuple(dict.fromkeys(one.slurm for one in self.tries if one.slurm))

    @property
    def seconds(self) -> float | None:
        """Of all attempts, as far as they are known; None before the first."""
        known = [one.seconds for one in self.tries if one.seconds is not None]
        return sum(known) if known else None

    @property
    def gpu_seconds(self) -> float | None:
        """Of all attempts on all ranks; 0 where it took no GPU, None before it is done."""
        if not self.made or self.seconds is None:
            return None
        peaks, ranks = self.made.get("peak_bytes"), self.made.get("ranks", 1)
        on_gpu = isinstance(peaks, dict) and "gpu_memory" in peaks
        if on_gpu and not isinstance(ranks, int):
            return None
        return self.seconds * ranks if on_gpu else 0.0


@dataclass(frozen=True)
class Provenance:
    """Where one cell comes from.

    Attributes:
        steps: every stage, parents before children.
        scores: benchmark -> folder of its score.
    """

    cell: str
    steps: tuple[Step, ...]
    scores: Mapping[str, str]

    def step(self, folder: str) -> Step:
        """The step of a folder of the store."""
        return next(step for step in self.steps if step.folder == folder)


class Origins:
    """Provenance of the cells of a grid at one moment; what cells share is read once.

    Args:
        states: node id -> how it stands.
    """

    def __init__(self, plan: Plan, states: Mapping[str, Shown]) -> None:
        self._plan, self._states = plan, states
        self._read: dict[str, Step] = {}

    def of(self, cell: str) -> Provenance:
        """Of one cell of the plan."""
        wired = self._plan.wired[cell]
        scores = {name: folder_of(node) for name, node in wired.scores.items()}
        return Provenance(cell, tuple(self._step(node) for node in wired.nodes()), scores)

    def _step(self, node: Node) -> Step:
        found = self._read.get(node.id)
        if found is None:
            found = self._read[node.id] = step_of(node, self._plan, self._states[node.id])
        return found


def folder_of(node: Node) -> str:
    """Name of the folder of a node in the store."""
    return folder_name(node.stage.name, node.id)


def step_of(node: Node, plan: Plan, state: Shown) -> Step:
    """What the store knows of a stage; files that cannot be read leave their part of it empty."""
    artefact = node.artefact(plan.store)
    done = _done(artefact)
    found: dict[str, Any] = {}
    if done:
        made = {key: value for key, value in done["provenance"].items() if key not in ("sources", "parents")}
        out = f"{plan.store.folder.name}/{artefact.folder.name}/attempts/{done['attempt']}/out"
        found = {"made": made, "out": out, "files": tuple(done["files"])}
    return Step(
        id=node.id,
        stage=node.stage.name,
        title=node.title,
        folder=artefact.folder.name,
        state=state,
        about=essence(node),
        inputs={role: _input(entry) for role, entry in node.inputs.items()},
        settings=node.card["spec"],
        tries=tuple(_tries(artefact, done)),
        **found,
    )


def essence(node: Node) -> str:
    """What counts of the settings of a stage, in a few words."""
    spec = node.spec
    if isinstance(spec, NegativesSpec):
        return f"source {spec.negatives.source}, for {spec.portion}"
    if isinstance(spec, Stage1Spec | Stage2Spec):
        return f"objective {spec.objective.name}, seed {spec.seed}"
    if isinstance(spec, ReferenceSpec):
        adapter = node.inputs.get("adapter") or node.inputs["model"]
        return f"log-probabilities under {_input(adapter)}"
    if isinstance(spec, GenerateSpec):
        decoding = spec.benchmark.decoding
        return f"{decoding.strategy} decoding, at most {decoding.max_new_tokens} tokens"
    return ""


def _input(entry: Node | Outside) -> str:
    return folder_of(entry) if isinstance(entry, Node) else str(entry.path)


def _done(artefact: Artefact) -> Mapping[str, Any] | None:
    """What `DONE` says, None where it says nothing that can be used."""
    try:
        done = artefact.done()
    except StoreError:
        return None
    usable = done is not None and isinstance(done.get("provenance"), dict) and isinstance(done["files"], dict)
    return done if usable else None


def _tries(artefact: Artefact, done: Mapping[str, Any] | None) -> Iterator[Try]:
    for number in range(1, artefact.newest() + 1):
        folder = artefact.attempts / str(number)
        if folder.is_dir():
            yield _try(artefact, number, folder, done)


def _try(artefact: Artefact, number: int, folder: Path, done: Mapping[str, Any] | None) -> Try:
    published = done is not None and done["attempt"] == number
    try:
        claim = files.read_json(folder / "claim.json")
        outcome, reason = ("done", "") if published else _outcome(artefact, number, folder)
        started = _seconds(claim["time"])
        seconds = _seconds(done["provenance"]["seconds"]) if done and published else _heard(folder, started)
        nodes = tuple(map(str, claim.get("nodes", ())))
        return Try(number, outcome, reason, str(claim["host"]), slurm_of(claim), started, seconds, nodes)
    except (StoreError, KeyError, TypeError, ValueError, AttributeError) as error:
        return Try(number, "done" if published else "unreadable", f"its files cannot be read: {error}")


def _outcome(artefact: Artefact, number: int, folder: Path) -> tuple[str, str]:
    """How an attempt that did not publish ended, and why."""
    if result := artefact.result(number):
        return "failed", str(result["message"])
    if artefact.alive(number):
        return "running", ""
    return ("retired", "") if (folder / "DONE.retired").exists() else ("interrupted", "")


def _seconds(told: Any) -> float | None:
    """Since 1970, or since a start; None of what no clock shows."""
    try:
        found = float(told)
    except OverflowError:
        return None
    return found if 0 <= found < LAST_MOMENT else None


def _heard(folder: Path, started: float | None) -> float | None:
    """Seconds from its start, where that is known, until an attempt wrote how it ended, or was last heard of."""
    if started is None:
        return None
    for name in ("result.json", "heartbeat"):
        path = folder / name
        if path.exists():
            return max(0.0, path.stat().st_mtime - started)
    return None


def slurm_of(claim: Mapping[str, Any]) -> str:
    """Which Slurm job a claim names, as `squeue` writes it: `1234_5` of an array; "" where none is."""
    array = claim.get("slurm_array")
    return f"{array}_{claim.get('index')}" if array else str(claim.get("slurm_job") or "")


def at(seconds: float | None) -> str:
    """A moment in UTC, as people read it; "" of none."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds is not None else ""
