"""Proposition 1: what a step on the loss of one sample does to `mean_logp` of another response.

    predicted = <grad_theta mean_logp(o), delta_theta>          (= -lr <A, K G> for a plain SGD step)
    measured  = mean_logp(o) at theta + delta_theta, less that at theta

with A = grad_z mean_logp(o), G = grad_z L(u) in the logits z, and the kernel K that joins the two through the
parameters and is never formed. For a small step the two differ by O(lr^2). The gradient of `log pi(y)` in the logits is
onehot(y) - pi: row t of A is (onehot - pi_t) / L, and G has for each response dL/dlogp times onehot - pi (Eq. 5 of the
paper drops the sign).
"""

from __future__ import annotations

from collections.abc import Sequence

from cwdpo.data.encoding import Group
from cwdpo.dynamics.influence.logits import MEAN_LOGP, Derivative, Number, Seen, differentiate, see
from cwdpo.dynamics.influence.vectors import Vector, inner, moved
from cwdpo.model.scoring import Scorer


def observation(scorer: Scorer, group: Group) -> Derivative:
    """A, as the squared norm of it, and the gradient of mean_logp of a group's only response, nats per token."""
    return differentiate(scorer.model, see(scorer, [group]), MEAN_LOGP)


def update(scorer: Scorer, group: Group, loss: Number) -> Derivative:
    """G, as the squared norm of it for each response, and the gradient of the loss of a group of responses, nats."""
    return differentiate(scorer.model, see(scorer, [group]), loss)


def predicted_change(observed: Derivative, change: Vector, factor: float = 1.0) -> float:
    """First-order change of the observed number when the parameters move by `factor * change`.

    Of a plain SGD step that is the gradient and minus the learning rate; of any optimizer what it made of the
    parameters (`vectors.difference`) and 1.
    """
    return factor * inner(observed.gradient, change)


def measured_change(scorer: Scorer, groups: Sequence[Group], change: Vector, factor: float = 1.0) -> list[float]:
    """What mean_logp of each group's only response really changes by, nats per token; the weights stay as they are."""
    before = [mean_logp(look(scorer, group)) for group in groups]
    with moved(scorer.model, change, factor):
        after = [mean_logp(look(scorer, group)) for group in groups]
    return [now - then for now, then in zip(after, before, strict=True)]


def look(scorer: Scorer, group: Group) -> Seen:
    """A group as the policy sees it, without gradient."""
    import torch

    with torch.no_grad():
        return see(scorer, [group])


def mean_logp(seen: Seen) -> float:
    """Of the only response, nats per token."""
    return float(MEAN_LOGP(seen.sums(["logp"]), seen.lengths))
