"""DPO with a focal weight (after Lin et al. 2017): easy *pairs* count less, whichever response made them so.

    a    = sigmoid(beta * (delta_w - delta_l))      (detached)
    loss = (1 - a)^gamma * -log sigmoid(beta * (delta_w - delta_l))

The paper's tables name the method without a formula. One weight for the whole pair is what sets it apart from cooling,
which weighs the rejected term alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cwdpo.objectives.preference import PairLosses, Pairs, Preference

if TYPE_CHECKING:
    from torch import Tensor


class FocalDpo(Preference):
    """DPO whose pairs are weighed by how wrong they still are."""

    name: Literal["focal_dpo"] = "focal_dpo"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference; not printed by the paper."""
    gamma: float = Field(default=2.0, ge=0)
    """Focusing exponent; 0 is DPO."""

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair, nats, with `focal_weight` as a measure. Shape (P,)."""
        import torch

        margin = self.beta * (pairs.delta_chosen - pairs.delta_rejected)
        weight = torch.sigmoid(-margin.detach()) ** self.gamma  # 1 - a
        return PairLosses(focal_losses(margin, weight), {"focal_weight": weight})


def focal_losses(margin: Tensor, weight: Tensor) -> Tensor:
    """`weight * -log sigmoid(margin)` for weights that carry no gradient. Shape (P,)."""
    from torch.nn.functional import logsigmoid

    return -weight * logsigmoid(margin)
