"""Log-probabilities of responses: the one code path of policy and reference, of training and scoring.

Shapes: N rows, T tokens, K response tokens of all rows together, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.batches import ResponseBatch


def response_logps(model: Any, batch: ResponseBatch) -> tuple[Tensor, Tensor]:
    """Sum of token log-probabilities of each row's response, and its length in tokens.

    The LM head runs on the positions that predict a response token, nowhere else. Sums are in float32 nats.

    Returns:
        logps (N,), with gradient; lengths (N,), float32.
    """
    predicts = batch.mask.roll(-1, dims=1)  # position t predicts token t + 1; the first token is never a response
    predicts[:, -1] = False
    logits = model(**batch.inputs, logits_to_keep=predicts, use_cache=False).logits
    token_logps = _token_logps(logits, batch.inputs["input_ids"][batch.mask])
    return _sum_rows(token_logps, batch.mask)


def _token_logps(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax(logits)[token] in float32. Shapes: (K, V), (K,) -> (K,)."""
    wide = logits.float()
    return wide.gather(1, tokens[:, None]).squeeze(1) - wide.logsumexp(1)


def _sum_rows(token_logps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scatter (K,) values back to (N, T) and sum over each row."""
    spread = token_logps.new_zeros(mask.shape).masked_scatter(mask, token_logps)
    return spread.sum(1), mask.sum(1).to(token_logps.dtype)
