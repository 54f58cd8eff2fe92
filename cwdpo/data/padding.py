"""Encoded prefixes of different sizes side by side in one tensor.

Shapes: N rows, P tokens of a prefix, T tokens of the longest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def per_token(prefix: dict[str, Tensor]) -> set[str]:
    """Keys of the entries that have a value for each token, of shape (1, P)."""
    shape = prefix["input_ids"].shape
    return {key for key, value in prefix.items() if value.shape == shape}


def concatenate(tensors: list[Tensor]) -> Tensor:
    """Stack pixels along the first dimension; images of fewer tiles are filled with zeros, which models skip."""
    import torch

    sizes = torch.tensor([tensor.shape[1:] for tensor in tensors]).amax(0).tolist()
    padded = []
    for tensor in tensors:
        margins = [size - have for size, have in zip(sizes, tensor.shape[1:], strict=True)]
        spec = [part for margin in reversed(margins) for part in (0, margin)]
        padded.append(torch.nn.functional.pad(tensor, spec) if any(margins) else tensor)
    return torch.cat(padded)


def left_padded(prefixes: list[dict[str, Tensor]], pad_token_id: int) -> dict[str, Tensor]:
    """Prefixes for batched generation: per-token entries padded on the left to (N, T)."""
    import torch

    longest = max(prefix["input_ids"].shape[1] for prefix in prefixes)
    inputs = {}
    for key in prefixes[0]:
        entries = [prefix[key] for prefix in prefixes]
        if key in per_token(prefixes[0]):
            value = pad_token_id if key == "input_ids" else 0
            pad = torch.nn.functional.pad
            inputs[key] = torch.cat([pad(row, (longest - row.shape[1], 0), value=value) for row in entries])
        else:
            inputs[key] = concatenate(entries)
    return inputs
