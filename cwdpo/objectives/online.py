"""What on-policy objectives see: sampled responses token by token, with their rewards, never models.

Shapes: R responses, L tokens of the longest one; what lies beyond a response's end is 0. All log-probabilities in nats.
A *phase* is what is sampled by one state of the policy, before the steps that learn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from cwdpo.base.config import Config
from cwdpo.objectives.reading import LOGPS, Reading
from cwdpo.objectives.supply import Supply

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Experience:
    """All responses of a phase, prompt by prompt.

    Attributes:
        rewards: of each response. Shape (R,).
        mask: 1 at the tokens of a response, end-of-turn included. Shape (R, L).
        old: log-probabilities under the policy that sampled; None where nothing needs them. Shape (R, L).
        reference: the same under the policy at the start of the stage; None where the objective does not look back.
        values: what the value head said when the phase began; None without one. Shape (R, L).
    """

    rewards: Tensor
    mask: Tensor
    old: Tensor | None = None
    reference: Tensor | None = None
    values: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """What a phase teaches.

    Attributes:
        advantages: of each token. Shape (R, L).
        returns: what the value head shall say; None without one. Shape (R, L).
        measures: name -> a number about the phase, for the curve.
    """

    advantages: Tensor
    returns: Tensor | None
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Actions:
    """Sampled tokens of a micro-batch under the policy as it is now. Every tensor has shape (R, L).

    Attributes:
        logps: with gradient.
        old: under the policy that sampled them.
        advantages: of `Targets`.
        mask: 1 at the tokens of a response.
        reference: under the policy at the start of the stage; None where the objective does not look back.
        values: what the value head says, with gradient; None without one.
        old_values: what it said when the phase began.
        returns: of `Targets`.
    """

    logps: Tensor
    old: Tensor
    advantages: Tensor
    mask: Tensor
    reference: Tensor | None = None
    values: Tensor | None = None
    old_values: Tensor | None = None
    returns: Tensor | None = None

    @property
    def ratio(self) -> Tensor:
        """pi(y_t) / pi_old(y_t). Shape (R, L)."""
        return (self.logps - self.old).exp()

    def k3(self) -> Tensor:
        """Schulman's unbiased estimate of the KL to the reference, `q/p - log(q/p) - 1` at each token. Shape (R, L)."""
        assert self.reference is not None, "asked for only where there is a reference"
        difference = self.reference - self.logps
        return difference.exp() - difference - 1


@dataclass(frozen=True)
class TokenLosses:
    """Loss of each token and what its failure is read from.

    Attributes:
        losses: shape (R, L).
        measures: name -> detached values, shape (R, L); their means over the tokens of the global batch are logged.
    """

    losses: Tensor
    measures: Mapping[str, Tensor]


class Online(Config):
    """What the step loop asks of an on-policy objective."""

    name: str
    samples: int = Field(default=1, ge=1)
    """Responses sampled for each prompt."""
    inner_epochs: int = Field(default=1, ge=1)
    """Passes over the responses of a phase before new ones are sampled; not printed by the paper [choice]."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """A ratio beyond 1 - clip .. 1 + clip earns nothing more."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence to the policy at the start of the stage; with 0 nothing is scored under that one."""

    reads: ClassVar[Reading] = LOGPS
    """What is read of sampled responses in a step."""
    by_response: ClassVar[bool]
    """True where every response counts the same, however long; False where every token does."""
    looks_at_old: ClassVar[bool] = False
    """True where targets need what the sampling policy said, even if the phase has one step only."""

    @property
    def uses_rejected(self) -> bool:
        """Responses are sampled."""
        return False

    @property
    def requires(self) -> frozenset[Supply]:
        """Nothing comes with rejected responses, for there are none."""
        return frozenset()

    def targets(self, experience: Experience) -> Targets:
        """What a phase teaches, from all its responses at once, so that micro-batches and ranks change nothing."""
        raise TypeError(f"{type(self).__name__} does not say what its advantages are")

    def token_losses(self, actions: Actions) -> TokenLosses:
        """Loss of each token, and its measures. Shapes (R, L)."""
        raise TypeError(f"{type(self).__name__} does not say what its loss is")

    def token_shares(self, mask: Tensor, weights: Tensor, responses: int, tokens: int) -> Tensor:
        """What each token counts in the mean over the global batch that is the loss. Shape (R, L).

        Args:
            mask: of the responses of a micro-batch. Shape (R, L).
            weights: 1 for a response, 0 for padding of a ragged micro-batch. Shape (R,).
            responses, tokens: of the global batch.
        """
        every = mask * weights[:, None]
        return every / mask.sum(1, keepdim=True) / responses if self.by_response else every / tokens

    def surrogate(self, actions: Actions) -> TokenLosses:
        """Clipped surrogate of policy gradients, `-min(r A, clip(r) A)`, and how far the policy went. Shapes (R, L).

        Schulman et al., "Proximal Policy Optimization Algorithms" (2017), equation 7.
        """
        import torch

        ratio, advantages = actions.ratio, actions.advantages
        limited = ratio.clamp(1 - self.clip, 1 + self.clip)
        lost = torch.where(advantages > 0, ratio > 1 + self.clip, ratio < 1 - self.clip) & (advantages != 0)
        measures = {"ratio": ratio.detach(), "clip_fraction": lost.to(ratio.dtype)}
        if actions.reference is not None:
            measures["kl"] = actions.k3().detach()
        return TokenLosses(-torch.minimum(ratio * advantages, limited * advantages), measures)
