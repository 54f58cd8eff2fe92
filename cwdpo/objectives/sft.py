"""Standard supervised fine-tuning: `E[nll(y+)]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from cwdpo.base.config import Config
from cwdpo.objectives.responses import Responses, State

if TYPE_CHECKING:
    from torch import Tensor


class Sft(Config):
    """Mean over responses of the negative log-likelihood of the chosen response."""

    name: Literal["sft"] = "sft"
    reduction: Literal["token_mean", "sequence_sum"] = "token_mean"
    """nll of one response: `-logp/L` (so that C and l_floor live on one scale), or `-logp`."""

    uses_rejected: ClassVar[bool] = False
    needs_batch_mean: ClassVar[bool] = False

    def initial_state(self) -> State:
        """Nothing is carried from step to step."""
        return {}

    def next_state(self, state: State, rejected_nll: float) -> State:
        """Nothing to update."""
        return state

    def share(self, chosen: Responses, rejected: Responses, state: State) -> Tensor:
        """Share of `E[nll(y+)]`. Scalar, nats."""
        return chosen.nll_share(per_token=self.reduction == "token_mean")

    def penalty(self, rejected_nll: float) -> float:
        """There is none."""
        return 0.0
