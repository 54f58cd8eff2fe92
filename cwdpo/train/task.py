"""What a stage brings to the step loop: which responses of a sample it scores, and what the loss is.

Everything a task returns is a *share*: a number that, added over micro-batches and ranks, gives the value for the
global batch. A quantity whose name begins with `gradient_` is the square of a norm until the step is finished.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import DataOrder, Sample
from cwdpo.model.logps import Scores
from cwdpo.objectives.reading import LOGPS, Reading
from cwdpo.train.config import TrainingSpec

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.train.loop import Trainer

Shares = dict[str, "Tensor"]

GRADIENT = "gradient_"
"""Before the name of a term: norm of its gradient in the logits of the global batch."""


@dataclass(frozen=True)
class Encoded:
    """What is scored of a sample.

    Attributes:
        groups: with gradient.
        still: without.
    """

    groups: Sequence[Group]
    still: Sequence[Group] = ()


@dataclass(frozen=True)
class Scored:
    """A micro-batch after the forward pass.

    Attributes:
        samples: its samples.
        weights: weight of each sample; 0 where it only keeps the ranks in step.
        scores: of every response with gradient, group by group, sample by sample.
        batch: the global batch it is part of, for the denominators.
        still: of every response without gradient.
    """

    samples: Sequence[Sample]
    weights: Sequence[float]
    scores: Scores
    batch: Sequence[Sample]
    still: Scores | None = None


class Order(Protocol):
    """Which samples make up the global batch of each step."""

    steps_per_epoch: int

    def batch(self, step: int) -> list[Sample]:
        """Samples of optimizer step `step` (0-based)."""


class Task:
    """What distinguishes one training from another; the defaults are those of training on given responses."""

    reading: Reading = LOGPS
    """What is read of the responses with gradient."""
    accumulates = True
    """False when the loss needs the whole global batch in one micro-batch per rank."""
    needs_start = False
    """True when the policy as it was before the first step is asked, too."""
    kinds: Collection[str] = ()
    """What of a sample is scored beside its chosen response: `rejected`, `revised`, `dialogue`."""

    def order(self, samples: Sequence[Sample], spec: TrainingSpec) -> Order:
        """Which samples each step takes."""
        return DataOrder(samples, spec.optimization.batch_size, spec.seed, spec.one_per_image)

    def ready(self, trainer: Trainer, step: int) -> int:
        """Make what the steps from `step` on need; returns the step up to which it is there. Collective."""
        return trainer.total

    def check(self, collator: Collator, samples: Iterable[Sample]) -> None:
        """Raise `DataError` for texts that cannot fit, before anything is trained."""
        collator.check_texts(samples, self.kinds)

    def encode(self, collator: Collator, sample: Sample) -> Encoded:
        """What is scored of a sample; several threads call this."""
        raise TypeError(f"{type(self).__name__} does not say what is scored")

    def examples(self, collator: Collator, sample: Sample) -> Sequence[Group]:
        """Groups such as those that are scored of a sample, one of each kind, before anything is trained."""
        encoded = self.encode(collator, sample)
        return [*encoded.groups, *encoded.still]

    def initial_state(self) -> Mapping[str, float]:
        """What is carried from step to step, before the first."""
        return {}

    def share(self, scored: Scored, state: Mapping[str, float]) -> tuple[Tensor, Shares]:
        """This micro-batch's share of the loss, and of every mean that is logged."""
        raise TypeError(f"{type(self).__name__} does not say what its loss is")

    def finish(self, means: dict[str, float], state: Mapping[str, float]) -> Mapping[str, float]:
        """The state after a step, given the global means, to which it may add."""
        return state


def gradient_shares(share: Tensor, scores: Scores, rows: Mapping[str, Any]) -> Shares:
    """Shares of the squared norms of the loss's gradient in the logits, term by term, as `gradient_<term>`.

    In the logits where a token y of a response is predicted, a term c * logp has the gradient `c (onehot(y) - p)`.

    Args:
        rows: name of a term -> which responses it is about.
    """
    import torch

    (slopes,) = torch.autograd.grad(share, scores.logps, retain_graph=True)
    squares = slopes.detach() ** 2 * scores.sums["residual"]
    return {f"{GRADIENT}{name}": squares.index_select(0, index).sum() for name, index in rows.items()}


def rooted(means: dict[str, float]) -> None:
    """Replace squared norms, once they are summed, by norms."""
    for name in means:
        if name.startswith(GRADIENT):
            means[name] = math.sqrt(means[name])
