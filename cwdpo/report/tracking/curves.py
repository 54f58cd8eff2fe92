"""Training curves, probes and scores as metrics.

A value that is not a finite number is left out: MLflow keeps infinity as 1.8e308 and draws both as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.graph import Node, Wired
from cwdpo.jobs.events import curve
from cwdpo.jobs.plan import Plan
from cwdpo.report.provenance import LAST_MOMENT
from cwdpo.report.tracking.names import valid_name

TRAININGS = ("pretrain", "stage1", "sft_phase", "stage2")
NOT_METRICS = frozenset({"time", "event", "step", "total"})
POINTS = 2000
"""Of one curve, at most: more take minutes a cell to write, and nobody's screen has them; the store keeps all."""


class Measured(NamedTuple):
    """One value of a metric; `when` in milliseconds since 1970."""

    name: str
    value: float
    step: int
    when: int


def trainings(plan: Plan, wired: Wired) -> dict[str, list[dict[str, Any]]]:
    """Points of the curve of each stage that trains; rounds of a stage go on counting steps, so they are one curve.

    A point that does not say when it was made is left out: MLflow has no place for it.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for node in wired.nodes():
        if node.stage.name in TRAININGS:
            points = (point for point in curve(node.artefact(plan.store)) if when(point) is not None)
            found.setdefault(node.stage.name, []).extend(points)
    return found


def when(point: Mapping[str, Any]) -> int | None:
    """Milliseconds since 1970, None where a point does not say, or says what no clock shows."""
    seconds = point.get("time")
    return int(seconds * 1000) if seconds is not None and 0 <= seconds < LAST_MOMENT else None


def of_points(stage: str, points: Iterable[Mapping[str, Any]]) -> Iterator[Measured]:
    """What a stage reported at its steps, such as `stage1/loss`."""
    for point in points:
        values = {key: point[key] for key in point if key not in NOT_METRICS}
        yield from _finite(stage, values, point["step"], when(point) or 0)


def thinned(points: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """At most `POINTS`, evenly spread, the last one always among them."""
    if len(points) <= POINTS:
        return points
    gap = (len(points) - 1) / (POINTS - 1)
    return [points[round(number * gap)] for number in range(POINTS)]


def of_trainings(plan: Plan, wired: Wired) -> Iterator[Measured]:
    """Curves of every stage that trains."""
    for stage, points in trainings(plan, wired).items():
        yield from of_points(stage, thinned(points))


def of_probes(plan: Plan, cell: str, ended: int) -> Iterator[Measured]:
    """What probes measured, such as `stage2/probe/margin`; at the time of the training step, where there was one."""
    if not plan.wired[cell].probed:
        return
    from cwdpo.dynamics.points import points_of
    from cwdpo.jobs.probed import recorded

    for stage, found in recorded(plan, cell).items():
        times = {int(point["step"]): made for point in found.training if (made := when(point)) is not None}
        for point in points_of(found.probes) if found.probes else ():
            step = int(point["step"])
            values = {key: point[key] for key in point if key != "step"}
            yield from _finite(f"{stage}/probe", values, step, times.get(step, ended))


@dataclass(frozen=True)
class Scores:
    """Of one benchmark.

    Attributes:
        values: name such as `captions/cider` -> value, in the unit of scores.json; without those not available.
        partial: whether only some items were scored.
    """

    values: Mapping[str, float]
    partial: bool


def read_scores(store: Store, benchmark: str, node: Node) -> Scores:
    """What a finished score stage found.

    Raises:
        StoreError: a file is missing or changed.
    """
    found = files.read_json(node.artefact(store).verified_files() / "scores.json")
    return Scores({one.name: one.value for one in _finite(benchmark, found["metrics"], 0, 0)}, bool(found["partial"]))


def _finite(prefix: str, values: Mapping[str, Any], step: int, when: int) -> Iterator[Measured]:
    for key, value in values.items():
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            yield Measured(valid_name(f"{prefix}/{key}"), float(value), step, when)
