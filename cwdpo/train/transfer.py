"""Small tensors made on the host for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def sent(values: Sequence[float], device: torch.device) -> Tensor:
    """A vector of numbers on `device`; a GPU is not waited for, as it would be by `torch.tensor(..., device=...)`."""
    import torch

    vector = torch.tensor(values)
    return vector.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else vector
