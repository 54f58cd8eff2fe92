"""PPO: a value head says what was to be expected, and every token is judged by what came instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cwdpo.objectives.online import Actions, Experience, Online, Targets, TokenLosses
from cwdpo.objectives.reading import Reading

if TYPE_CHECKING:
    from torch import Tensor

WHITENING = 1e-8
"""Added to the variance that advantages are divided by the root of."""


class Ppo(Online):
    """`mean over tokens of -min(r_t A_t, clip(r_t) A_t) + value_weight/2 max((v_t - R_t)^2, (clip(v_t) - R_t)^2)`.

    The reward of a response comes at its last token; every token pays `kl (logp_old - logp_reference)`. Advantages are
    GAE's, whitened over all tokens of a phase; returns R are the advantages before that, plus the values. A response
    that max_new_tokens cut off is taken for ended. Schulman et al., "Proximal Policy Optimization Algorithms" (2017),
    equations 7, 9 and 11; Ziegler et al., "Fine-Tuning Language Models from Human Preferences" (2019), equation 2. The
    paper prints none of PPO's settings [choice].
    """

    name: Literal["ppo"] = "ppo"
    kl: float = Field(default=0.05, ge=0)
    """Price of a nat by which a token's log-probability is above that of the policy at the start [choice]."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """Gamma: what a reward one token later is worth [choice]."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """Lambda: from one-step advantages (0) to all that follows (1) [choice]."""
    value_weight: float = Field(default=0.1, ge=0)
    """Weight of the value loss [choice]."""
    value_clip: float = Field(default=0.2, gt=0)
    """How far a value may move from what it was when the phase began before its loss stops falling [choice]."""

    reads: ClassVar[Reading] = Reading(trained=("logp", "value"), observed=("entropy",))
    by_response: ClassVar[bool] = False
    looks_at_old: ClassVar[bool] = True

    def targets(self, experience: Experience) -> Targets:
        """Whitened advantages, and returns."""
        values = _given(experience.values)
        raw = self._advantages(self._rewards(experience), values)
        returns = (raw + values) * experience.mask
        mean, variance = _moments(raw, experience.mask)
        advantages = (raw - mean) / (variance + WHITENING).sqrt() * experience.mask
        measures = {
            "advantage_std": float(variance.sqrt()),
            "explained_variance": _explained(values, returns, experience.mask),
        }
        return Targets(advantages, returns, measures)

    def token_losses(self, actions: Actions) -> TokenLosses:
        """Clipped surrogate and clipped value loss. Shapes (R, L)."""
        import torch

        found = self.surrogate(actions)
        values, before, returns = _given(actions.values), _given(actions.old_values), _given(actions.returns)
        near = before + (values - before).clamp(-self.value_clip, self.value_clip)
        value_losses = 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)
        measures = {**found.measures, "value_loss": value_losses.detach()}
        return TokenLosses(found.losses + self.value_weight * value_losses, measures)

    def _rewards(self, experience: Experience) -> Tensor:
        """Of each token: the price of leaving the reference, and at the last one the reward. Shape (R, L)."""
        import torch

        mask = experience.mask
        last = mask - torch.nn.functional.pad(mask[:, 1:], (0, 1))
        rewards = last * experience.rewards[:, None]
        if experience.reference is None:
            return rewards
        return rewards - self.kl * (_given(experience.old) - experience.reference) * mask

    def _advantages(self, rewards: Tensor, values: Tensor) -> Tensor:
        """`A_t = d_t + gamma lambda A_t+1`, `d_t = r_t + gamma V_t+1 - V_t`, nothing after the end. Shape (R, L)."""
        import torch

        columns = []
        following = expected = torch.zeros_like(rewards[:, 0])
        for reward, value in zip(reversed(rewards.unbind(1)), reversed(values.unbind(1)), strict=True):
            following = reward + self.discount * expected - value + self.discount * self.gae_lambda * following
            columns.append(following)
            expected = value
        return torch.stack(columns[::-1], 1)


def _given(table: Tensor | None) -> Tensor:
    assert table is not None, "the stage reads it wherever this objective is trained"
    return table


def _moments(table: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance over all tokens. Scalars."""
    tokens = mask.sum()
    mean = (table * mask).sum() / tokens
    return mean, ((table - mean) ** 2 * mask).sum() / (tokens - 1).clamp_min(1)


def _explained(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over all tokens; 0 where all returns are equal."""
    total = _moments(returns, mask)[1]
    rest = _moments(returns - values, mask)[1]
    return float(1 - rest / total) if total > 0 else 0.0
