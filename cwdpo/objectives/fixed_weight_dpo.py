"""CW-DPO whose cooling weight is one number for all pairs: the ablation "fixed w_c" (0.7; at 1.0 it is DPO)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cwdpo.objectives.cw_dpo import cooled_losses
from cwdpo.objectives.preference import PairLosses, Pairs, Preference


class FixedWeightDpo(Preference):
    """`-log sigmoid(beta * (delta_w - w * delta_l))`."""

    name: Literal["fixed_weight_dpo"] = "fixed_weight_dpo"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference; not printed by the paper."""
    weight: float = Field(default=0.7, ge=0)
    """w, in the place of w_c."""

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair, nats. Shape (P,)."""
        return PairLosses(cooled_losses(pairs, self.weight, self.beta), {})
