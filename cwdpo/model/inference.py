"""A policy ready to score or generate, spread over the ranks of a job as *replicas*.

- `replicate`: every rank holds the whole model and works on its own blocks.
- `zero3`: DeepSpeed partitions the weights over all ranks; every rank works on its own blocks, and all ranks make the
  same number of module calls, because each call gathers weights.
- `tensor_parallel`: groups of `replica_size` ranks split every layer and work on the same block in lock-step.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base import distributed
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.errors import ConfigError
from cwdpo.base.runtime import Rank
from cwdpo.model.attention import joins_prefixes
from cwdpo.model.config import Policy
from cwdpo.model.load import load_lora, load_model, load_policy_processor
from cwdpo.model.tensor_parallel import replica_mesh
from cwdpo.model.zero3 import Zero3Loading

if TYPE_CHECKING:
    import torch


def pending_of(blocks: Blocks) -> list[int]:
    """The unfinished blocks as rank 0 sees them. Collective.

    So there is one view, and no other node asks its file system for what is not there yet, which it would remember.
    """
    rank = blocks.context.rank
    found: list[int] = distributed.from_first_rank(blocks.pending() if rank.is_first else None, rank)
    return found


class Replica:
    """The model as this rank holds it.

    Attributes:
        model: in evaluation mode, adapter included.
        processor: its processor.
        shard, shards: which of the blocks are this replica's.
        writes: True on the one rank of the replica that writes results.
        lockstep: True when all ranks must make the same module calls.
    """

    def __init__(self, context: StageContext, policy: Policy) -> None:
        rank, execution = context.rank, context.execution
        size = execution.replica_size if execution.inference == "tensor_parallel" else 1
        if rank.world_size % size:
            raise ConfigError(f"execution.replica_size: {size} does not divide the job's {rank.world_size} rank(s)")
        self.shard, member = divmod(rank.rank, size)
        self.shards = rank.world_size // size
        self.writes = member == 0
        self.lockstep = execution.inference == "zero3"
        self.processor = load_policy_processor(policy, context.inputs["model"])
        self.device: torch.device = distributed.device_of(rank)
        load = {"replicate": self._whole, "zero3": self._partitioned, "tensor_parallel": self._split}
        self.model: Any = load[execution.inference](context, policy)

    def blocks(self, blocks: Blocks) -> Iterator[tuple[int, bool]]:
        """(block index, whether to write it) for every unfinished block of this replica.

        In lock-step a rank that has run out repeats its last block without writing it.
        """
        pending = pending_of(blocks)
        mine = pending[self.shard :: self.shards]
        rounds = -(-len(pending) // self.shards) if self.lockstep else len(mine)
        for turn in range(rounds):
            real = turn < len(mine)
            yield (mine[turn] if real else pending[0]), real and self.writes

    def _whole(self, context: StageContext, policy: Policy) -> Any:
        model = load_model(policy, context.inputs["model"])
        return _with_adapter(model, context.inputs.get("adapter")).to(self.device)

    def _partitioned(self, context: StageContext, policy: Policy) -> Any:
        import deepspeed

        config = {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": policy.dtype == "bfloat16"},
            "zero_optimization": {"stage": 3},
        }
        with Zero3Loading(config):
            model = load_model(policy, context.inputs["model"])
        engine, *_ = deepspeed.initialize(model=_with_adapter(model, context.inputs.get("adapter")), config=config)
        return engine.module.eval()

    def _split(self, context: StageContext, policy: Policy) -> Any:
        from transformers.distributed import DistributedConfig

        size = context.execution.replica_size
        with replica_mesh(self.device, self.shards, size):
            plan = DistributedConfig(tp_size=size, tp_plan="auto")
            model = load_model(policy, context.inputs["model"], distributed_config=plan)
        return _with_adapter(model, context.inputs.get("adapter"))


_held: list[tuple[Hashable, Replica]] = []
"""What the last stage of this process asked, under what it was loaded by; one at most."""


def replica_of(context: StageContext, policy: Policy) -> Replica:
    """The replica that the stage before this one had, where it is of the same policy, else a new one.

    A job asks one policy all benchmarks, and loading a large one takes minutes. Collective.
    """
    read = (context.inputs["model"], context.inputs.get("adapter"))
    key = (policy, *read, context.execution.inference, context.execution.replica_size, context.rank)
    if not _held or _held[0][0] != key:
        release()
        _held.append((key, Replica(context, policy)))
    return _held[0][1]


def release() -> None:
    """Give back the memory of the replica that is held, before a stage that needs another one or none."""
    if _held:
        import torch

        _held.clear()
        gc.collect()
        torch.cuda.empty_cache()


class TrainedReplica(Replica):
    """A model that is being trained, to be used inside `evaluating`: whole on every rank, or partitioned over all.

    Args:
        model: without the engine around it.
        partitioned: by ZeRO-3.
    """

    def __init__(self, rank: Rank, model: Any, processor: Any, partitioned: bool) -> None:
        self.shard, self.shards, self.writes, self.lockstep = rank.rank, rank.world_size, True, partitioned
        self.model, self.processor, self.device = model, processor, distributed.device_of(rank)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Context in which a model that is being trained has no dropout and keeps nothing to compute again."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Context inside `evaluating` in which a model generates: with the attention it came with."""
    config = model.get_decoder().config
    trained_with = config._attn_implementation
    joins_prefixes(model)
    try:
        yield
    finally:
        config._attn_implementation = trained_with


def _with_adapter(model: Any, adapter: Path | None) -> Any:
    return load_lora(model, adapter, trainable=False) if adapter else model
