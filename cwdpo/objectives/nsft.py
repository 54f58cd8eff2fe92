"""Negative SFT (arXiv 2411.14797): rejected responses become dialogues that correct them, learned by plain SFT.

    E[nll(y_c)] + E[nll(G(y_r; y_c, Q))]

G writes question-answer turns about the errors of y_r; only the answers are scored. Ablations: `chosen: false` drops
the first term ("w/o chosen"); the codebook Q belongs to the source of the dialogues. The paper's per-token KL
constraint is taken in full over the vocabulary, policy against the policy at the start of the stage, on every scored
token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.objectives.reading import LOGPS, Reading
from cwdpo.objectives.supervised import Beside, Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class Nsft(Supervised):
    """SFT on chosen responses and on corrective dialogues, each kind with its own mean."""

    name: Literal["nsft"] = "nsft"
    chosen: Annotated[bool, Neutral(True)] = True
    """False drops the chosen responses from the loss: the ablation "w/o chosen"."""
    kl: Annotated[float, Neutral(0.0)] = Field(default=0.0, ge=0)
    """Weight of the KL divergence to the policy at the start; needs LoRA. The paper prints none."""

    beside: ClassVar[Beside | None] = "dialogue"

    @property
    def reading(self) -> Reading:
        """The divergence costs a second pass, under the policy at the start."""
        return Reading(("logp", "kl")) if self.kl else LOGPS

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of the loss. Scalar, nats."""
        learned = [chosen, beside] if self.chosen else [beside]
        loss = sum(
            (responses.nll_share(self.per_token) for responses in learned[1:]), learned[0].nll_share(self.per_token)
        )
        for responses in learned if self.kl else ():
            loss = loss + self.kl * responses.mean_share("kl", self.per_token)
        return loss
