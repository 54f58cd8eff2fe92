"""What preference objectives (Stage 2) see: log-probabilities of pairs, never models.

Shapes: P pairs (one chosen, one rejected response of a sample) of this micro-batch. All values in nats, float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cwdpo.base.config import Config
from cwdpo.objectives.supply import Supply

if TYPE_CHECKING:
    from torch import Tensor

Term = Literal[
    "chosen", "rejected", "revised", "chosen|masked", "revised|masked", "chosen|blank", "rejected|blank"
]  # fmt: skip
"""A response of a pair, and after a bar the changed image under which it is scored:

- `masked`: a share of it shows its mean colour instead;
- `blank`: zeros after the processor's normalisation, so that nothing is seen.
"""

PLAIN_TERMS: tuple[Term, ...] = ("chosen", "rejected")
"""What DPO needs."""


@dataclass(frozen=True)
class Pairs:
    """Log-probabilities of P pairs under the policy and under the reference. Every tensor has shape (P,).

    Attributes:
        policy: of each term of the objective; those of `still_terms` carry no gradient.
        reference: of each term of the objective but `still_terms`.
        lengths: tokens of each term, end-of-turn included.
    """

    policy: Mapping[Term, Tensor]
    reference: Mapping[Term, Tensor]
    lengths: Mapping[Term, Tensor]

    def delta(self, term: Term) -> Tensor:
        """logp_policy(y) - logp_reference(y) of a term. Shape (P,)."""
        return self.policy[term] - self.reference[term]

    @property
    def delta_chosen(self) -> Tensor:
        """delta_w = logp_policy(y_w) - logp_reference(y_w). Shape (P,)."""
        return self.delta("chosen")

    @property
    def delta_rejected(self) -> Tensor:
        """delta_l = logp_policy(y_l) - logp_reference(y_l). Shape (P,)."""
        return self.delta("rejected")


@dataclass(frozen=True)
class PairLosses:
    """Loss of each pair and what its failure is read from.

    Attributes:
        losses: shape (P,); a dropped pair has loss 0 and stays in the denominator of the mean.
        measures: name -> detached values, shape (P,); their means over the global batch are logged.
        histograms: name -> detached values in [0, 1], shape (P,); the shares of ten bins are logged.
    """

    losses: Tensor
    measures: Mapping[str, Tensor]
    histograms: Mapping[str, Tensor] = field(default_factory=dict)


class Preference(Config):
    """What the step loop asks of a preference objective."""

    name: str

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is scored with gradient, and by the reference."""
        return PLAIN_TERMS

    @property
    def uses_rejected(self) -> bool:
        """There is no pair without a rejected response."""
        return True

    @property
    def masked_share(self) -> float | None:
        """Share of the image that is not seen in terms under the masked image; None without such terms."""
        return None

    @property
    def still_terms(self) -> tuple[Term, ...]:
        """What is scored without gradient and without a reference."""
        return ()

    @property
    def requires(self) -> frozenset[Supply]:
        """What every rejected response must come with."""
        return frozenset[Supply](["revised"]) if "revised" in self.terms else frozenset()

    def pair_losses(self, pairs: Pairs) -> PairLosses:
        """Loss of each pair, nats, and its measures. Shape (P,)."""
        raise TypeError(f"{type(self).__name__} does not say what its loss is")

    def pair_weight(self, sentences: Sequence[tuple[int, bool]]) -> float:
        """Weight of a pair by the sentences of its rejected response: score (1 to 4), and if they misread the image."""
        return 1.0
