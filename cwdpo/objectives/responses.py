"""What objectives see: log-probabilities of responses, never models.

Shapes: R responses of this micro-batch, P pairs (one chosen, one rejected response). All values in nats, float32.
A *share* is this micro-batch's part of the loss of the global batch: shares of all micro-batches and ranks add up
to the loss, whatever the micro-batch and the number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cwdpo.base.config import Config

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, float]
"""What an objective carries from step to step (a switch, a multiplier); part of every checkpoint."""


@dataclass(frozen=True)
class Responses:
    """Responses of one kind (chosen, or rejected) in a micro-batch.

    Attributes:
        logps: sum of token log-probabilities. Shape (R,).
        lengths: tokens per response, end-of-turn included. Shape (R,).
        weights: 1 for a response, 0 for padding of a ragged micro-batch. Shape (R,).
        total: number of responses of this kind in the global batch.
    """

    logps: Tensor
    lengths: Tensor
    weights: Tensor
    total: int

    def fraction(self) -> Tensor:
        """Share of the number 1: which part of the global batch these responses are. Scalar."""
        return self.weights.sum() / max(self.total, 1)

    def nll_share(self, per_token: bool) -> Tensor:
        """Share of the mean negative log-likelihood: mean over responses of -logp/L (or of -logp). Scalar."""
        nll = -self.logps / self.lengths if per_token else -self.logps
        return (nll * self.weights).sum() / max(self.total, 1)


class Supervised(Config):
    """What the step loop asks of a Stage-1 objective; the defaults fit one that carries nothing from step to step."""

    name: str
    reduction: Literal["token_mean", "sequence_sum"] = "token_mean"
    """nll of one response: `-logp/L` (one scale for C and l_floor), or `-logp` (a long one exceeds C at once)."""

    uses_rejected: ClassVar[bool] = False
    """True when rejected responses enter the loss."""

    @property
    def needs_batch_mean(self) -> bool:
        """True when the loss waits for the mean NLL of rejected responses over the current global batch."""
        return False

    @property
    def per_token(self) -> bool:
        """True when the nll of a response is `-logp/L`."""
        return self.reduction == "token_mean"

    def initial_state(self) -> State:
        """What is carried, before the first step."""
        return {}

    def next_state(self, state: State, rejected_nll: float) -> State:
        """What is carried after a step whose global mean NLL of rejected responses was `rejected_nll`."""
        return state

    def share(self, chosen: Responses, rejected: Responses, state: State) -> Tensor:
        """This micro-batch's share of the loss. Scalar, nats."""
        raise TypeError(f"{type(self).__name__} does not say what its loss is")

    def penalty(self, rejected_nll: float) -> float:
        """The true penalty at a global mean NLL of rejected responses, nats, for the training curve."""
        return 0.0


@dataclass(frozen=True)
class Pairs:
    """Log-probabilities of P pairs under the policy and under the reference. Every tensor has shape (P,)."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    rejected_lengths: Tensor

    @property
    def delta_chosen(self) -> Tensor:
        """delta_w = logp_policy(y_w) - logp_reference(y_w). Shape (P,)."""
        return self.policy_chosen - self.reference_chosen

    @property
    def delta_rejected(self) -> Tensor:
        """delta_l = logp_policy(y_l) - logp_reference(y_l). Shape (P,)."""
        return self.policy_rejected - self.reference_rejected


@dataclass(frozen=True)
class PairLosses:
    """Loss of each pair and what its failure is read from.

    Attributes:
        losses: shape (P,); a dropped pair has loss 0 and stays in the denominator of the mean.
        measures: name -> detached values, shape (P,); their means over the global batch are logged.
    """

    losses: Tensor
    measures: dict[str, Tensor]
