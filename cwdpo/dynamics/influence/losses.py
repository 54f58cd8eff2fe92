"""The loss of one sample, as the objective that trains has it: what an update is the gradient of.

The responses of the sample come chosen first, then the rejected ones. Shapes: R responses, P = R - 1 pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cwdpo.objectives.preference import PLAIN_TERMS, Pairs, Preference, Term
from cwdpo.objectives.reading import LOGPS, Quantity, Reading
from cwdpo.objectives.supervised import Responses, State, Supervised
from cwdpo.objectives.switch import Switched

if TYPE_CHECKING:
    from torch import Tensor


def unsupported(objective: object) -> str | None:
    """Why the loss of one sample cannot be told from its responses, or None where it can.

    It can where a loss sees the chosen and the rejected responses under the whole image, and nothing else.
    """
    if isinstance(objective, Preference):
        others = sorted({*objective.terms, *objective.still_terms} - {*PLAIN_TERMS})
        return f"compares other responses, too: {', '.join(others)}" if others else None
    if not isinstance(objective, Supervised):
        return "samples its own responses"
    if objective.beside not in (None, "rejected"):
        return f"learns from what rejected responses come with: {objective.beside}"
    if "kl" in objective.reading.names:
        return "asks the policy at the start, too"
    if objective.initial_state() and not isinstance(objective, Switched):
        return f"carries from step to step what no kept weights tell: {', '.join(objective.initial_state())}"
    return None


@dataclass(frozen=True)
class PairLoss:
    """Mean over a sample's pairs of a preference objective's loss, nats.

    Attributes:
        reference: log-probability under the reference of the chosen response, then of each rejected one, nats.
        importance: weight of each pair; None weighs all as 1.
    """

    objective: Preference
    reference: Sequence[float]
    importance: Sequence[float] | None = None

    @property
    def reading(self) -> Reading:
        """Log-probabilities."""
        return LOGPS

    def __call__(self, sums: Mapping[Quantity, Tensor], lengths: Tensor) -> Tensor:
        """Scalar."""
        policy, reference = sums["logp"], sums["logp"].new_tensor(self.reference)
        losses = self.objective.pair_losses(Pairs(_terms(policy), _terms(reference), _terms(lengths))).losses
        return (losses * losses.new_tensor(self.importance or [1.0] * len(losses))).mean()


def _terms(values: Tensor) -> dict[Term, Tensor]:
    """Values of responses (R,) by term, one for each pair. Shapes (P,)."""
    return {"chosen": values[:1].expand(len(values) - 1), "rejected": values[1:]}


@dataclass(frozen=True)
class SupervisedLoss:
    """A supervised objective's loss of a batch that is this sample alone, nats.

    Attributes:
        state: what the objective carries; None is what it has before the first step. A penalty that is switched is on
            where this very sample violates the constraint, whatever the state, as Eq. 4 has it.
    """

    objective: Supervised
    state: State | None = None

    @property
    def reading(self) -> Reading:
        """What the objective learns from."""
        return Reading(self.objective.reading.trained)

    def __call__(self, sums: Mapping[Quantity, Tensor], lengths: Tensor) -> Tensor:
        """Scalar."""
        chosen, beside = _part(sums, lengths, slice(0, 1)), _part(sums, lengths, slice(1, None))
        return self.objective.share(chosen, beside, self._state(beside))

    def _state(self, beside: Responses) -> State:
        state = self.objective.initial_state() if self.state is None else self.state
        if not isinstance(self.objective, Switched):
            return state
        return self.objective.next_state(state, float(beside.nll_share(self.objective.per_token).detach()))


def _part(sums: Mapping[Quantity, Tensor], lengths: Tensor, part: slice) -> Responses:
    own = lengths[part]
    return Responses({name: values[part] for name, values in sums.items()}, own, own.new_ones(len(own)), len(own))
