"""OPA-DPO (arXiv 2501.09695): the policy's own answers against the truth and against their minimal corrections.

    d(w > l) = -log sigmoid(r_w - r_l),   r = beta * delta
    loss = d(truth > own) + d(revised > own)
         + image_weight * (d(truth|v > truth|v_m) + d(revised|v > revised|v_m))
         + anchor_weight * (-log sigmoid(r_truth - offset) - log sigmoid(-r_revised + offset))

v_m is the image with a share of it hidden, drawn once for each image so that the reference's log-probabilities
hold. The released code works per token position; here each response is one term. Where the data scores the sentences of
the own answer, their mean weight is the pair's.

Before it comes a phase of SFT on truth and revised answers (`stage2.sft_phase`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.objectives.preference import PairLosses, Pairs, Preference, Term

if TYPE_CHECKING:
    from torch import Tensor

SCORE_WEIGHTS = {1: 2.5, 2: 2.0, 3: 1.5, 4: 1.0}
"""Weight of a sentence by its score, from wholly wrong (1) to right (4), as released."""

IMAGE_ERROR = 3.0
"""Times the weight of a sentence that misreads the image, as released."""


class OpaDpo(Preference):
    """DPO on own, revised and true answers, with and without all of the image, and anchored."""

    name: Literal["opa_dpo"] = "opa_dpo"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference."""
    image_weight: float = Field(default=0.2, ge=0)
    """Weight of the terms that compare the whole image with the masked one."""
    anchor_weight: float = Field(default=1.0, ge=0)
    """Weight of the anchor."""
    offset: Annotated[float, Neutral(0.0)] = 0.0
    """d: where the anchor holds the rewards, nats."""
    masked: float = Field(default=0.3, gt=0, lt=1)
    """Share of v_m that shows the image's mean colour, in cells of a grid of at most 112 x 112 over the image, so that
    it is the share the model sees whatever the image is scaled to; the released code masks pixels [choice]."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The answers, and under the masked image those that its weight counts."""
        answers: tuple[Term, ...] = ("chosen", "rejected", "revised")
        return (*answers, "chosen|masked", "revised|masked") if self.image_weight else answers

    @property
    def masked_share(self) -> float | None:
        """Share of the image that is not seen."""
        return self.masked if self.image_weight else None

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair, nats, with its parts as measures. Shape (P,)."""
        reward = {term: self.beta * pairs.delta(term) for term in self.terms}
        truth, revised, own = reward["chosen"], reward["revised"], reward["rejected"]
        answers = _beats(truth, own) + _beats(revised, own)
        anchor = _beats(truth, self.offset) + _beats(self.offset, revised)
        losses = answers + self.anchor_weight * anchor
        parts = {"loss_answers": answers.detach(), "loss_anchor": anchor.detach()}
        if self.image_weight:
            images = _beats(truth, reward["chosen|masked"]) + _beats(revised, reward["revised|masked"])
            losses = losses + self.image_weight * images
            parts["loss_images"] = images.detach()
        return PairLosses(losses, parts)

    def pair_weight(self, sentences: Sequence[tuple[int, bool]]) -> float:
        """Mean weight of the sentences of the own answer; 1 where the data has no scores."""
        weights = [SCORE_WEIGHTS[score] * (IMAGE_ERROR if misread else 1.0) for score, misread in sentences]
        return sum(weights) / len(weights) if weights else 1.0


def _beats(winner: Tensor | float, loser: Tensor | float) -> Tensor:
    """`-log sigmoid(winner - loser)`. Shape (P,)."""
    import torch

    return -torch.nn.functional.logsigmoid(torch.as_tensor(winner - loser))
