"""Reading response tokens: the one code path of policy and reference, of training and scoring.

Shapes: K response tokens of all responses, R responses, L tokens of the longest one, M positions that predict them,
Q quantities, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cwdpo.model.head import joined, keeping_values, reading_states, reading_tokens
from cwdpo.model.tokens import VALUES, Chunk
from cwdpo.objectives.reading import LOGPS, Quantity, Reading

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.layout import ResponseBatch


@dataclass(frozen=True)
class Scores:
    """What was read of responses.

    Attributes:
        tokens: quantity -> its value at each token, 0 beyond a response's end. Shape (R, L).
        lengths: tokens of each response, in float32. Shape (R,).
    """

    tokens: Mapping[Quantity, Tensor]
    lengths: Tensor

    @cached_property
    def sums(self) -> dict[Quantity, Tensor]:
        """Each quantity summed over the tokens of a response. Shapes (R,)."""
        return {name: table.sum(1) for name, table in self.tokens.items()}

    @property
    def logps(self) -> Tensor:
        """Log-probability of each response, nats. Shape (R,)."""
        return self.sums["logp"]


def read_responses(
    model: Any, batch: ResponseBatch, reading: Reading = LOGPS, plain_head: bool = False, start: Tensor | None = None
) -> Scores:
    """What `reading` names of every response, with gradient where it is trained.

    Args:
        model: a vision-language model, or the PEFT or DeepSpeed wrapper of one.
        batch: on the model's device.
        plain_head: take the logits as the model gives them, in the plainest way; for heads that do more than a
            product, and as the measure of the other way.
        start: from `starting_states`, for `kl`.
    """
    read = _from_logits if plain_head else _from_head
    found = read(model, batch, reading, start)
    tables = {name: batch.wanted.table(values) for name, values in zip(reading.names, found, strict=True)}
    return Scores(tables, batch.wanted.lengths.to(found.dtype))


def response_logps(model: Any, batch: ResponseBatch, plain_head: bool = False) -> tuple[Tensor, Tensor]:
    """Log-probability of each response, nats in float32, with gradient, and its length in tokens. Shapes (R,)."""
    scores = read_responses(model, batch, plain_head=plain_head)
    return scores.logps, scores.lengths


def starting_states(model: Any, batch: ResponseBatch, plain_head: bool) -> Tensor:
    """What a policy at the start leaves for `kl`: states (K, H), or with a plain head log-probabilities (K, V)."""
    import torch

    with torch.no_grad():
        if plain_head:
            logits, which = plain_logits(model, batch)
            return logits.index_select(0, which).log_softmax(1)
        with reading_states(model, batch.wanted):
            states: Tensor = model(**batch.inputs, attention_mask=batch.attention(), use_cache=False).logits
    return states


def _from_head(model: Any, batch: ResponseBatch, reading: Reading, start: Tensor | None) -> Tensor:
    """Shape (Q, K)."""
    with reading_tokens(model, batch.wanted, reading, start):
        values: Tensor = model(**batch.inputs, attention_mask=batch.attention(), use_cache=False).logits
    return values


def _from_logits(model: Any, batch: ResponseBatch, reading: Reading, start: Tensor | None) -> Tensor:
    """Shape (Q, K)."""
    import torch

    with keeping_values(model, reading) as kept:
        logits, which = plain_logits(model, batch)
    chunk = Chunk(logits.index_select(0, which).log_softmax(1), batch.wanted.tokens, start)
    words = reading.of_words()
    found = torch.stack(
        [*(VALUES[name](chunk) for name in words.trained), *(VALUES[name](chunk).detach() for name in words.observed)]
    )
    return joined(reading, found, kept[0].index_select(0, which) if kept else None)


def plain_logits(model: Any, batch: ResponseBatch) -> tuple[Tensor, Tensor]:
    """Logits (M, V) in float32, and which of them predicts each response token, (K,)."""
    import torch

    keep = torch.zeros_like(batch.groups, dtype=torch.bool)
    keep.view(-1)[batch.wanted.positions] = True
    inputs = {**batch.inputs, "attention_mask": batch.attention()}
    logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits.float()
    return logits, (keep.view(-1).cumsum(0) - 1).index_select(0, batch.wanted.sources)
