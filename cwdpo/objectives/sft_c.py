"""Constrained SFT, the paper's Stage 1 (Eqs. 3, 4): keep the NLL of negatives at or above C.

The penalty acts while negatives are *too likely* (their mean NLL is under C) and pushes their NLL up. Some sentences of
the paper describe the opposite direction; its Eqs. 3, 4 and 9 agree with this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cwdpo.objectives.supervised import Responses, State
from cwdpo.objectives.switch import Switched

if TYPE_CHECKING:
    from torch import Tensor


class SftC(Switched):
    """`E[nll(y+)] + lambda * relu(C - E[nll(y-)])` (Eq. 4), expectations over the global batch."""

    name: Literal["sft_c"] = "sft_c"
    weight: float = Field(default=0.1, ge=0)
    """lambda of Eq. 4."""
    floor: float = 4.0
    """C of Eq. 4: nats per token (per response with `sequence_sum`) under which negatives are penalised."""

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of `E[nll(y+)] + on * lambda * (C - E[nll(y-)])`, the switch `on` taken from `state`. Scalar, nats.

        Where the switch agrees with this batch that is Eq. 4; the true penalty is logged by `penalty` either way.
        """
        gap = self.floor * beside.fraction() - beside.nll_share(self.per_token)
        return chosen.nll_share(self.per_token) + self.weight * state["penalty_on"] * gap

    def penalty(self, beside_nll: float, state: State) -> float:
        """`lambda * relu(C - E[nll(y-)])`, nats."""
        return self.weight * max(self.floor - beside_nll, 0.0)
