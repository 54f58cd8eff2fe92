"""SFT-C the other way round: what the paper's prose describes, against its Eqs. 3 and 4.

The penalty acts while negatives are *too unlikely* (their mean NLL is above C) and pulls their NLL down again. Not in
the paper's tables; without it the claim of its prose could not be tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cwdpo.objectives.supervised import Responses, State
from cwdpo.objectives.switch import Switched

if TYPE_CHECKING:
    from torch import Tensor


class SftCCeiling(Switched):
    """`E[nll(y+)] + lambda * relu(E[nll(y-)] - C)`, expectations over the global batch."""

    name: Literal["sft_c_ceiling"] = "sft_c_ceiling"
    weight: float = Field(default=0.1, ge=0)
    """lambda, as in `sft_c`."""
    ceiling: float = 4.0
    """C: nats per token (per response with `sequence_sum`) above which negatives are penalised."""

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of `E[nll(y+)] + on * lambda * (E[nll(y-)] - C)`, the switch `on` taken from `state`. Scalar, nats."""
        excess = beside.nll_share(self.per_token) - self.ceiling * beside.fraction()
        return chosen.nll_share(self.per_token) + self.weight * state["penalty_on"] * excess

    def penalty(self, beside_nll: float, state: State) -> float:
        """`lambda * relu(E[nll(y-)] - C)`, nats."""
        return self.weight * max(beside_nll - self.ceiling, 0.0)
