"""Log-probabilities of single tokens straight from hidden states, and nothing computed for other positions.

The last feed-forward layer and the LM head are needed at the positions that predict a response, nowhere else: no later
layer looks at the others.

The head of a large vocabulary is where memory goes: 1,000 tokens x 152k words are 600 MB in float32, and a softmax with
its gradient holds several of them. But the gradient of `log p(y) = h . W[y] - logsumexp(W h)` in the hidden state h is
`sum_v (1[v = y] - p(v)) W[v]`, one vector of the width of h: with a frozen head it is computed beside the
log-probability while the chunk is there, and nothing of the size of the vocabulary is kept for the backward pass or
computed twice. A head that is trained computes each chunk again in the backward pass.

Shapes: M positions, K tokens (one row each, so that no row serves two), k of them in a chunk, H width of the model,
V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.layout import Wanted

CHUNK_ELEMENTS = 2**25  # logits held at a time: 128 MB in float32, 220 tokens of a vocabulary of 152k


@contextmanager
def reading_logps(model: Any, wanted: Wanted) -> Iterator[None]:
    """Context in which a model returns the wanted log-probabilities (K,) in place of logits.

    The modules concerned are called as ever, once each, which is what partitioned weights need to be gathered around.
    """
    head = model.get_output_embeddings()

    def logps(_: Any, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, 1).index_select(0, wanted.sources)
        return token_logps(rows, head.weight, head.bias, wanted.tokens)

    def fed_forward(forward: Any, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, 1)
        found = forward(rows.index_select(0, wanted.positions)[None])
        return rows.new_zeros(rows.shape).index_copy(0, wanted.positions, found[0]).view_as(hidden)

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


def token_logps(hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor) -> Tensor:
    """`log softmax(hidden W^T + b)[tokens]` in float32 nats, with gradient.

    Shapes: (K, H), (V, H), (V,), (K,) -> (K,).
    """
    if weight.requires_grad:
        logps: Tensor = _trained_head().apply(hidden, weight, bias, tokens)
        return logps
    return _frozen_head(hidden, weight, bias, tokens)


def _frozen_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor) -> Tensor:
    import torch

    values, slopes = [], []
    with torch.no_grad():
        for rows, targets in _chunks(hidden, weight, tokens):
            logits = _logits(rows, weight, bias)
            values.append(_values(logits, targets))
            if hidden.requires_grad:
                slopes.append(_slope(logits, targets, values[-1]).to(weight.dtype) @ weight)
    logps = torch.cat(values)
    if not hidden.requires_grad:
        return logps
    linear = (hidden.float() * torch.cat(slopes).float()).sum(1)
    return logps + (linear - linear.detach())  # the value of the first, the gradient of the second


@functools.cache
def _trained_head() -> Any:
    """The autograd function of a head that is trained; torch is not imported before it is needed."""
    import torch

    class TrainedHead(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor) -> Tensor:
            chunks = _chunks(hidden, weight, tokens)
            logps = torch.cat([_values(_logits(rows, weight, bias), targets) for rows, targets in chunks])
            ctx.save_for_backward(hidden, weight, bias, tokens, logps)
            return logps

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            hidden, weight, bias, tokens, logps = ctx.saved_tensors
            size = _chunk_rows(weight)
            of_hidden = []
            # In float32: sums of bf16 gradients would depend on the number of chunks.
            of_weight = torch.zeros_like(weight, dtype=torch.float32)
            of_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            parts = zip(_chunks(hidden, weight, tokens), logps.split(size), gradients[0].split(size), strict=True)
            for (rows, targets), values, gradient in parts:
                slope = _slope(_logits(rows, weight, bias), targets, values).mul_(gradient[:, None])
                if of_bias is not None:
                    of_bias += slope.sum(0)
                slope = slope.to(weight.dtype)
                of_hidden.append(slope @ weight)
                of_weight += slope.T @ rows
            return torch.cat(of_hidden), of_weight.to(weight.dtype), _as(of_bias, bias), None

    return TrainedHead


def _as(value: Tensor | None, like: Tensor | None) -> Tensor | None:
    return None if value is None or like is None else value.to(like.dtype)


def _values(logits: Tensor, tokens: Tensor) -> Tensor:
    """`log softmax(logits)[tokens]`. Shapes: (k, V), (k,) -> (k,).

    Token and normalizer come from the same logits: rounded apart, a sure token could get a log-probability above 0.
    """
    return logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(1)


def _slope(logits: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """Gradient of `_values` in the logits, `1[v = y] - p(v)`, in their memory. Shape (k, V).

    At the token itself it is `-expm1(log p)`: `1 - p` of a sure token would be rounded away.
    """
    normalizer = logits.logsumexp(1, keepdim=True)
    slope = logits.sub_(normalizer).exp_().neg_()
    return slope.scatter_(1, tokens[:, None], -values.expm1()[:, None])


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In float32. Shape (k, V)."""
    from torch.nn.functional import linear

    return linear(hidden, weight, bias).float()


def _chunks(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = _chunk_rows(weight)
    return zip(hidden.split(size), tokens.split(size), strict=True)


def _chunk_rows(weight: Tensor) -> int:
    return max(1, CHUNK_ELEMENTS // weight.shape[0])
