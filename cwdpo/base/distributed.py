"""The ranks of one job talking to each other: start, barrier, sums, broadcast. Torch is imported inside."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from cwdpo.base.runtime import Rank

if TYPE_CHECKING:
    import torch

# Ranks wait for rank 0 while it writes and hashes 145 GB, and for slower ranks at the end of a generation. A rank that
# dies is noticed by the launcher at once, not by this.
TIMEOUT = datetime.timedelta(hours=6)


def device_of(rank: Rank) -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    import torch

    return torch.device("cuda", rank.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def start(rank: Rank) -> None:
    """Join the process group of the job through DeepSpeed; one process is a group too. Idempotent."""
    import deepspeed
    import torch

    # Compiling the shared-memory helper takes a minute and saves nothing at these message sizes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if torch.distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(rank.local_rank)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, timeout=TIMEOUT, verbose=False)


def barrier() -> None:
    """Wait for all ranks."""
    import torch

    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.barrier()


def sum_over_ranks(values: torch.Tensor, rank: Rank) -> list[float]:
    """Element-wise float64 sums of a vector, equal on every rank; the one host synchronisation of a step."""
    import torch

    wide = values.detach().double()
    if rank.world_size > 1:
        torch.distributed.all_reduce(wide)
    return [float(value) for value in wide.tolist()]


def from_first_rank(value: Any, rank: Rank) -> Any:
    """The value rank 0 passed, on every rank."""
    import torch

    if rank.world_size == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0, device=device_of(rank))
    return box[0]
