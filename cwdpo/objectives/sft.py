"""Standard supervised fine-tuning: `E[nll(y+)]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cwdpo.objectives.supervised import Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class Sft(Supervised):
    """Mean over responses of the negative log-likelihood of the chosen response."""

    name: Literal["sft"] = "sft"

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of `E[nll(y+)]`. Scalar, nats."""
        return chosen.nll_share(self.per_token)
