"""SFT that keeps the distribution along negatives flat: the entropy form of R_smooth.

The paper names entropy smoothing of the negative trajectory y- as one way to regularise; it prints no weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cwdpo.objectives.reading import Reading
from cwdpo.objectives.supervised import Beside, Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class SftEntropy(Supervised):
    """`E[nll(y+)] - eta * E[H(pi(. | x, y-_<t))]`, the entropy over the whole vocabulary."""

    name: Literal["sft_entropy"] = "sft_entropy"
    weight: float = Field(default=0.05, ge=0)
    """eta; not printed by the paper."""

    beside: ClassVar[Beside | None] = "rejected"
    reads: ClassVar[Reading] = Reading(("logp", "entropy"))

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of the loss. Scalar, nats."""
        return chosen.nll_share(self.per_token) - self.weight * beside.mean_share("entropy", self.per_token)
