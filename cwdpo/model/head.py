"""Log-probabilities of single tokens straight from hidden states, and nothing computed for other positions.

The last feed-forward layer and the LM head are needed at the positions that predict a response, nowhere else: no later
layer looks at the others.

The head of a large vocabulary is where memory goes: 1,000 positions x 152k words are 600 MB in float32, and a softmax
with its gradient holds several of them. But the gradient of `log p(y) = h . W[y] - logsumexp(W h)` in the hidden state
h is `W[y] - sum_v p(v) W[v]`, one vector of the width of h: with a frozen head it is computed beside the
log-probability while the chunk is there, and nothing of the size of the vocabulary is kept for the backward pass or
computed twice.

Shapes: M positions, K tokens, H width of the model, V vocabulary.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.layout import Wanted

CHUNK_ELEMENTS = 2**25  # logits held at a time: 128 MB in float32, 220 positions of a vocabulary of 152k


@contextmanager
def reading_logps(model: Any, wanted: Wanted) -> Iterator[None]:
    """Context in which a model returns the wanted log-probabilities (K,) in place of logits.

    The modules concerned are called as ever, once each, which is what partitioned weights need to be gathered around.
    """
    head = model.get_output_embeddings()

    def logps(_: Any, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, 1).index_select(0, wanted.sources)
        return token_logps(rows, head.weight, head.bias, wanted.which, wanted.tokens)

    def fed_forward(forward: Any, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, 1)
        found = forward(rows.index_select(0, wanted.sources)[None])
        return rows.new_zeros(rows.shape).index_copy(0, wanted.sources, found[0]).view_as(hidden)

    last = _last_feed_forward(model)
    with _computing(head, logps), _computing(last, fed_forward) if last is not None else nullcontext():
        yield


def _last_feed_forward(model: Any) -> Any:
    """Feed-forward module of the last layer; None where it is a mixture, or is computed again out of this context."""
    layers = getattr(model.get_decoder(), "layers", None)
    if not layers or (getattr(layers[-1], "gradient_checkpointing", False) and layers[-1].training):
        return None
    found = getattr(layers[-1], "mlp", None)
    return None if hasattr(found, "experts") else found


@contextmanager
def _computing(module: Any, compute: Callable[[Any, Tensor], Tensor]) -> Iterator[None]:
    """Context in which `module(x)` is `compute(what module(x) did before, x)`."""
    before = vars(module).get("forward")
    module.forward = functools.partial(compute, module.forward)
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def token_logps(hidden: Tensor, weight: Tensor, bias: Tensor | None, which: Tensor, tokens: Tensor) -> Tensor:
    """`log softmax(hidden[which] W^T + b)[tokens]` in float32 nats, with gradient.

    Shapes: (M, H), (V, H), (V,), (K,), (K,) -> (K,).
    """
    chunks = hidden.split(max(1, CHUNK_ELEMENTS // weight.shape[0]))
    starts = accumulate((len(chunk) for chunk in chunks), initial=0)
    compute = _trained_chunk if weight.requires_grad else _frozen_chunk
    parts = [compute(chunk, weight, bias, which - start, tokens) for chunk, start in zip(chunks, starts, strict=False)]
    return functools.reduce(operator.add, parts)


def _trained_chunk(hidden: Tensor, weight: Tensor, bias: Tensor | None, which: Tensor, tokens: Tensor) -> Tensor:
    """As `_values`; the logits are thrown away and computed again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def values(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _values(_logits(hidden, weight, bias), which, tokens)

    return checkpoint(values, hidden, weight, bias, use_reentrant=False)


def _frozen_chunk(hidden: Tensor, weight: Tensor, bias: Tensor | None, which: Tensor, tokens: Tensor) -> Tensor:
    """As `_values`, with a gradient in the hidden states only."""
    import torch

    with torch.no_grad():
        logits = _logits(hidden, weight, bias)
        values = _values(logits, which, tokens)
    if not hidden.requires_grad:
        return values
    with torch.no_grad():
        probabilities = logits.sub_(logits.logsumexp(1, keepdim=True)).exp_()
        expected = (probabilities.to(weight.dtype) @ weight).float()
        inside, at = _inside(which, len(hidden))
        slope = (weight.index_select(0, tokens).float() - expected.index_select(0, at)) * inside[:, None]
    linear = (hidden.index_select(0, at).float() * slope).sum(1)
    return values + (linear - linear.detach())  # the value of the first, the gradient of the second


def _values(logits: Tensor, which: Tensor, tokens: Tensor) -> Tensor:
    """`log softmax(logits)[which, tokens]`, 0 where `which` is outside this chunk. Shapes: (m, V), (K,), (K,) -> (K,).

    Token and normalizer come from the same logits: rounded apart, a sure token could get a log-probability above 0.
    """
    import torch

    inside, at = _inside(which, len(logits))
    values = logits[at, tokens] - logits.logsumexp(1).index_select(0, at)
    return torch.where(inside, values, 0.0)


def _inside(which: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Which entries are rows of this chunk, and those as valid row numbers. Shapes (K,)."""
    return (which >= 0) & (which < rows), which.clamp(0, rows - 1)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In float32. Shape (m, V)."""
    from torch.nn.functional import linear

    return linear(hidden, weight, bias).float()
