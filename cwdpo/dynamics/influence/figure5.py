"""What the paper's Figure 5 shows, after the code of "Learning Dynamics of LLM Finetuning" (arXiv 2407.10490).

They share letters with Proposition 1 and are other objects, all of one *observed* response:

    ||delta log pi||^2   change of all log-probabilities between two states of the policy, words x tokens
    ||A||^2              A = I - 1 pi^T, the V x V derivative of log pi in the logits of a token (not the row that
                         Proposition 1 calls A), in closed form V ||pi||^2 + V - 2; grows with peakiness
    ||G_o||^2            G_o = pi - onehot on the observed response (not the gradient of the update's loss)
    LB_K                 ||delta log pi||^2 / (||A||^2 ||G_o||^2)

Squared Frobenius norms, summed over the tokens of the response: A of a response is the block-diagonal matrix of those
of its tokens, so a longer response has larger norms and a smaller LB_K. With G of the update's loss LB_K would bound
the kernel's squared norm from below, up to lr^2; with G_o it is a proxy and no bound. A is a divisor of it: when A
grows, that makes LB_K smaller.

Shapes: k tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cwdpo.dynamics.influence.logits import Seen

if TYPE_CHECKING:
    from cwdpo.model.tokens import Chunk


@dataclass(frozen=True)
class Geometry:
    """Of one state of the policy.

    Attributes:
        a_square: ||A||^2.
        g_square: ||G_o||^2.
    """

    a_square: float
    g_square: float

    def proxy(self, change_square: float) -> float | None:
        """LB_K of a change from this state on; None where a policy that is sure of every token leaves 0/0."""
        divisor = self.a_square * self.g_square
        return change_square / divisor if divisor else None


def geometry(seen: Seen) -> Geometry:
    """||A||^2 and ||G_o||^2 of the responses seen."""
    squares = [(_a_square(chunk), float(chunk.residual().double().sum())) for chunk in seen.chunks()]
    return Geometry(sum(a for a, _ in squares), sum(g for _, g in squares))


def _a_square(chunk: Chunk) -> float:
    """`V ||pi||^2 + V - 2` of each token, summed."""
    tokens, words = chunk.logp.shape
    return words * float((2 * chunk.logp).exp().double().sum()) + tokens * (words - 2)


def change_square(before: Seen, after: Seen) -> float:
    """||delta log pi||^2 between two states of the policy, over all words and all tokens, nats^2.

    Args:
        before, after: of the same responses.
    """
    chunks = zip(before.chunks(), after.chunks(), strict=True)
    return sum(float(((now.logp - then.logp) ** 2).double().sum()) for then, now in chunks)
