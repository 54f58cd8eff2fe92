"""Patch embeddings as matrix products.

Vision towers that get their image in patches (the Qwen family) still embed each patch by a convolution whose kernel is
as large as the patch. That is one dot product per output, and convolution kernels are slow at it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def embed_patches_by_product(model: Any) -> None:
    """Have every 3-D convolution without overlap compute as a product where it is given single patches."""
    import torch

    convolutions: list[Any] = [module for module in model.modules() if isinstance(module, torch.nn.Conv3d)]
    for module in convolutions:
        if module.kernel_size == module.stride and module.groups == 1:
            module.forward = partial(_forward, module, module.forward)


def _forward(module: Any, convolve: Any, patches: Tensor) -> Tensor:
    """Shapes: (N, channels, *kernel) -> (N, outputs, 1, 1, 1)."""
    from torch.nn.functional import linear

    if patches.shape[2:] != module.kernel_size:
        return convolve(patches)
    return linear(patches.flatten(1), module.weight.flatten(1), module.bias)[..., None, None, None]
