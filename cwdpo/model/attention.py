"""Attention for rows `[prefix | responses]`: the prefix by a plain causal pass, only the responses under a mask.

A mask over the whole row would make the kernel look at all T x T pairs, and keep a GPU from its fastest kernel, though
all but the few rows of the responses are causal. So the mask that `ResponseBatch.attention` gives has rows for the
responses alone, (N, 1, T - P, T), and this function, put in the place of transformers' own, takes the missing P rows
for a causal prefix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

NAME = "causal_prefix_then_masked"


def splits_prefixes(model: Any) -> bool:
    """Have a model's decoder take masks without the rows of the prefix; False where its attention is another one."""
    config = model.get_decoder().config
    if config._attn_implementation == "sdpa":
        _register()
        config._attn_implementation = NAME  # stays: recomputed activations need it after the forward pass, too
    return bool(config._attn_implementation == NAME)


def joins_prefixes(model: Any) -> None:
    """Undo `splits_prefixes`."""
    config = model.get_decoder().config
    if config._attn_implementation == NAME:
        config._attn_implementation = "sdpa"


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention; a mask with fewer rows than there are queries is that of the last queries.

    Shapes: query, key, value (N, heads, T, width); the result (N, T, heads, width).
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as attend

    prefix = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[2]
    if not prefix:
        return attend(module, query, key, value, attention_mask, **options)
    before, _ = attend(module, query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], None, **options)
    after, _ = attend(module, query[:, :, prefix:], key, value, attention_mask, **options)
    return torch.cat([before, after], 1), None
