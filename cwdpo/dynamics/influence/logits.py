"""Numbers that depend on a policy through its logits, and their gradients: in the logits, and in what is trained.

Such a number (a mean log-probability, the loss of a sample) has a gradient in the logits that is known in closed form.
It is computed a chunk of tokens at a time and at once pulled back through a frozen LM head, so that one backward pass
from the hidden states gives the gradient in the parameters, and nothing of the size tokens x vocabulary is kept. Where
the head is trained, or does more than a product, all logits of the responses are there at once.

Everything is as wide as the model computes, float32 at least.

Shapes: K tokens of all responses, k of them in a chunk, R responses, H width of the model, V vocabulary.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from cwdpo.data.encoding import Group
from cwdpo.dynamics.influence.vectors import Vector, norm, on, trained
from cwdpo.model import tokens
from cwdpo.model.head import reading_states
from cwdpo.model.logps import plain_logits
from cwdpo.model.scoring import Scorer
from cwdpo.model.tokens import SLOPES, VALUES, Chunk, Head
from cwdpo.objectives.reading import LOGPS, Quantity, Reading

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.layout import Wanted


class Number(Protocol):
    """A number that depends on what is read of responses."""

    @property
    def reading(self) -> Reading:
        """What it needs."""

    def __call__(self, sums: Mapping[Quantity, Tensor], lengths: Tensor) -> Tensor:
        """The number, with gradient in `sums`. Scalar.

        Args:
            sums: each quantity summed over the tokens of a response. Shapes (R,).
            lengths: tokens of each response. Shape (R,).
        """


@dataclass(frozen=True)
class MeanLogp:
    """`mean_logp` of one response: its log-probability over its number of tokens, nats per token."""

    reading: Reading = LOGPS

    def __call__(self, sums: Mapping[Quantity, Tensor], lengths: Tensor) -> Tensor:
        """Scalar."""
        return (sums["logp"] / lengths).sum()


MEAN_LOGP = MeanLogp()


@dataclass(frozen=True)
class Seen:
    """What a policy makes of the tokens of some responses, one row each: no row serves two tokens.

    Attributes:
        rows: hidden states (K, H) where `head` makes logits of them, else the logits (K, V).
        head: a frozen LM head.
        wanted: which tokens they predict, and whose these are.
    """

    rows: Tensor
    head: Head | None
    wanted: Wanted

    def chunks(self) -> Iterator[Chunk]:
        """Log-probabilities of all words, some tokens at a time, without gradient. Shapes (k, V)."""
        device = self.wanted.tokens.device
        for rows, targets in zip(self._split(self.rows), self._split(self.wanted.tokens), strict=True):
            yield Chunk(_wide(self._logits(rows.detach().to(device))).log_softmax(1), targets)

    def sums(self, names: Sequence[Quantity]) -> dict[Quantity, Tensor]:
        """Quantities summed over the tokens of each response, without gradient. Shapes (R,)."""
        import torch

        chunks = [[VALUES[name](chunk) for name in names] for chunk in self.chunks()]
        found = {name: torch.cat(parts) for name, parts in zip(names, zip(*chunks, strict=True), strict=True)}
        return {name: self.by_response(values) for name, values in found.items()}

    def by_response(self, values: Tensor) -> Tensor:
        """Values of tokens (K,) summed over those of each response. Shape (R,)."""
        return self.wanted.table(values).sum(1)

    def of_tokens(self, values: Tensor) -> Tensor:
        """Values of responses (R,), at each of their tokens. Shape (K,)."""
        return values.index_select(0, self.wanted.slots // self.wanted.longest)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each response. Shape (R,)."""
        return _wide(self.wanted.lengths.to(self.rows.dtype))

    def slopes(self, weights: Mapping[Quantity, Tensor]) -> Iterator[Tensor]:
        """Gradient in the logits of a sum of weighted quantities, some tokens at a time. Shapes (k, V).

        Args:
            weights: of each token. Shapes (K,).
        """
        parts = {name: self._split(values) for name, values in weights.items()}
        for number, chunk in enumerate(self.chunks()):
            # In the order of SLOPES: the last of them spends the chunk.
            weighed = [SLOPES[name](chunk).mul_(parts[name][number][:, None]) for name in SLOPES if name in parts]
            yield functools.reduce(operator.iadd, weighed)

    def pulled(self, slope: Tensor) -> Tensor:
        """A gradient in the logits (k, V) as one in `rows`. Shape (k, H or V)."""
        return (slope.to(self.head.weight) @ self.head.weight if self.head else slope).to(self.rows)

    def kept(self, device: Any) -> Seen:
        """The same without what a backward pass needs, its rows on another device."""
        return replace(self, rows=self.rows.detach().to(device))

    def _logits(self, rows: Tensor) -> Tensor:
        from torch.nn.functional import linear

        return linear(rows, self.head.weight, self.head.bias) if self.head else rows

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        words = self.head.weight.shape[0] if self.head else self.rows.shape[1]
        return values.split(max(1, tokens.CHUNK_ELEMENTS // words))


def see(scorer: Scorer, groups: Sequence[Group]) -> Seen:
    """One forward pass over groups of responses, with gradient unless it is switched off around the call."""
    batch, model = scorer.batch(groups).to(scorer.device), scorer.model
    head = model.get_output_embeddings()
    if not scorer.way.chunked or head.weight.requires_grad:
        logits, which = plain_logits(model, batch)
        return Seen(logits.index_select(0, which), None, batch.wanted)
    with reading_states(model, batch.wanted):
        states: Tensor = model(**batch.inputs, attention_mask=batch.attention(), use_cache=False).logits
    return Seen(states, Head(head.weight, head.bias), batch.wanted)


@dataclass(frozen=True)
class Derivative:
    """Gradient of a number in the logits and in the trained parameters.

    Attributes:
        value: the number.
        squares: of each response, the squared norm of the gradient in the logits that predict its tokens.
        gradient: in the trained parameters.
    """

    value: float
    squares: tuple[float, ...]
    gradient: Vector

    @property
    def logit_norm(self) -> float:
        """Frobenius norm of the gradient in the logits of all responses."""
        return float(sum(self.squares) ** 0.5)

    @property
    def norm(self) -> float:
        """Norm of the gradient in the trained parameters."""
        return norm(self.gradient)

    def kept(self, device: Any) -> Derivative:
        """The same with its gradient on another device."""
        return replace(self, gradient=on(self.gradient, device))


def differentiate(model: Any, seen: Seen, number: Number) -> Derivative:
    """A number and its gradients; spends the graph of `seen`.

    Args:
        seen: with gradient, of `model`.
    """
    import torch

    value, weights = _weights(seen, number)
    pulled, squares = [], []
    for slope in seen.slopes(weights):
        squares.append((slope**2).sum(1))
        pulled.append(seen.pulled(slope))
    parameters = trained(model)
    found = torch.autograd.grad(seen.rows, list(parameters.values()), torch.cat(pulled), materialize_grads=True)
    own = seen.by_response(torch.cat(squares)).tolist()
    return Derivative(value, tuple(own), dict(zip(parameters, found, strict=True)))


def logit_gradient(seen: Seen, number: Number) -> Tensor:
    """Gradient of a number in the logits as one matrix, for those who want to look at it. Shape (K, V).

    Of `MEAN_LOGP` it is Proposition 1's A, of a loss its G.
    """
    import torch

    return torch.cat(list(seen.slopes(_weights(seen, number)[1])))


def _weights(seen: Seen, number: Number) -> tuple[float, dict[Quantity, Tensor]]:
    """The number, and its derivative in each quantity of each token. Shapes (K,)."""
    import torch

    names = number.reading.trained
    with torch.enable_grad():
        sums = {name: values.requires_grad_() for name, values in seen.sums(names).items()}
        value = number(sums, seen.lengths)
    slopes = torch.autograd.grad(value, [sums[name] for name in names], materialize_grads=True)
    weights = {name: seen.of_tokens(slope) for name, slope in zip(names, slopes, strict=True)}
    return float(value.detach()), weights


def _wide(values: Tensor) -> Tensor:
    """float32 at least."""
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))
