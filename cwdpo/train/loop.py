"""The one step loop of every offline training stage: batches in, DeepSpeed steps, a curve and checkpoints out.

A stage brings a `Task`: which responses of a sample it scores and what the loss is. Everything a task returns is a
*share*: a number that, added over micro-batches and ranks, gives the value for the global batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError, Interrupted, TrainingError
from cwdpo.base.identity import seed_from
from cwdpo.data.batches import Collator
from cwdpo.data.samples import DataOrder, MicroBatch, Sample, micro_batches
from cwdpo.model.load import context_length, load_model, load_policy_processor, trainable_policy
from cwdpo.model.logps import response_logps
from cwdpo.model.zero3 import Zero3Loading
from cwdpo.train.checkpoint import Checkpoints, Progress
from cwdpo.train.config import TrainingSpec
from cwdpo.train.engine import Engine, check_precision, engine_config
from cwdpo.train.export import save_policy

if TYPE_CHECKING:
    from torch import Tensor

Shares = dict[str, "Tensor"]


@dataclass(frozen=True)
class Scored:
    """A micro-batch after the forward pass.

    Attributes:
        micro: its samples and their weights.
        logps: one entry per row, in the order of `Task.responses` sample by sample. Shape (N,).
        lengths: tokens of each row's response. Shape (N,).
        batch: the global batch it is part of, for the denominators.
    """

    micro: MicroBatch
    logps: Tensor
    lengths: Tensor
    batch: Sequence[Sample]


class Task(Protocol):
    """What distinguishes one training stage from another."""

    accumulates: bool
    """False when the loss needs the whole global batch in one micro-batch per rank."""

    def responses(self, sample: Sample) -> list[str]:
        """Responses of a sample that the loss needs, the chosen one first."""

    def initial_state(self) -> Mapping[str, float]:
        """What is carried from step to step, before the first."""

    def share(self, scored: Scored, state: Mapping[str, float]) -> tuple[Tensor, Shares]:
        """This micro-batch's share of the loss, and of every mean that is logged."""

    def finish(self, means: dict[str, float], state: Mapping[str, float]) -> Mapping[str, float]:
        """The state after a step, given the global means, to which it may add."""


class Trainer:
    """Model, data and engine of one stage on this rank."""

    def __init__(self, context: StageContext, spec: TrainingSpec, samples: Sequence[Sample], task: Task) -> None:
        if not samples:
            raise DataError("no training samples: the portion is empty or no sample has a rejected response")
        check_precision(spec.policy.dtype, context.execution)
        self.context, self.spec, self.task = context, spec, task
        self.order = DataOrder(samples, spec.optimization.batch_size, spec.seed, spec.one_per_image)
        self.total = spec.optimization.total_steps(self.order.steps_per_epoch)
        self.accumulation = self._accumulation()
        self.checkpoints = Checkpoints(context, full=spec.tuning.name == "full")
        self.engine, self.collator, self.progress = self._start()
        self.collator.check_texts(samples)

    def run(self) -> None:
        """Train to the end and write the policy."""
        while self.progress.step < self.total:
            stop = self._step()
            if stop:
                self.checkpoints.save(self.engine, self.progress)
                raise Interrupted(f"stopped by a signal; checkpoint written at step {self.progress.step}")
            if self.progress.step % self.context.execution.checkpoint_every == 0 and self.progress.step < self.total:
                self.checkpoints.save(self.engine, self.progress)
        save_policy(self.context, self.engine, self.collator.processor, self.spec)
        self.engine.close()

    def _accumulation(self) -> int:
        execution, batch_size = self.context.execution, self.spec.optimization.batch_size
        count = math.ceil(batch_size / (execution.micro_batch * self.context.rank.world_size))
        if count > 1 and not self.task.accumulates:
            raise ConfigError(
                "stage1.objective.constraint_estimate: current_batch needs gradient accumulation 1, but"
                f" batch_size {batch_size} over {self.context.rank.world_size} rank(s) of micro_batch"
                f" {execution.micro_batch} takes {count}; raise execution.micro_batch or use previous_step"
            )
        return count

    def _start(self) -> tuple[Engine, Collator, Progress]:
        """Load the policy, with the newest checkpoint's weights where there is one."""
        spec, context = self.spec, self.context
        config = engine_config(
            spec.optimization, context.execution, spec.policy.dtype, context.rank.world_size, self.accumulation
        )
        newest = self.checkpoints.newest()
        model = self._load(config)
        if newest and not self.checkpoints.full:
            model.load_state_dict(self.checkpoints.weights(newest), strict=False)
        limit = min(spec.optimization.max_length or math.inf, context_length(model))
        context.barrier()  # one rank may read the model faster than another by more than an exchange may take
        engine = Engine(model, spec.optimization, config)
        processor = load_policy_processor(spec.policy, context.inputs["model"])
        collator = Collator(processor, context.inputs["images"], int(limit))
        progress = Progress(0, 0, self.task.initial_state())
        if newest:
            progress = self.checkpoints.restore(newest, engine)
            context.event("resumed", step=progress.step)
        return engine, collator, progress

    def _load(self, config: dict[str, Any]) -> Any:
        spec, inputs = self.spec, self.context.inputs
        partitioned = config["zero_optimization"]["stage"] == 3
        with Zero3Loading(config) if partitioned else nullcontext():
            model: Any = load_model(spec.policy, inputs["model"])
        if self.context.execution.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model = model if partitioned else model.to(distributed.device_of(self.context.rank))
        return trainable_policy(model, spec.tuning, inputs.get("adapter"), spec.seed)

    def _step(self) -> bool:
        """One optimizer step on one global batch; True when any rank was asked to stop."""
        started = time.perf_counter()
        step = self.progress.step
        distributed.at_step(step + 1)
        batch = self.order.batch(step)
        rate = self.spec.optimization.learning_rate_at(step, self.total)
        rank = self.context.rank
        parts = micro_batches(batch, self.context.execution.micro_batch, rank.rank, rank.world_size, self.accumulation)
        sums: Shares = {}
        norm = None
        for number, micro in enumerate(parts):
            self._seed_dropout(step, number)
            for name, share in self._accumulate(micro, batch).items():
                sums[name] = sums[name] + share if name in sums else share
            if number == len(parts) - 1:
                means = self._global_means(sums, batch)
            norm = self.engine.step(rate)
        stop = means.pop("stop") > 0
        self._finish(means, norm, rate, batch, time.perf_counter() - started)
        return stop

    def _accumulate(self, micro: MicroBatch, batch: Sequence[Sample]) -> Shares:
        """Forward and backward of one micro-batch; returns detached shares of what is logged."""
        rows = [(sample, text) for sample in micro.samples for text in self.task.responses(sample)]
        inputs = self.collator.rows(rows).to(self.engine.device)
        logps, lengths = response_logps(self.engine.deepspeed, inputs)
        share, logged = self.task.share(Scored(micro, logps, lengths, batch), self.progress.objective)
        self.engine.backward(share)
        return {"loss": share.detach(), "tokens": lengths.sum().detach(), **logged}

    def _global_means(self, sums: Shares, batch: Sequence[Sample]) -> dict[str, float]:
        """Add shares over ranks, before the weights change; stop when the loss is not finite."""
        import torch

        sums["stop"] = torch.tensor(float(self.context.stopping()), device=self.engine.device)
        values = distributed.sum_over_ranks(torch.stack([value.float() for value in sums.values()]), self.context.rank)
        means = dict(zip(sums, values, strict=True))
        if not math.isfinite(means["loss"]):
            self._stop(f"the loss is {means['loss']}", batch)
        return means

    def _finish(
        self, means: dict[str, float], norm: float | None, rate: float, batch: Sequence[Sample], seconds: float
    ) -> None:
        """Advance the progress and write a point of the curve."""
        if norm is None or not math.isfinite(norm):
            self._stop(f"the gradient norm is {norm}", batch)
        before = self.progress
        state = self.task.finish(means, before.objective)
        self.progress = Progress(before.step + 1, before.samples + len(batch), dict(state))
        done = self.progress.step
        if done % self.context.execution.log_every == 0 or done == self.total:
            tokens = means.pop("tokens") / seconds
            self.context.event(
                "step", step=done, total=self.total, learning_rate=rate, grad_norm=norm, tokens_per_second=tokens,
                **means, **{f"state_{key}": value for key, value in state.items()},
            )  # fmt: skip

    def _seed_dropout(self, step: int, number: int) -> None:
        """Dropout, where there is any, draws from seed, step, micro-batch and rank: a resume needs no stored state."""
        import torch

        torch.manual_seed(seed_from("dropout", self.spec.seed, step, number, self.context.rank.rank))

    def _stop(self, what: str, batch: Sequence[Sample]) -> None:
        newest = self.checkpoints.newest()
        kept = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        ids = ", ".join(sample.id for sample in batch)
        raise TrainingError(f"step {self.progress.step + 1}: {what}; {kept}; the batch was: {ids}")
