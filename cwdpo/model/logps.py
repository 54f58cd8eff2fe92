"""Log-probabilities of responses: the one code path of policy and reference, of training and scoring.

Shapes: K response tokens of all responses, R responses, L tokens of the longest one, M positions that predict them,
V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cwdpo.model.head import reading_logps

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.layout import ResponseBatch


def response_logps(model: Any, batch: ResponseBatch, plain_head: bool = False) -> tuple[Tensor, Tensor]:
    """Sum of token log-probabilities of each response, and its length in tokens.

    Args:
        model: a vision-language model, or the PEFT or DeepSpeed wrapper of one.
        batch: on the model's device.
        plain_head: take the logits as the model gives them, in the plainest way; for heads that do more than a
            product, and as the measure of the other way.

    Returns:
        logps (R,), nats in float32, with gradient; lengths (R,), float32.
    """
    values = _from_logits(model, batch) if plain_head else _from_head(model, batch)
    return batch.wanted.table(values).sum(1), batch.wanted.lengths.to(values.dtype)


def _from_head(model: Any, batch: ResponseBatch) -> Tensor:
    """Shape (K,)."""
    with reading_logps(model, batch.wanted):
        values: Tensor = model(**batch.inputs, attention_mask=batch.attention(), use_cache=False).logits
    return values


def _from_logits(model: Any, batch: ResponseBatch) -> Tensor:
    """Shape (K,)."""
    import torch

    wanted = batch.wanted
    keep = torch.zeros_like(batch.groups, dtype=torch.bool)
    keep.view(-1)[wanted.positions] = True
    inputs = {**batch.inputs, "attention_mask": batch.attention()}
    logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits.float()  # (M, V)
    which = (keep.view(-1).cumsum(0) - 1).index_select(0, wanted.sources)
    return logits[which, wanted.tokens] - logits.logsumexp(1).index_select(0, which)
