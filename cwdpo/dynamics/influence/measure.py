"""Every update against every observed response, at one state of the policy: predicted, measured, and Figure 5.

At a time there are in memory one gradient of an observation, a copy of the trained parameters, and the directions of
all updates, those on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwdpo.data.encoding import Group
from cwdpo.dynamics.influence.figure5 import Geometry, change_square, geometry
from cwdpo.dynamics.influence.logits import MEAN_LOGP, Derivative, Number, Seen, differentiate, see
from cwdpo.dynamics.influence.proposition import look, mean_logp, predicted_change, update
from cwdpo.dynamics.influence.vectors import Vector, moved
from cwdpo.dynamics.rows import Kind, Row
from cwdpo.model.scoring import Scorer

CPU = "cpu"


@dataclass(frozen=True)
class Observed:
    """A response that is watched: the only one of its group."""

    id: str
    kind: Kind
    group: Group


@dataclass(frozen=True)
class Move:
    """A way the parameters may go: `factor * change`, and what the rows say about it."""

    about: Row
    change: Vector
    factor: float


@dataclass(frozen=True)
class Before:
    """An observation before any move.

    Attributes:
        about: what its rows say about it, whatever the move.
        predicted: change of mean_logp by each move, to first order.
    """

    observed: Observed
    about: Row
    mean_logp: float
    seen: Seen
    geometry: Geometry
    predicted: tuple[float, ...]


def sgd_step(scorer: Scorer, name: str, group: Group, loss: Number, rate: float) -> Move:
    """A plain SGD step on the loss of one sample: its responses are one group, the chosen one first."""
    found = update(scorer, group, loss).kept(CPU)
    chosen, *rejected = found.squares
    about = {
        "update": name, "until": None, "loss": found.value, "update_gradient_norm": found.norm,
        "g_norm": found.logit_norm, "g_chosen_norm": math.sqrt(chosen),
        "g_rejected_norm": math.sqrt(sum(rejected)) if rejected else None,
    }  # fmt: skip
    return Move(about, found.gradient, -rate)


def course_of_run(until: int, change: Vector) -> Move:
    """What the run's own optimizer did up to its step `until`."""
    none: dict[str, Any] = dict.fromkeys(
        ("update", "loss", "update_gradient_norm", "g_norm", "g_chosen_norm", "g_rejected_norm")
    )
    return Move({**none, "until": until}, change, 1.0)


def influence(scorer: Scorer, moves: Sequence[Move], observations: Iterable[Observed]) -> Iterator[Row]:
    """A row for each move and observation, see `rows.influence_schema`; the policy is left as it is."""
    before = [_before(scorer, observed, moves) for observed in observations]
    for number, move in enumerate(moves):
        with moved(scorer.model, move.change, move.factor):
            for one in before:
                yield _finite({**move.about, **one.about, **_after(one, number, look(scorer, one.observed.group))})


def _before(scorer: Scorer, observed: Observed, moves: Sequence[Move]) -> Before:
    seen = see(scorer, [observed.group])
    found = differentiate(scorer.model, seen, MEAN_LOGP)
    kept = seen.kept(CPU)
    predicted = tuple(predicted_change(found, move.change, move.factor) for move in moves)
    shape = geometry(kept)
    return Before(observed, _about(observed, found, shape), mean_logp(kept), kept, shape, predicted)


def _about(observed: Observed, found: Derivative, shape: Geometry) -> Row:
    return {
        "observation": observed.id, "kind": observed.kind, "tokens": len(observed.group.responses[0]),
        "mean_logp": found.value, "observation_gradient_norm": found.norm, "a_norm": found.logit_norm,
        "fig5_a_square": shape.a_square, "fig5_g_square": shape.g_square,
    }  # fmt: skip


def _after(before: Before, move: int, after: Seen) -> Row:
    change = change_square(before.seen, after)
    return {
        "predicted": before.predicted[move], "measured": mean_logp(after) - before.mean_logp,
        "fig5_delta_square": change, "fig5_proxy": before.geometry.proxy(change),
    }  # fmt: skip


def _finite(row: Mapping[str, Any]) -> Row:
    """A diverged policy has no numbers: null, which JSON and Parquet can hold."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
