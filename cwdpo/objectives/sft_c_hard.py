"""SFT under the hard constraint of Eq. 3, by dual ascent: the ablation "w/o Soft Penalty".

    min E[nll(y+)]  subject to  E[nll(y-)] >= C

The paper does not say how it enforces the constraint; this is the standard way. The multiplier mu grows while the
constraint is violated, shrinks towards 0 while it holds, and is part of every checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cwdpo.objectives.supervised import Beside, Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class SftCHard(Supervised):
    """`E[nll(y+)] + mu * (C - E[nll(y-)])`; after each step `mu <- clip(mu + rho * (C - E[nll(y-)]), 0, mu_max)`."""

    name: Literal["sft_c_hard"] = "sft_c_hard"
    floor: float = 4.0
    """C of Eq. 3: nats per token (per response with `sequence_sum`) under which the constraint is violated."""
    step: float = Field(default=0.05, gt=0)
    """rho, the step of the dual ascent; not printed by the paper."""
    initial: float = Field(default=0.0, ge=0)
    """mu before the first step."""
    largest: float = Field(default=10.0, gt=0)
    """mu_max: a constraint that cannot be met must not outgrow the likelihood of the truth without bound."""

    beside: ClassVar[Beside | None] = "rejected"

    def initial_state(self) -> State:
        """The multiplier before the first step."""
        return {"multiplier": min(self.initial, self.largest)}

    def next_state(self, state: State, beside_nll: float) -> State:
        """One step of dual ascent at the global mean `beside_nll` = E[nll(y-)]."""
        multiplier = state["multiplier"] + self.step * (self.floor - beside_nll)
        return {"multiplier": min(max(multiplier, 0.0), self.largest)}

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of `E[nll(y+)] + mu * (C - E[nll(y-)])`. Scalar, nats."""
        gap = self.floor * beside.fraction() - beside.nll_share(self.per_token)
        return chosen.nll_share(self.per_token) + state["multiplier"] * gap

    def penalty(self, beside_nll: float, state: State) -> float:
        """`mu * (C - E[nll(y-)])`, nats; below 0 while the constraint holds and mu has not yet gone."""
        return state["multiplier"] * (self.floor - beside_nll)
