"""Where a stage runs: its rank, its threads, and the settings that never change what is computed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from cwdpo.base.config import Config

INFERENCE = Literal["replicate", "zero3", "tensor_parallel"]


class Execution(Config):
    """How to run, not what to compute: no field of this class is part of any identity."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage of training; 0 is refused with bf16 because its trajectory differs."""
    micro_batch: int = Field(default=8, gt=0)
    """Most samples one rank takes in one forward pass; the global batch stays what the stage says."""
    micro_tokens: int | None = Field(default=None, gt=0)
    """Most tokens of one forward pass, padding included; a longer sample has a pass of its own. None sets no limit."""
    shared_prefix: bool = True
    """Compute image and prompt once for all responses of a sample; false gives every response a row of its own. Where
    LoRA has dropout, which it has not by default, responses that share a prefix share its dropout, too."""
    chunked_head: bool = True
    """Take log-probabilities from the LM head a chunk at a time; false keeps all logits of the responses."""
    feed_workers: int = Field(default=2, ge=0)
    """Threads that open and preprocess the images of the next step, so that those of two steps are in memory (about
    5 MB an image of 256 tokens); with 0 each step does its own."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    checkpoint_every: int = Field(default=100, gt=0)
    """Optimizer steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Newest checkpoints kept while a stage runs; all go when it is done."""
    snapshot_every: int = Field(default=100, ge=0)
    """Optimizer steps between two adapters that a LoRA training keeps beside its result, so that it can be probed when
    it is over (2 bytes a parameter of the adapter in bf16: 0.3 GB each for rank 64 at 7B, 1.7 GB at 72B); 0 keeps
    none."""
    probe_every: int | None = Field(default=None, gt=0)
    """Optimizer steps between probes while training runs that nothing acts on; set by `probe` where they cannot be made
    afterwards."""
    alarms: tuple[str, ...] = ()
    """What is looked for at each of them, and told; set by `probe.alarms`."""
    log_every: int = Field(default=1, gt=0)
    """Optimizer steps between two points of the training curve."""
    inference: INFERENCE = "replicate"
    """Replica of generation and reference passes: one process, all ranks under ZeRO-3, or tensor-parallel groups."""
    split: int = Field(default=1, gt=0)
    """Jobs that share the work of a stage that answers or scores: array elements of their own, each with every n-th
    block. The stage itself then only puts together what they have computed."""
    replica_size: int = Field(default=1, gt=0)
    """Processes a tensor-parallel replica spans; must divide the number of ranks."""


@dataclass(frozen=True)
class Rank:
    """This process among the ranks of its job.

    Attributes:
        rank: 0 .. world_size - 1.
        local_rank: index of this process on its node, which is also its GPU.
        world_size: number of ranks in the job.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Rank:
        """Read RANK, LOCAL_RANK and WORLD_SIZE as the launcher set them; absent means one process."""
        return cls(*(int(environment.get(key, default)) for key, default in _RANK_VARIABLES))

    @property
    def is_first(self) -> bool:
        """True on the one rank that writes shared files."""
        return self.rank == 0


_RANK_VARIABLES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))
