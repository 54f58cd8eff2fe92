"""Direct Preference Optimization (Rafailov et al. 2023, Eq. 7).

Also what SeVa, SIMA and GT-DPO train: they differ from one another in where their pairs come from.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cwdpo.objectives.preference import PairLosses, Pairs, Preference


class Dpo(Preference):
    """`-log sigmoid(beta * (delta_w - delta_l))`."""

    name: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference; not printed by the paper."""

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair, nats. Shape (P,)."""
        from torch.nn.functional import logsigmoid

        margin = self.beta * (pairs.delta_chosen - pairs.delta_rejected)
        return PairLosses(-logsigmoid(margin), {})
