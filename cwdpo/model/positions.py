"""Rotary positions of an image and prompt, as the model itself counts them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.layout import Positions


def prefix_positions(model: Any) -> Positions:
    """Positions of a prefix: the model's own where an image has several axes (M-RoPE), else 0, 1, 2, ..."""
    own = next((module.get_rope_index for module in model.modules() if hasattr(module, "get_rope_index")), None)
    return _counted if own is None else _by_model(own)


def _counted(prefix: dict[str, Tensor]) -> Tensor:
    import torch

    return torch.arange(prefix["input_ids"].shape[1])[None]


def _by_model(own: Callable[..., tuple[Tensor, Tensor]]) -> Positions:
    known = inspect.signature(own).parameters

    def positions(prefix: dict[str, Tensor]) -> Tensor:
        found, _ = own(**{key: value for key, value in prefix.items() if key in known})
        return found[:, 0]

    return positions
