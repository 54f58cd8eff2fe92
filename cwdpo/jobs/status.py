"""How a grid stands: cells x stages, and why stages failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.store import Artefact
from cwdpo.dynamics.rows import ABOUT
from cwdpo.graph import Node, Probed
from cwdpo.jobs.events import Pulse, events, last_progress, pulse
from cwdpo.jobs.plan import Plan, Shown

COLUMNS = ("pretrain", "stage1", "sft_phase", "stage2", "probe", "generate", "score")
"""Stages that are always shown; data preparation is shown where it is not simply done or waiting."""

TROUBLE = ("failed", "damaged", "interrupted", "running", "starting", "cancelled")


@dataclass(frozen=True)
class CellStatus:
    """One cell.

    Attributes:
        family: the case of the grid file it comes from, without axis values.
        stages: stage name -> what to show, a state first; a stage the cell does not have is absent.
    """

    case: str
    seed: int
    family: str
    stages: dict[str, str]


@dataclass(frozen=True)
class GridStatus:
    """One look at a grid.

    Attributes:
        states: node id -> state.
        cells: in the order of the grid.
        failures: (stage folder, reason and log) of every failed node.
        images: id of a finished node -> what it was computed in.
        alarms: (training and the first cell that needs it, what its probes say) of every one that is alarming.
    """

    states: Mapping[str, Shown]
    cells: list[CellStatus]
    failures: list[tuple[str, str]]
    work: list[Work]
    images: Mapping[str, str]
    alarms: list[tuple[str, str]]


@dataclass(frozen=True)
class Work:
    """A stage that is being computed.

    Attributes:
        label: stage and the first cell that needs it.
        pulse: None before its first step.
    """

    label: str
    attempt: int
    pulse: Pulse | None


def grid_status(plan: Plan, overlay: Overlay | None = None) -> GridStatus:
    """How the grid stands now; the store is read once.

    Args:
        overlay: what a scheduler knows beyond the store.
    """
    survey = plan.survey()
    states, reasons = survey.states, {}
    if overlay:
        states, reasons = overlay.states(states), overlay.reasons()
    cells, failed = cell_statuses(plan, states), failures(plan, states, reasons)
    return GridStatus(states, cells, failed, at_work(plan, states), survey.images, alarms(plan, states))


class Overlay(Protocol):
    """What a scheduler knows beyond the store."""

    def states(self, stored: Mapping[str, Shown]) -> dict[str, Shown]:
        """Node id -> state, given what the store says."""

    def reasons(self) -> dict[str, str]:
        """Node id -> why it failed."""


def at_work(plan: Plan, states: Mapping[str, Shown]) -> list[Work]:
    """Stages that run now, in the order of the grid."""
    found: dict[str, Work] = {}
    for cell, wired in plan.wired.items():
        for node in wired.nodes():
            if states[node.id] == "running" and node.id not in found:
                artefact = node.artefact(plan.store)
                found[node.id] = Work(f"{node.title} {cell}", artefact.newest(), pulse(artefact))
    return list(found.values())


def alarms(plan: Plan, states: Mapping[str, Shown]) -> list[tuple[str, str]]:
    """What probes found alarming, in the order of the grid: of finished ones their own word, of others their events."""
    found: dict[str, list[tuple[str, str]]] = {}
    for cell, wired in plan.wired.items():
        for one in wired.probed:
            if one.rows.id not in found:
                sentences = _found_by(one, plan, states[one.rows.id])
                found[one.rows.id] = [(f"{one.training.title} {cell}", sentence) for sentence in sentences]
    return [entry for entries in found.values() for entry in entries]


def _found_by(one: Probed, plan: Plan, state: Shown) -> list[str]:
    if state in ("done", "stale"):
        if one.unwatched(one.rows.artefact(plan.store).done()):
            return []
        try:
            return [_sentence(found) for found in files.read_json(one.folder(plan.store) / ABOUT)["findings"]]
        except (StoreError, KeyError, TypeError) as error:
            return [f"its probes cannot be read: {error}"]
    artefact = one.rows.artefact(plan.store)
    path = artefact.attempts / str(artefact.newest()) / "events.jsonl"
    told = (row for row in events(path) if row.get("event") == "alarm" and row.keys() >= {"name", "step", "sentence"})
    return list(map(_sentence, told)) if state == "running" else []


def _sentence(found: Mapping[str, Any]) -> str:
    return f"{found['name']} since step {found['step']}: {found['sentence']}"


def cell_statuses(plan: Plan, states: Mapping[str, Shown]) -> list[CellStatus]:
    """A row per cell in the order of the grid. Several nodes of one stage show the least advanced."""
    texts = {node.id: _text(plan, node, states[node.id]) for node in plan.nodes if _is_shown(node, states)}
    rows = []
    for cell in plan.grid.cells:
        shown: dict[str, str] = {}
        for node in plan.wired[cell.name].nodes():
            if node.id in texts and shown.get(node.stage.name, "done") == "done":
                shown[node.stage.name] = texts[node.id]
        rows.append(CellStatus(cell.case, cell.seed, cell.family, shown))
    return rows


def _is_shown(node: Node, states: Mapping[str, Shown]) -> bool:
    return node.stage.name in COLUMNS or states[node.id] in TROUBLE


def _text(plan: Plan, node: Node, state: Shown) -> str:
    if state in ("running", "interrupted", "starting"):
        progress = last_progress(node.artefact(plan.store))
        return f"{state} {progress[0]}/{progress[1]}" if progress else state
    return state


def failures(plan: Plan, states: Mapping[str, Shown], reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """(stage folder, reason, log where it was started) of every failed node; a scheduler's reason where it has one."""
    found = []
    for node in plan.nodes:
        if states[node.id] == "failed":
            artefact = node.artefact(plan.store)
            number = artefact.newest()
            said = failure_of(artefact) or "no reason recorded"
            log = f"\nlog: {artefact.attempts / str(number) / 'stderr'}" if number else ""
            found.append((artefact.folder.name, f"{reasons.get(node.id, said)}{log}"))
    return found


def failure_of(artefact: Artefact) -> str:
    """What the newest attempt said of how it failed; "" where it said nothing that can be read."""
    try:
        result = artefact.result(artefact.newest())
        return str(result["message"]) if result else ""
    except (StoreError, KeyError, TypeError):
        return ""


def folded(cells: list[CellStatus], name: Callable[[CellStatus], str]) -> dict[str, dict[str, str]]:
    """Cells with the same name as one row: stage name -> lines such as `3 running`, for each state there is."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for cell in cells:
        stages = counts.setdefault(name(cell), {})
        for stage, text in cell.stages.items():
            stages.setdefault(stage, Counter())[text.split()[0]] += 1
    return {row: {stage: counted(found) for stage, found in stages.items()} for row, stages in counts.items()}


def counted(found: Counter[str]) -> str:
    """A line per state, in the order of `Shown`."""
    return "\n".join(f"{found[state]} {state}" for state in get_args(Shown) if found[state])
