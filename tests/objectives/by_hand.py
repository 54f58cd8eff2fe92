"""Responses and pairs whose log-probabilities are written down, for tests of objectives. All in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cwdpo.objectives.preference import Pairs, Term
from cwdpo.objectives.reading import Quantity
from cwdpo.objectives.supervised import Responses


def leaf(*values: float) -> Any:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def responses(
    sums: Mapping[Quantity, Any], lengths: Sequence[int], weights: Sequence[float] = (), total: int = 0
) -> Responses:
    """Responses that all count, and are all there are, unless said otherwise."""
    number = len(lengths)
    counts = torch.tensor(weights or [1.0] * number).double()
    return Responses(sums, torch.tensor(lengths).double(), counts, total or number)


def pairs(
    deltas: Mapping[Term, Sequence[float]],
    logps: Mapping[Term, Sequence[float]] | None = None,
    lengths: Sequence[int] = (),
) -> Pairs:
    """Pairs with these differences to the reference; -7 is any log-probability, where `logps` says no other.

    Terms of `logps` without a difference carry no gradient and have no reference: still terms. `lengths` are those of
    rejected responses, 1 each unless said otherwise.
    """
    logps = logps or {}
    policy = {term: leaf(*logps.get(term, [-7.0] * len(values))) for term, values in deltas.items()}
    still = {term: leaf(*values).detach() for term, values in logps.items() if term not in deltas}
    reference = {term: policy[term].detach() - leaf(*values).detach() for term, values in deltas.items()}
    tokens = torch.tensor(lengths or [1] * len(deltas["rejected"])).double()
    return Pairs(policy | still, reference, {"rejected": tokens})


def gradients(loss: Any, *leaves: Any) -> list[list[float]]:
    """Gradient of the sum of a loss with respect to each leaf; zeros where it does not enter."""
    found = torch.autograd.grad(loss.sum(), leaves, allow_unused=True, materialize_grads=True)
    return [gradient.tolist() for gradient in found]
