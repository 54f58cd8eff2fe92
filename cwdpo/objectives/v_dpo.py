"""V-DPO (arXiv 2411.02712): DPO whose policy is guided away from what it would say without seeing the image.

    guided(y) = gamma * logp(y | v, x) - (gamma - 1) * logp(y | v', x)      (second term detached)
    loss      = -log sigmoid(beta * ((guided(y_w) - logp_ref(y_w)) - (guided(y_l) - logp_ref(y_l))))

v' is the image as zeros after normalisation. With gamma 0, as in the released script, nothing would be trained: it is
refused. With gamma 1 this is DPO, and v' is not looked at. The default 1.5 is this project's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cwdpo.objectives.preference import PairLosses, Pairs, Preference, Term

if TYPE_CHECKING:
    from torch import Tensor


class VDpo(Preference):
    """DPO with vision-guided log-probabilities of the policy."""

    name: Literal["v_dpo"] = "v_dpo"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference, as released."""
    gamma: float = Field(default=1.5, gt=0)
    """Strength of the guidance by the image; 1 is DPO."""

    @property
    def still_terms(self) -> tuple[Term, ...]:
        """The same responses without an image, where they count."""
        return () if self.gamma == 1 else ("chosen|blank", "rejected|blank")

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair, nats; `guidance` is how much the image adds to y_w, nats. Shape (P,)."""
        import torch
        from torch.nn.functional import logsigmoid

        chosen = self._guided(pairs, "chosen") - pairs.reference["chosen"]
        rejected = self._guided(pairs, "rejected") - pairs.reference["rejected"]
        losses = -logsigmoid(self.beta * (chosen - rejected))
        if not self.still_terms:
            return PairLosses(losses, {})
        with torch.no_grad():
            guidance = pairs.policy["chosen"] - pairs.policy["chosen|blank"]
        return PairLosses(losses, {"guidance": guidance})

    def _guided(self, pairs: Pairs, role: Literal["chosen", "rejected"]) -> Tensor:
        """Shape (P,)."""
        seeing = self.gamma * pairs.policy[role]
        if not self.still_terms:
            return seeing
        blank: Term = "chosen|blank" if role == "chosen" else "rejected|blank"
        return seeing - (self.gamma - 1) * pairs.policy[blank].detach()
