"""What supervised objectives (Stage 1) see: log-probabilities of responses, never models.

Shapes: R responses of this micro-batch. All values in nats, float32. A *share* is this micro-batch's part of the loss
of the global batch: shares of all micro-batches and ranks add up to the loss, whatever the micro-batch and the number
of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cwdpo.base.config import Config
from cwdpo.objectives.reading import LOGPS, Quantity, Reading
from cwdpo.objectives.supply import Supply

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, float]
"""What an objective carries from step to step (a switch, a multiplier); part of every checkpoint."""

Beside = Literal["rejected", "revised", "dialogue"]
"""What is scored beside the chosen response of a sample: its rejected ones, their revisions, or the dialogues that
correct them."""


@dataclass(frozen=True)
class Responses:
    """Responses of one kind (chosen, or what is scored beside it) in a micro-batch.

    Attributes:
        sums: quantity -> its sum over the tokens of each response. Shape (R,).
        lengths: tokens per response, end-of-turn included. Shape (R,).
        weights: 1 for a response, 0 for padding of a ragged micro-batch. Shape (R,).
        total: number of responses of this kind in the global batch.
    """

    sums: Mapping[Quantity, Tensor]
    lengths: Tensor
    weights: Tensor
    total: int

    def fraction(self) -> Tensor:
        """Share of the number 1: which part of the global batch these responses are. Scalar."""
        return self.weights.sum() / max(self.total, 1)

    def mean_share(self, quantity: Quantity, per_token: bool) -> Tensor:
        """Share of the mean over responses of a quantity: of its mean over tokens, or of its sum. Scalar."""
        sums = self.sums[quantity]
        values = sums / self.lengths if per_token else sums
        return (values * self.weights).sum() / max(self.total, 1)

    def nll_share(self, per_token: bool) -> Tensor:
        """Share of the mean negative log-likelihood: mean over responses of -logp/L (or of -logp). Scalar."""
        return -self.mean_share("logp", per_token)

    def smoothed_share(self, smoothing: float, per_token: bool) -> Tensor:
        """Share of the mean label-smoothed cross-entropy, `(1 - s) nll - s * uniform`. Scalar.

        As `torch.nn.functional.cross_entropy(..., label_smoothing=s)`: the target is `(1 - s) onehot + s/V`.
        """
        return (1 - smoothing) * self.nll_share(per_token) - smoothing * self.mean_share("uniform", per_token)


class Supervised(Config):
    """What the step loop asks of a supervised objective; the defaults fit one that carries nothing along."""

    name: str
    reduction: Literal["token_mean", "sequence_sum"] = "token_mean"
    """nll of one response: `-logp/L` (one scale for C and l_floor), or `-logp` (a long one exceeds C at once)."""

    beside: ClassVar[Beside | None] = None
    """What enters the loss beside the chosen response."""
    reads: ClassVar[Reading] = LOGPS
    """What is read of the responses."""

    @property
    def reading(self) -> Reading:
        """What is read of the responses with these settings."""
        return self.reads

    @property
    def uses_rejected(self) -> bool:
        """True when something made of rejected responses enters the loss."""
        return self.beside is not None

    @property
    def requires(self) -> frozenset[Supply]:
        """What every rejected response must come with."""
        return frozenset[Supply]({self.beside}) if self.beside in ("revised", "dialogue") else frozenset()

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

    def next_state(self, state: State, beside_nll: float) -> State:
        """What is carried after a step with this global mean NLL of what is scored beside the chosen responses."""
        return state

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """This micro-batch's share of the loss. Scalar, nats."""
        raise TypeError(f"{type(self).__name__} does not say what its loss is")

    def penalty(self, beside_nll: float, state: State) -> float | None:
        """The true penalty at a global mean NLL of rejected responses, nats, for the curve; None without one."""
        return None
