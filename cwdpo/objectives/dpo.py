"""Direct Preference Optimization (Rafailov et al. 2023, Eq. 7)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cwdpo.base.config import Config
from cwdpo.objectives.responses import PairLosses, Pairs


class Dpo(Config):
    """`-log sigmoid(beta * (delta_w - delta_l))`."""

    name: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference; not printed by the paper."""

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair, nats. Shape (P,)."""
        from torch.nn.functional import logsigmoid

        margin = self.beta * (pairs.delta_chosen - pairs.delta_rejected)
        return PairLosses(-logsigmoid(margin), {})
