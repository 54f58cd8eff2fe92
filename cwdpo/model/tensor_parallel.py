"""Tensor-parallel replicas smaller than the job: transformers alone would split every layer over all of its ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cwdpo.base.errors import NotAvailable

DIMENSIONS = ("pp", "dp_replicate", "fsdp", "tp")
"""Dimensions of transformers' own mesh."""


@contextmanager
def replica_mesh(device: Any, replicas: int, size: int) -> Iterator[None]:
    """Context in which `from_pretrained(distributed_config=...)` splits a model over this rank's replica.

    Raises:
        NotAvailable: this release of transformers makes its meshes elsewhere.
    """
    import torch
    from transformers.distributed import mixin

    if not hasattr(mixin, "initialize_distributed_mesh"):
        raise NotAvailable("execution.replica_size: this transformers has no replicas smaller than the job; use 5.23")
    from transformers.distributed.utils import TransformersDeviceMesh

    shape = (replicas, 1, 1, 1, size)
    everyone = torch.distributed.init_device_mesh(device.type, shape, mesh_dim_names=("replica", *DIMENSIONS))
    mine = TransformersDeviceMesh(everyone[DIMENSIONS], everyone[DIMENSIONS])
    kept = mixin.initialize_distributed_mesh
    mixin.initialize_distributed_mesh = lambda distributed_config: (device, mine)
    try:
        yield
    finally:
        mixin.initialize_distributed_mesh = kept
