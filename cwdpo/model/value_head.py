"""A policy's own estimate of how good a state is: one linear output beside the LM head."""

from __future__ import annotations

from typing import Any

from cwdpo.model.head import VALUE_HEAD


def add_value_head(policy: Any) -> None:
    """Give a policy a trainable value head of zeros, so that its first estimates are 0 whatever the seed."""
    import torch

    head = policy.get_output_embeddings()
    width = policy.get_decoder().config.hidden_size
    values = torch.nn.Linear(width, 1, bias=True, device=head.weight.device, dtype=head.weight.dtype)
    torch.nn.init.zeros_(values.weight)
    torch.nn.init.zeros_(values.bias)
    policy.add_module(VALUE_HEAD, values)
