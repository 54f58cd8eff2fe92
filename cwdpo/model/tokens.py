"""What is read of single response tokens, from hidden states, a chunk of the vocabulary's logits at a time.

The head of a large vocabulary is where memory goes: 1,000 tokens x 152k words are 600 MB in float32, and a softmax with
its gradient holds several of them. But whatever is read of a distribution is one number, and its gradient in the hidden
state is one vector of the width of h: with a frozen head it is computed beside the number while the chunk is there (for
`log p(y) = h . W[y] - logsumexp(W h)` it is `sum_v (1[v = y] - p(v)) W[v]`), and nothing of the size of the vocabulary
is kept for the backward pass or computed twice. A head that is trained computes each chunk again in the backward pass.

Shapes: K tokens (one row each, so that no row serves two), k of them in a chunk, Q quantities
(`objectives/reading.py`), H width of the model, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwdpo.objectives.reading import LOGPS, Quantity, Reading

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_ELEMENTS = 2**25  # logits held at a time: 128 MB in float32, 220 tokens of a vocabulary of 152k


@dataclass(frozen=True)
class Head:
    """A linear LM head. Shapes: weight (V, H), bias (V,)."""

    weight: Tensor
    bias: Tensor | None

    def logits(self, hidden: Tensor) -> Tensor:
        """In float32. Shape (k, V)."""
        from torch.nn.functional import linear

        return linear(hidden, self.weight, self.bias).float()

    @property
    def rows(self) -> int:
        """Tokens of a chunk."""
        return max(1, CHUNK_ELEMENTS // self.weight.shape[0])


@dataclass(frozen=True)
class Chunk:
    """The distributions of k tokens.

    Attributes:
        logp: log-probabilities of all words. Shape (k, V).
        tokens: the words that are predicted. Shape (k,).
        start: the same log-probabilities under the policy at the start, where `kl` is read. Shape (k, V).
    """

    logp: Tensor
    tokens: Tensor
    start: Tensor | None = None

    def of_tokens(self) -> Tensor:
        """`log p(y)`. Shape (k,)."""
        return self.logp.gather(1, self.tokens[:, None]).squeeze(1)

    def entropy(self) -> Tensor:
        """Shape (k,)."""
        return -(self.logp.exp() * self.logp).sum(1)

    def uniform(self) -> Tensor:
        """Shape (k,)."""
        return self.logp.mean(1)

    def kl(self) -> Tensor:
        """Shape (k,)."""
        return (self.logp.exp() * (self.logp - self._start)).sum(1)

    def residual(self) -> Tensor:
        """Shape (k,)."""
        import torch

        others = self.logp.exp().scatter_(1, self.tokens[:, None], 0.0)
        # Of a sure token, 1 - p(y) would be rounded away; it is what the others sum up to.
        return torch.linalg.vector_norm(others, dim=1) ** 2 + others.sum(1) ** 2

    def entropy_slope(self) -> Tensor:
        """Gradient of the entropy in the logits, `-p (log p + entropy)`. Shape (k, V)."""
        return (self.logp + self.entropy()[:, None]).mul_(self.logp.exp()).neg_()

    def uniform_slope(self) -> Tensor:
        """Gradient in the logits, `1/V - p`. Shape (k, V)."""
        return self.logp.exp().neg_().add_(1 / self.logp.shape[1])

    def kl_slope(self) -> Tensor:
        """Gradient in the logits, `p (log p - log q - kl)`. Shape (k, V)."""
        return (self.logp - self._start - self.kl()[:, None]).mul_(self.logp.exp())

    def slope_of_tokens(self) -> Tensor:
        """Gradient of `log p(y)` in the logits, `1[v = y] - p(v)`, in the memory of `logp`. Shape (k, V).

        At the token itself it is `-expm1(log p)`: `1 - p` of a sure token would be rounded away.
        """
        at_tokens = -self.of_tokens().expm1()
        return self.logp.exp_().neg_().scatter_(1, self.tokens[:, None], at_tokens[:, None])

    @property
    def _start(self) -> Tensor:
        assert self.start is not None, "kl is read beside the policy at the start"
        return self.start


Values = Callable[[Chunk], "Tensor"]

VALUES: dict[Quantity, Values] = {
    "logp": Chunk.of_tokens,
    "entropy": Chunk.entropy,
    "uniform": Chunk.uniform,
    "kl": Chunk.kl,
    "residual": Chunk.residual,
}
"""Of a distribution; `value` is none of them."""

SLOPES: dict[Quantity, Values] = {
    "entropy": Chunk.entropy_slope,
    "uniform": Chunk.uniform_slope,
    "kl": Chunk.kl_slope,
    "logp": Chunk.slope_of_tokens,  # the last one to be asked for: it spends the chunk
}


def read_tokens(
    hidden: Tensor, head: Head, tokens: Tensor, reading: Reading = LOGPS, start: Tensor | None = None
) -> Tensor:
    """What `reading` names of each token, in float32, with gradient where it is trained.

    Args:
        hidden: states that predict the tokens. Shape (K, H).
        tokens: shape (K,).
        start: such states of the policy at the start. Shape (K, H).

    Returns:
        Shape (Q, K), in the order of `reading.names`.
    """
    if head.weight.requires_grad:
        values: Tensor = _trained_head().apply(hidden, head.weight, head.bias, tokens, reading, start)
        return values
    return _frozen_head(hidden, head, tokens, reading, start)


def _frozen_head(hidden: Tensor, head: Head, tokens: Tensor, reading: Reading, start: Tensor | None) -> Tensor:
    import torch

    values: list[Tensor] = []
    slopes: dict[Quantity, list[Tensor]] = {name: [] for name in reading.trained}
    with torch.no_grad():
        for chunk in _chunks(hidden, head, tokens, start):
            values.append(_values(chunk, reading))
            for name in _spending_last(reading) if hidden.requires_grad else ():
                slopes[name].append(SLOPES[name](chunk).to(head.weight.dtype) @ head.weight)
    read = torch.cat(values, 1)
    if not hidden.requires_grad:
        return read
    states = hidden.float()
    linear = [(states * torch.cat(slopes[name]).float()).sum(1) for name in reading.trained]
    still = [torch.zeros_like(linear[0])] * len(reading.observed)
    linked = torch.stack([*linear, *still])
    return read + (linked - linked.detach())  # the value of the first, the gradient of the second


def _values(chunk: Chunk, reading: Reading) -> Tensor:
    """Shape (Q, k)."""
    import torch

    return torch.stack([VALUES[name](chunk) for name in reading.names])


def _spending_last(reading: Reading) -> list[Quantity]:
    return [name for name in SLOPES if name in reading.trained]


@functools.cache
def _trained_head() -> Any:
    """The autograd function of a head that is trained; torch is not imported before it is needed."""
    import torch

    class TrainedHead(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, reading: Reading, start: Any
        ) -> Tensor:
            chunks = _chunks(hidden, Head(weight, bias), tokens, start)
            ctx.save_for_backward(hidden, weight, bias, tokens, start)
            ctx.reading = reading
            return torch.cat([_values(chunk, reading) for chunk in chunks], 1)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            hidden, weight, bias, tokens, start = ctx.saved_tensors
            head = Head(weight, bias)
            of_hidden = []
            # In float32: sums of bf16 gradients would depend on the number of chunks.
            of_weight = torch.zeros_like(weight, dtype=torch.float32)
            of_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            parts = zip(
                _chunks(hidden, head, tokens, start),
                hidden.split(head.rows),
                gradients[0].split(head.rows, 1),
                strict=True,
            )
            for chunk, rows, gradient in parts:
                slope = _weighed_slope(chunk, ctx.reading, gradient)
                if of_bias is not None:
                    of_bias += slope.sum(0)
                slope = slope.to(weight.dtype)
                of_hidden.append(slope @ weight)
                of_weight += slope.T @ rows
            return torch.cat(of_hidden), of_weight.to(weight.dtype), _as(of_bias, bias), None, None, None

    return TrainedHead


def _weighed_slope(chunk: Chunk, reading: Reading, gradient: Tensor) -> Tensor:
    """Gradient in the logits of all that is trained, given that of each quantity, (Q, k). Shape (k, V)."""
    weighed = [
        SLOPES[name](chunk).mul_(gradient[reading.trained.index(name)][:, None]) for name in _spending_last(reading)
    ]
    return functools.reduce(lambda total, slope: total.add_(slope), weighed)


def _as(value: Tensor | None, like: Tensor | None) -> Tensor | None:
    return None if value is None or like is None else value.to(like.dtype)


def _chunks(hidden: Tensor, head: Head, tokens: Tensor, start: Tensor | None) -> Iterator[Chunk]:
    before = [None] * len(tokens) if start is None else start.split(head.rows)
    for rows, targets, other in zip(hidden.split(head.rows), tokens.split(head.rows), before, strict=False):
        logp = head.logits(rows).log_softmax(1)
        yield Chunk(logp, targets, None if other is None else head.logits(other).log_softmax(1))
