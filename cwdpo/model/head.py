"""A model that returns what is read of response tokens, and computes nothing for other positions.

The last feed-forward layer and the LM head are needed at the positions that predict a response, nowhere else: no later
layer looks at the others.

Shapes: M positions, K response tokens, H width of the model, Q quantities.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from cwdpo.model.tokens import Head, read_tokens
from cwdpo.objectives.reading import LOGPS, Reading

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.layout import Wanted

VALUE_HEAD = "value_head"
"""Name of the module that says how good a state is, where a policy has one."""


@contextmanager
def reading_tokens(model: Any, wanted: Wanted, reading: Reading = LOGPS, start: Tensor | None = None) -> Iterator[None]:
    """Context in which a model returns what `reading` names of the wanted tokens, (Q, K), in place of logits.

    The modules concerned are called as ever, once each, which is what partitioned weights need to be gathered around.

    Args:
        start: states of the policy at the start, see `reading_states`.
    """
    head = model.get_output_embeddings()

    def read(_: Any, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, 1).index_select(0, wanted.sources)
        found = read_tokens(rows, Head(head.weight, head.bias), wanted.tokens, reading.of_words(), start)
        return joined(reading, found, values_of(model, rows) if reading.values else None)

    with head_doing(model, wanted, read):
        yield


@contextmanager
def head_doing(model: Any, wanted: Wanted, read: Callable[[Any, Tensor], Tensor]) -> Iterator[None]:
    """Context in which the LM head gives what `read` makes of itself and the hidden states, in place of logits.

    What no wanted token needs is not computed.
    """
    with _computing(model.get_output_embeddings(), read), _last_layer_where(model, wanted):
        yield


@contextmanager
def reading_states(model: Any, wanted: Wanted) -> Iterator[None]:
    """Context in which a model returns the states (K, H) that predict the wanted tokens, in place of logits."""

    def read(_: Any, hidden: Tensor) -> Tensor:
        return hidden.flatten(0, 1).index_select(0, wanted.sources)

    with head_doing(model, wanted, read):
        yield


@contextmanager
def keeping_values(model: Any, reading: Reading) -> Iterator[list[Tensor]]:
    """Context in which a model adds to a list what the value head says of all states its LM head sees.

    The list stays empty where `reading` does not ask for values.
    """
    kept: list[Tensor] = []

    def read(forward: Any, hidden: Tensor) -> Tensor:
        kept.extend([values_of(model, hidden.flatten(0, -2))] if reading.values else [])
        logits: Tensor = forward(hidden)
        return logits

    with _computing(model.get_output_embeddings(), read):
        yield kept


def values_of(model: Any, states: Tensor) -> Tensor:
    """What the value head of a policy says of states (K, H). Shape (K,), float32."""
    values: Tensor = getattr(model, VALUE_HEAD)(states).float().squeeze(1)
    return values


def joined(reading: Reading, of_words: Tensor, values: Tensor | None) -> Tensor:
    """What was read of words and what the value head said, in the order of `reading.names`. Shape (Q, K)."""
    import torch

    if values is None:
        return of_words
    by_name = dict(zip(reading.of_words().names, of_words, strict=True)) | {"value": values}
    return torch.stack([by_name[name] if name in reading.trained else by_name[name].detach() for name in reading.names])


@contextmanager
def _last_layer_where(model: Any, wanted: Wanted) -> Iterator[None]:
    """Context in which the last feed-forward layer computes the wanted positions only."""

    def fed_forward(forward: Any, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, 1)
        found = forward(rows.index_select(0, wanted.positions)[None])
        return rows.new_zeros(rows.shape).index_copy(0, wanted.positions, found[0]).view_as(hidden)

    last = _last_feed_forward(model)
    with _computing(last, fed_forward) if last is not None else nullcontext():
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
