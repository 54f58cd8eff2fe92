"""SFT with smoothed labels, a baseline of Table 3: torch's `cross_entropy(..., label_smoothing=s)` on y+."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cwdpo.objectives.reading import Reading
from cwdpo.objectives.supervised import Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class SftLabelSmoothing(Supervised):
    """`E[(1 - s) nll(y+) + s * ce(y+, uniform)]`."""

    name: Literal["sft_label_smoothing"] = "sft_label_smoothing"
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    """s: share of the target that is spread evenly over the vocabulary; not printed by the paper."""

    reads: ClassVar[Reading] = Reading(("logp", "uniform"))

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of the loss. Scalar, nats."""
        return chosen.smoothed_share(self.smoothing, self.per_token)
