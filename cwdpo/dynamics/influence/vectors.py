"""Directions in the space of the trained parameters: gradients, steps, and a policy moved along one for a while.

A vector has one tensor for each parameter that requires gradients (with LoRA those of the adapter), by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Vector = Mapping[str, "Tensor"]


def trained(model: Any) -> dict[str, Any]:
    """The parameters that require gradients, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def copied(model: Any, device: Any = None) -> Vector:
    """The trained parameters as they are, on `device` (None: where they lie)."""
    return on({name: parameter.detach().clone() for name, parameter in trained(model).items()}, device)


def on(vector: Vector, device: Any) -> Vector:
    """A vector on another device; None leaves it where it is."""
    return vector if device is None else {name: value.to(device) for name, value in vector.items()}


def put(model: Any, values: Vector) -> None:
    """Give the trained parameters other values, in place."""
    import torch

    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(values[name])


def difference(after: Vector, before: Vector) -> Vector:
    """`after - before`: what an optimizer did, whatever optimizer that was."""
    return {name: value - before[name] for name, value in after.items()}


def inner(one: Vector, other: Vector) -> float:
    """Inner product over all parameters, accumulated in float64."""
    # Devices are asked once, not once for each parameter.
    parts = [(value.double() * other[name].to(value.device).double()).sum() for name, value in one.items()]
    return float(sum(parts))


def norm(vector: Vector) -> float:
    """Euclidean norm over all parameters."""
    return float(inner(vector, vector) ** 0.5)


@contextmanager
def moved(model: Any, change: Vector, factor: float = 1.0) -> Iterator[None]:
    """Context in which the trained parameters stand at `theta + factor * change`; afterwards each bit is as before.

    A plain SGD step along a gradient is `factor = -learning_rate`. Costs a copy of the trained parameters.
    """
    import torch

    before = copied(model)
    try:
        with torch.no_grad():
            for name, parameter in trained(model).items():
                parameter.add_(change[name].to(parameter), alpha=factor)
        yield
    finally:
        put(model, before)  # to subtract the step again would round
