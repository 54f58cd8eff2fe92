"""GRPO: responses of one prompt are judged by each other, so that no value head is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from cwdpo.objectives.online import Actions, Experience, Online, Targets, TokenLosses
from cwdpo.objectives.reading import Reading

EPSILON = 1e-4
"""Added to the standard deviation of a group, as TRL does; DeepSeekMath divides by the deviation alone."""


class Grpo(Online):
    """`mean over responses of 1/L sum_t [-min(r_t A, clip(r_t) A) + kl k3_t]`, A = (reward - mean) / (std + 1e-4).

    Shao et al., "DeepSeekMath" (2024), equations 3 and 4. Mean and standard deviation (unbiased, as in TRL) are those
    of the responses of one prompt; a group of equal rewards teaches nothing. TRL's own defaults differ: the loss `dapo`
    (a mean over all tokens), and no KL.
    """

    name: Literal["grpo"] = "grpo"
    samples: int = Field(default=8, ge=2)
    """Responses sampled for each prompt (G); 8 is not printed by the paper [choice]."""
    kl: float = Field(default=0.04, ge=0)
    """Weight of the k3 estimate of the KL to the policy at the start of the stage; with 0 that one is not asked."""

    reads: ClassVar[Reading] = Reading(observed=("entropy",))
    by_response: ClassVar[bool] = True

    def targets(self, experience: Experience) -> Targets:
        """Rewards normalised within the responses of one prompt, the same for all tokens of a response."""
        groups = experience.rewards.view(-1, self.samples)
        spread = groups.std(1, keepdim=True)
        advantages = ((groups - groups.mean(1, keepdim=True)) / (spread + EPSILON)).flatten()
        measures = {
            "advantage_std": float(advantages.std()),
            "zero_std_groups": float((groups.amax(1) == groups.amin(1)).to(groups.dtype).mean()),
        }
        return Targets(advantages[:, None] * experience.mask, None, measures)

    def token_losses(self, actions: Actions) -> TokenLosses:
        """Clipped surrogate, and the estimated KL at each token. Shapes (R, L)."""
        found = self.surrogate(actions)
        return replace(found, losses=found.losses + self.kl * actions.k3()) if self.kl else found
