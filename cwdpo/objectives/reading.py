"""What a forward pass reads of every response token, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quantity = Literal["logp", "entropy", "uniform", "kl", "residual", "value"]
"""Of the next-token distribution p where a token y is predicted, over the whole vocabulary of V words, in nats:

- `logp`: `log p(y)`;
- `entropy`: `-sum_v p(v) log p(v)`;
- `uniform`: `1/V sum_v log p(v)`, what label smoothing adds;
- `kl`: `sum_v p(v) (log p(v) - log q(v))`, q the distribution of the policy as it was when the stage began;
- `residual`: `||onehot(y) - p||^2`, the squared norm of the gradient of `log p(y)` in the logits;
- `value`: what a value head says of the hidden state there.
"""


@dataclass(frozen=True)
class Reading:
    """Quantities a loss needs, and those that are only looked at.

    Attributes:
        trained: with gradient.
        observed: without.
    """

    trained: tuple[Quantity, ...] = ("logp",)
    observed: tuple[Quantity, ...] = ()

    @property
    def names(self) -> tuple[Quantity, ...]:
        """All of them, trained ones first."""
        return (*self.trained, *self.observed)

    @property
    def values(self) -> bool:
        """True where a value head is asked, too."""
        return "value" in self.names

    def of_words(self) -> Reading:
        """The same without `value`, which is not read of a distribution."""
        trained, observed = (
            tuple(name for name in names if name != "value") for names in (self.trained, self.observed)
        )
        return Reading(trained, observed)


LOGPS = Reading()
"""Log-probabilities, nothing else."""
