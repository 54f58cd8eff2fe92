"""Rounds of Stage 2: one training cut into stages, so that rejected responses can be made anew in between.

    stage2[k] -> negatives[k+1] -> reference[k+1] -> stage2[k+1]

Learning rate, Adam moments, the objective's state and the order of the samples go on from round to round; round k of K
takes the steps from `k total / K` to `(k+1) total / K`. A round that is not the last writes beside its policy what the
next one goes on from, in the format of a checkpoint (`trainer/`): 12 bytes for each parameter of an adapter; with full
training what DeepSpeed writes, 14 bytes for each parameter in bf16 and 16 in float32, which pins the number of ranks.

How many steps there are in all is settled by the samples of round 0. A later round may have a rejected response for
other records: of the pass over the data that it begins in, it takes those of its samples that the pass has not had,
then whole passes over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError
from cwdpo.data.samples import DataOrder, Sample
from cwdpo.train.checkpoint import HANDED_OVER
from cwdpo.train.config import Round, Stage2Spec, TrainingSpec
from cwdpo.train.export import save_policy
from cwdpo.train.loop import Trainer
from cwdpo.train.task import Task


@dataclass(frozen=True)
class Course:
    """Where a training of several rounds stands, apart from weights and optimizer.

    Attributes:
        total: optimizer steps of all rounds together; 0 before the first round.
        step: steps done.
        epoch: pass over the data that the next step belongs to, counted from 0.
        taken: what that pass has had: ids of samples, or of images where one sample of each is drawn.
    """

    total: int = 0
    step: int = 0
    epoch: int = 0
    taken: Sequence[str] = ()


class RoundOrder(DataOrder):
    """A `DataOrder` that goes on from the middle of a training; with the same samples it is that of one training.

    Args:
        begun: where the round before it ended.
    """

    def __init__(self, samples: Sequence[Sample], spec: TrainingSpec, begun: Course) -> None:
        super().__init__(samples, spec.optimization.batch_size, spec.seed, spec.one_per_image)
        self.begun = begun
        self._key = attrgetter("image_id" if spec.one_per_image else "id")
        taken = set(begun.taken)
        numbers = self._epoch(begun.epoch)
        self._rest = [number for number in numbers if not taken or self._key(samples[number]) not in taken]

    def batch(self, step: int) -> list[Sample]:
        """Samples of optimizer step `step` of all rounds (0-based)."""
        epoch, index = self._place(step)
        size = self._batch_size
        return [self._samples[number] for number in self._numbers(epoch)[index * size : (index + 1) * size]]

    def course(self, step: int, total: int) -> Course:
        """Where the training stands after `step` of `total` steps."""
        epoch, index = self._place(step)
        own = (self._key(self._samples[number]) for number in self._numbers(epoch)[: index * self._batch_size])
        before = self.begun.taken if epoch == self.begun.epoch else ()
        return Course(total, step, epoch, [*before, *own])

    def _numbers(self, epoch: int) -> Sequence[int]:
        return self._rest if epoch == self.begun.epoch else self._epoch(epoch)

    def _place(self, step: int) -> tuple[int, int]:
        """Pass over the data, and number of the batch in this round's share of it."""
        since = step - self.begun.step
        left = math.ceil(len(self._rest) / self._batch_size)  # batches of the pass that the round began in
        if since < left:
            return self.begun.epoch, since
        epoch, index = divmod(since - left, self.steps_per_epoch)
        return self.begun.epoch + 1 + epoch, index


class RoundTrainer(Trainer):
    """Trains one round.

    Raises:
        ConfigError: there are fewer steps than rounds.
    """

    def __init__(
        self, context: StageContext, spec: Stage2Spec, samples: Sequence[Sample], task: Task, part: Round
    ) -> None:
        self._round = part
        super().__init__(context, spec, samples, task)

    def _plan(self, samples: Sequence[Sample]) -> tuple[RoundOrder, int, int]:
        self._order = RoundOrder(samples, self.spec, _begun(self.context.inputs.get("previous")))
        total = self._order.begun.total or self.spec.optimization.total_steps(self._order.steps_per_epoch)
        if total < self._round.of:
            raise ConfigError(
                f"stage2.refresh.rounds: {self._round.of} rounds need as many optimizer steps, but the"
                f" {len(samples)} samples of round 0 make {total}; take fewer rounds or more epochs"
            )
        return self._order, total, self._round.end(total)

    @property
    def begin(self) -> int:
        """Where the round before this one ended."""
        return self._order.begun.step

    @property
    def hands_over(self) -> bool:
        """All rounds do but the last one."""
        return not self._round.is_last

    def _write(self) -> None:
        save_policy(self.context, self.engine, self.collator.processor, self.spec)
        if self.hands_over:
            self.checkpoints.hand_over(self.engine, self.progress, asdict(self._order.course(self.end, self.total)))


def _begun(previous: Path | None) -> Course:
    """Where the round before this one ended."""
    return Course(**files.read_json(previous / HANDED_OVER / "state.json")["course"]) if previous else Course()
