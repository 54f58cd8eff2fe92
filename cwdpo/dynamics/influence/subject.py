"""A policy on its course, the samples it is updated on and the responses that are observed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwdpo.data.encoding import Group
from cwdpo.dynamics.influence.logits import Number
from cwdpo.dynamics.influence.losses import PairLoss, SupervisedLoss
from cwdpo.dynamics.influence.measure import CPU, Move, Observed, course_of_run, influence, sgd_step
from cwdpo.dynamics.influence.proposition import look
from cwdpo.dynamics.influence.vectors import Vector, copied, difference, put
from cwdpo.dynamics.rows import Row
from cwdpo.model.scoring import Scorer
from cwdpo.model.snapshots import Snapshots
from cwdpo.objectives.preference import Preference


class Weights:
    """The trained parameters at each step of a run.

    Args:
        model: as training found it: with the adapter that the run went on from, or a fresh one.
    """

    def __init__(self, model: Any, snapshots: Snapshots) -> None:
        self._model, self._snapshots = model, snapshots
        # A snapshot of a fresh adapter says that B is 0, but not what A is; gradients of B go through A.
        self._fresh = copied(model, CPU) if snapshots.start is None else None

    def put(self, step: int) -> None:
        """Give the model the weights of a step."""
        if step == 0 and self._fresh is not None:
            put(self._model, self._fresh)
        else:
            self._snapshots.put(self._model, step)

    def between(self, step: int, until: int) -> Vector:
        """What the run changed from one step to another, on the CPU; the model is left at `step`."""
        self.put(until)
        after = copied(self._model, CPU)
        self.put(step)
        return difference(after, copied(self._model, CPU))


@dataclass(frozen=True)
class Subject:
    """A policy, the samples it is updated on and the responses that are observed.

    Attributes:
        updated: id -> the responses of an update, chosen first.
        objective: whose loss an update goes down.
        learning_rate: of the plain SGD step.
    """

    scorer: Scorer
    weights: Weights
    updated: Mapping[str, Group]
    observed: Sequence[Observed]
    objective: Any
    learning_rate: float

    def reference(self) -> dict[str, Sequence[float]]:
        """Log-probabilities of each update's responses at the start of the run, nats."""
        self.weights.put(0)
        return {name: look(self.scorer, group).sums(["logp"])["logp"].tolist() for name, group in self.updated.items()}

    def rows(self, step: int, until: int | None, reference: Mapping[str, Sequence[float]]) -> Iterator[Row]:
        """Rows of one step; `until` is the next one that is looked at."""
        self.weights.put(step)
        moves = [self._step_on(name, reference[name]) for name in self.updated]
        if until is not None:
            moves.append(course_of_run(until, self.weights.between(step, until)))
        return influence(self.scorer, moves, self.observed)

    def _step_on(self, name: str, reference: Sequence[float]) -> Move:
        return sgd_step(self.scorer, name, self.updated[name], self._loss(reference), self.learning_rate)

    def _loss(self, reference: Sequence[float]) -> Number:
        if isinstance(self.objective, Preference):
            return PairLoss(self.objective, reference)
        return SupervisedLoss(self.objective)
