"""Continual SFT, the baseline of the nSFT paper (arXiv 2411.14797): `E[nll(y_c)]` on preference data.

The loss is that of `sft`; what differs is the data, the chosen responses of Stage 2's portion, and the start, which is
Stage 1's result. So it stands in Stage 2's place, where DPO would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cwdpo.objectives.supervised import Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class ContinualSft(Supervised):
    """Goes on with supervised training on the chosen responses of preference pairs."""

    name: Literal["continual_sft"] = "continual_sft"

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of `E[nll(y_c)]`. Scalar, nats."""
        return chosen.nll_share(self.per_token)
