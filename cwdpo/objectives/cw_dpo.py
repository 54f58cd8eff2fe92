"""Cooling-Weighted DPO, the paper's Stage 2 (Eqs. 6, 7): easy negatives lose their pull.

    w_c  = sigmoid((mean_logp_policy(y_l) - l_floor) / tau)     (detached)
    loss = -log sigmoid(beta * (delta_w - w_c * delta_l))

w_c never exceeds sigmoid(-l_floor / tau), because a mean log-probability is at most 0: 0.953 at the defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cwdpo.objectives.preference import PairLosses, Pairs, Preference

if TYPE_CHECKING:
    from torch import Tensor


class CwDpo(Preference):
    """DPO whose rejected term is scaled by how competitive the rejected response still is."""

    name: Literal["cw_dpo"] = "cw_dpo"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference; not printed by the paper."""
    l_floor: float = -3.0
    """Mean log-probability, nats per token, at which a negative counts half."""
    tau: float = Field(default=1.0, gt=0)
    """Width of the transition, nats per token."""
    filter: Literal["zero", "drop", "keep"] = "zero"
    """A rejected response with mean_logp under `l_floor - filter_margin * tau`: its weight becomes exactly 0 (`zero`),
    its pair leaves the loss but not the denominator (`drop`), or nothing happens (`keep`, the ablation)."""
    filter_margin: float = Field(default=1.0, ge=0)
    """Distance under `l_floor`, in units of tau, from which a negative is filtered; 3 filters next to nothing."""

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair, nats, with `w_c` and `filtered` as measures. Shape (P,)."""
        import torch

        mean_logp = pairs.policy["rejected"].detach() / pairs.lengths["rejected"]
        filtered = mean_logp < self.l_floor - self.filter_margin * self.tau
        weight = self._cooling_weight(mean_logp, filtered)
        losses = cooled_losses(pairs, weight, self.beta)
        if self.filter == "drop":
            losses = torch.where(filtered, torch.zeros_like(losses), losses)
        return PairLosses(losses, {"w_c": weight, "filtered": filtered.to(losses.dtype)}, {"w_c": weight})

    def _cooling_weight(self, mean_logp: Tensor, filtered: Tensor) -> Tensor:
        """w_c (Eq. 6). Shape (P,)."""
        import torch

        weight = torch.sigmoid((mean_logp - self.l_floor) / self.tau)
        return torch.where(filtered, torch.zeros_like(weight), weight) if self.filter == "zero" else weight


def cooled_losses(pairs: Pairs, weight: Tensor | float, beta: float) -> Tensor:
    """`-log sigmoid(beta * (delta_w - w_c * delta_l))` (Eq. 7) for weights w_c that carry no gradient. Shape (P,)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (pairs.delta_chosen - weight * pairs.delta_rejected))
