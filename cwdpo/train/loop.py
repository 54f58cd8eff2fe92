"""The one step loop of every training stage: batches in, DeepSpeed steps, a curve and checkpoints out.

A stage brings a `Task` (`task.py`): which responses of a sample it scores and what the loss is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError, Interrupted, TrainingError
from cwdpo.base.identity import seed_from
from cwdpo.data.ahead import ahead
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample
from cwdpo.model.inference import evaluating
from cwdpo.model.load import context_length, load_model, load_policy_processor, trainable_policy
from cwdpo.model.logps import Scores
from cwdpo.model.micro import Member, groups_of_all, in_step, rank_share
from cwdpo.model.snapshots import name_of
from cwdpo.model.starting import StartingAdapter, StartingCopy, StartingPolicy
from cwdpo.model.trial import choose_scorer
from cwdpo.model.value_head import add_value_head
from cwdpo.model.zero3 import Zero3Loading
from cwdpo.objectives.reading import LOGPS
from cwdpo.train.checkpoint import Checkpoints, Progress
from cwdpo.train.config import TrainingSpec
from cwdpo.train.engine import Engine, check_precision, engine_config
from cwdpo.train.export import save_policy
from cwdpo.train.keeping import Keeper
from cwdpo.train.steering import observe
from cwdpo.train.task import Encoded, Order, Scored, Shares, Task, rooted


@dataclass(frozen=True)
class _Turn:
    """A step to come: the global batch, and this rank's samples of it with their weight."""

    step: int
    batch: Sequence[Sample]
    mine: Sequence[Sample]
    weight: float


class Trainer:
    """Model, data and engine of one stage on this rank."""

    def __init__(self, context: StageContext, spec: TrainingSpec, samples: Sequence[Sample], task: Task) -> None:
        if not samples:
            raise DataError("no training samples: the portion is empty or no sample has a rejected response")
        check_precision(spec.policy.dtype, context.execution)
        self.context, self.spec, self.samples, self.task = context, spec, samples, task
        self.order, self.total, self.end = self._plan(samples)
        self._check_whole_batch()
        full = spec.tuning.name == "full"
        self.checkpoints = Checkpoints(context, full=full)
        self.keeper = Keeper(context, 0 if full else context.execution.snapshot_every, spec.policy.dtype)
        self.start: StartingPolicy | None = None
        self.logged: list[dict[str, Any]] | None = None  # points of the curve, where somebody reads and clears them
        self.engine, self.collator, self.progress = self._start()
        mine = range(context.rank.rank, len(samples), context.rank.world_size)
        task.check(self.collator, (samples[number] for number in mine))
        self.scorer = choose_scorer(
            context, self.engine.deepspeed, self.collator.pad, samples,
            lambda sample: task.examples(self.collator, sample), spec.policy.dtype,
        )  # fmt: skip

    def run(self) -> None:
        """Train to the end, or to where its probes end it, and write the policy."""
        begin, observer = self.begin, observe(self)
        while (until := observer.look(self.progress.step) if observer else self.end) > self.progress.step:
            ready = self.task.ready(self, self.progress.step)
            self._train(range(self.progress.step, min(ready, until)))
        self._write()
        self.keeper.publish(begin, self.progress.step, self.total, observer.result if observer else None)
        if observer:
            observer.publish()
        self.engine.close()
        if self.start:
            self.start.close()

    def save(self) -> None:
        """Write a checkpoint of where the training stands. Collective."""
        self.checkpoints.save(self.engine, self.progress)

    def asked_to_stop(self, together: bool) -> bool:
        """Whether a signal has come to this rank; `together`, to any rank, and then it is collective."""
        asked = int(self.context.stopping())
        return bool(distributed.largest_over_ranks(asked, self.context.rank) if together else asked)

    def interrupt(self, doing: str) -> NoReturn:
        """End between two steps, for a signal that came meanwhile. Collective."""
        step, newest = self.progress.step, self.checkpoints.newest()
        if step > self.begin and (newest is None or newest.name != name_of(step)):  # else it is what it began with
            self.save()
        raise Interrupted(f"stopped by a signal while {doing} after step {step}; finished blocks are kept")

    def _plan(self, samples: Sequence[Sample]) -> tuple[Order, int, int]:
        """Order of the samples, steps of the schedule, and the step that this stage ends after."""
        order = self.task.order(samples, self.spec)
        total = self.spec.optimization.total_steps(order.steps_per_epoch)
        return order, total, total

    @property
    def begin(self) -> int:
        """The step that the schedule had reached before this stage."""
        return 0

    @property
    def hands_over(self) -> bool:
        """Whether another stage goes on with this training."""
        return False

    def _write(self) -> None:
        save_policy(self.context, self.engine, self.collator.processor, self.spec)

    def _train(self, steps: range) -> None:
        """Steps whose samples are all known."""
        self._since = time.perf_counter()
        workers = self.context.execution.feed_workers
        with closing(ahead(map(self._turn, steps), lambda turn: turn.mine, self._encode, workers)) as feed:
            for turn, encoded in feed:
                self._finish_turn(stop=self._step(turn, encoded))
                self._since = time.perf_counter()

    def _finish_turn(self, stop: bool) -> None:
        """Keep the adapter and write a checkpoint when they are due; a resume from the latter finds the former."""
        done = self.progress.step
        if self.keeper.is_due(done) and done < self.end:
            self.keeper.keep(self.engine, done)
        if stop:
            self.save()
            raise Interrupted(f"stopped by a signal; checkpoint written at step {done}")
        if done % self.context.execution.checkpoint_every == 0 and done < self.end:
            self.save()

    def _check_whole_batch(self) -> None:
        """Refuse a loss over the whole global batch where a rank would have to cut its share."""
        execution, batch_size = self.context.execution, self.spec.optimization.batch_size
        share = math.ceil(batch_size / self.context.rank.world_size)
        if not self.task.accumulates and (share > execution.micro_batch or execution.micro_tokens):
            raise ConfigError(
                "stage1.objective.constraint_estimate: current_batch needs gradient accumulation 1, but"
                f" batch_size {batch_size} over {self.context.rank.world_size} rank(s) of micro_batch"
                f" {execution.micro_batch} takes {math.ceil(share / execution.micro_batch)}, or micro_tokens is set;"
                " raise execution.micro_batch and leave out micro_tokens, or use previous_step"
            )

    def _start(self) -> tuple[Engine, Collator, Progress]:
        """Load the policy, with the newest checkpoint's weights where there is one."""
        spec, context = self.spec, self.context
        config = engine_config(spec.optimization, context.execution, spec.policy.dtype)
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
            context.event("resumed", step=progress.step, checkpoint=newest.name)
        return engine, collator, progress

    def _load(self, config: dict[str, Any]) -> Any:
        """The model on its device, what is trained requiring gradients; the policy at the start where it is needed."""
        spec, inputs = self.spec, self.context.inputs
        partitioned = config["zero_optimization"]["stage"] == 3
        with Zero3Loading(config) if partitioned else nullcontext():
            model: Any = load_model(spec.policy, inputs["model"])
        if self.context.execution.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model = model if partitioned else model.to(distributed.device_of(self.context.rank))
        policy = trainable_policy(model, spec.tuning, inputs.get("adapter"), spec.seed)
        if self.task.needs_start:
            self.start = self._starting_policy(policy, config)
        if self.task.reading.values:
            add_value_head(policy)
        return policy

    def _starting_policy(self, policy: Any, config: dict[str, Any]) -> StartingPolicy:
        if self.spec.tuning.name == "lora":
            return StartingAdapter(policy, self.context.inputs.get("adapter"))
        assert "kl" not in self.task.reading.names, "it is read beside a frozen adapter; the schema refuses the rest"
        return StartingCopy(self.context, self.spec.policy, config)

    def _turn(self, step: int) -> _Turn:
        batch = self.order.batch(step)
        mine, weight = rank_share(batch, self.context.rank)
        return _Turn(step, batch, mine, weight)

    def _encode(self, sample: Sample) -> Encoded:
        return self.task.encode(self.collator, sample)

    def _step(self, turn: _Turn, encoded: Sequence[Encoded]) -> bool:
        """One optimizer step on one global batch; True when any rank was asked to stop."""
        distributed.at_step(turn.step + 1)
        rate = self.spec.optimization.learning_rate_at(turn.step, self.total)
        members = [
            Member(sample, found.groups, found.still, turn.weight)
            for sample, found in zip(turn.mine, encoded, strict=True)
        ]
        rank = self.context.rank
        most = math.ceil(len(turn.batch) / rank.world_size)
        parts = in_step(members, most, self.context.execution, self.scorer.tokens, rank)
        sums: Shares = {}
        for number, micro in enumerate(parts):
            self._seed_dropout(turn.step, number)
            self.engine.at_boundary(number == len(parts) - 1)
            for name, share in self._accumulate(micro, turn.batch).items():
                sums[name] = sums[name] + share if name in sums else share
        means = self._global_means(sums, turn.batch)
        norm = self.engine.step(rate)
        stop = means.pop("stop") > 0
        self._finish(means, norm, rate, turn.batch)
        return stop

    def _accumulate(self, micro: Sequence[Member], batch: Sequence[Sample]) -> Shares:
        """Forward and backward of one micro-batch; returns detached shares of what is logged."""
        still = self._scored_still([group for member in micro for group in member.still])
        before = self.start.active if self.start else None
        scores = self.scorer.read(groups_of_all(micro), self.task.reading, before)
        samples, weights = [member.sample for member in micro], [member.weight for member in micro]
        share, logged = self.task.share(Scored(samples, weights, scores, batch, still), self.progress.objective)
        self.engine.backward(share)
        return {"loss": share.detach(), "tokens": scores.lengths.sum().detach(), **logged}

    def _scored_still(self, groups: Sequence[Group]) -> Scores | None:
        import torch

        if not groups:
            return None
        with evaluating(self.engine.model), torch.no_grad():
            return self.scorer.read(groups, LOGPS)

    def _global_means(self, sums: Shares, batch: Sequence[Sample]) -> dict[str, float]:
        """Add shares over ranks, before the weights change; stop when the loss is not finite."""
        import torch

        sums["stop"] = torch.tensor(float(self.context.stopping()), device=self.engine.device)
        values = distributed.sum_over_ranks(torch.stack([value.float() for value in sums.values()]), self.context.rank)
        means = dict(zip(sums, values, strict=True))
        if not math.isfinite(means["loss"]):
            self._stop(f"the loss is {means['loss']}", batch)
        return means

    def _finish(self, means: dict[str, float], norm: float, rate: float, batch: Sequence[Sample]) -> None:
        """Advance the progress and write a point of the curve."""
        if not math.isfinite(norm):
            self._stop(f"the gradient norm is {norm}", batch)
        before = self.progress
        rooted(means)
        state = self.task.finish(means, before.objective)
        self.progress = Progress(before.step + 1, before.samples + len(batch), dict(state))
        seconds = time.perf_counter() - self._since
        done = self.progress.step
        if done % self.context.execution.log_every == 0 or done == self.end:
            tokens = means.pop("tokens") / seconds
            point = {
                "step": done, "total": self.end, "learning_rate": rate, "grad_norm": norm, "tokens_per_second": tokens,
                "seconds": seconds, **means, **{f"state_{key}": value for key, value in state.items()},
            }  # fmt: skip
            self.context.event("step", **point)
            if self.logged is not None:
                self.logged.append(point)

    def _seed_dropout(self, step: int, number: int) -> None:
        """Dropout, where there is any, draws from seed, step, micro-batch and rank: a resume needs no stored state."""
        import torch

        torch.manual_seed(seed_from("dropout", self.spec.seed, step, number, self.context.rank.rank))

    def _stop(self, what: str, batch: Sequence[Sample]) -> None:
        newest = self.checkpoints.newest()
        kept = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        ids = ", ".join(sample.id for sample in batch)
        raise TrainingError(f"step {self.progress.step + 1}: {what}; {kept}; the batch was: {ids}")
