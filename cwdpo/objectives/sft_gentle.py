"""SFT with gentle negatives: the low-weight smoothed supervision of the paper's abstract.

Negatives are learned from, too, with a small weight and smoothed labels: the paper hopes that this keeps the model from
growing overconfident around them. Weight and smoothing are not printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cwdpo.objectives.reading import Reading
from cwdpo.objectives.supervised import Beside, Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class SftGentle(Supervised):
    """`E[nll(y+)] + eta * E[label-smoothed ce(y-)]`, 0 < eta << 1."""

    name: Literal["sft_gentle"] = "sft_gentle"
    weight: float = Field(default=0.05, ge=0)
    """eta; not printed by the paper."""
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the target that is spread evenly over the vocabulary; not printed by the paper."""

    beside: ClassVar[Beside | None] = "rejected"
    reads: ClassVar[Reading] = Reading(("logp", "uniform"))

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of the loss. Scalar, nats."""
        gentle = beside.smoothed_share(self.smoothing, self.per_token)
        return chosen.nll_share(self.per_token) + self.weight * gentle
