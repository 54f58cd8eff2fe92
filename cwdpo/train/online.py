"""On-policy training: a phase of sampling, then steps over what was sampled, in turn.

A phase takes some prompts, samples responses to each with the policy as it is, and goes over them `inner_epochs` times
in batches of `batch_size` prompts. What was sampled lies in files (`rollouts.py`), so that a phase that was begun is
finished as it began.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from cwdpo.base.context import StageContext
from cwdpo.base.identity import seed_from
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import DataOrder, Sample
from cwdpo.objectives.online import Actions, Online
from cwdpo.train.checkpoint import Checkpoints
from cwdpo.train.config import Rollouts, TrainingSpec
from cwdpo.train.rollouts import Maker, Phase, Row, about, experience_of
from cwdpo.train.task import Encoded, Scored, Shares, Task
from cwdpo.train.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.train.loop import Trainer


class PhaseOrder:
    """Which prompts make up the global batch of each step: a function of the seed alone."""

    def __init__(self, samples: Sequence[Sample], spec: TrainingSpec, prompts: int, inner_epochs: int) -> None:
        self._batch_size, self._seed, self._inner_epochs = spec.optimization.batch_size, spec.seed, inner_epochs
        self._prompts = DataOrder(samples, prompts, spec.seed, spec.one_per_image)
        self._steps = self._steps_over(prompts)  # of every phase but the last of an epoch
        self._taken = lru_cache(maxsize=2)(self._prompts.batch)
        whole = self._prompts.steps_per_epoch - 1
        self.steps_per_epoch = whole * self._steps + self._steps_over(len(self._taken(whole)))

    def number(self, step: int) -> int:
        """Number of the phase of optimizer step `step` (0-based)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return epoch * self._prompts.steps_per_epoch + place // self._steps

    def phase(self, step: int) -> Phase:
        """The phase of optimizer step `step`."""
        number = self.number(step)
        epoch, within = divmod(number, self._prompts.steps_per_epoch)
        start = epoch * self.steps_per_epoch + within * self._steps
        prompts = self._taken(number)
        return Phase(number, start, start + self._steps_over(len(prompts)), prompts)

    def batch(self, step: int) -> list[Sample]:
        """Prompts of optimizer step `step`: each inner epoch has an order of its own."""
        phase = self.phase(step)
        inner, place = divmod(step - phase.start, self._batches(len(phase.prompts)))
        order = list(phase.prompts)
        random.Random(seed_from("inner", self._seed, phase.number, inner)).shuffle(order)
        return order[place * self._batch_size : (place + 1) * self._batch_size]

    def _steps_over(self, prompts: int) -> int:
        return self._inner_epochs * self._batches(prompts)

    def _batches(self, prompts: int) -> int:
        return math.ceil(prompts / self._batch_size)


class Lesson:
    """What a phase sampled and what it teaches, as tables on the host.

    Args:
        rows: of `rollouts.py`, one per prompt.
        compares: the policy changes within the phase, so that its steps compare it with the one that sampled.
    """

    def __init__(self, objective: Online, rows: Sequence[Row], compares: bool) -> None:
        self.tokens = {row["id"]: [sample["tokens"] for sample in row["samples"]] for row in rows}
        self._first = {row["id"]: number * objective.samples for number, row in enumerate(rows)}
        self._samples = objective.samples
        experience = experience_of(rows)
        targets = objective.targets(experience)
        tables = {
            "advantages": targets.advantages,
            "old": experience.old if compares else None,
            "reference": experience.reference,
            "old_values": experience.values,
            "returns": targets.returns,
        }
        self._tables = {name: table.float() for name, table in tables.items() if table is not None}
        self.measures = {**about(rows), **targets.measures}

    def of(self, samples: Sequence[Sample], logps: Tensor) -> dict[str, Tensor]:
        """Tables of the responses to some prompts, of the shape and on the device of `logps`. Shapes (R, L)."""
        rows = [self._first[sample.id] + place for sample in samples for place in range(self._samples)]
        return {name: table[rows, : logps.shape[1]].to(logps.device) for name, table in self._tables.items()}

    def lengths(self, samples: Sequence[Sample]) -> list[int]:
        """Tokens of each response to some prompts."""
        return [len(tokens) for sample in samples for tokens in self.tokens[sample.id]]


class OnlineTask(Task):
    """Samples responses and hands them to the objective.

    Args:
        rollouts: how they are sampled.

    Raises:
        NotAvailable: the reward needs what is not on this machine.
    """

    def __init__(self, context: StageContext, objective: Online, rollouts: Rollouts) -> None:
        self.objective, self.rollouts = objective, rollouts
        self.reading = objective.reads
        self.needs_start = objective.kl > 0
        self._judge = rollouts.reward.judge(context.inputs)
        self._maker: Maker | None = None
        self._sampling: dict[str, float] = {}

    def order(self, samples: Sequence[Sample], spec: TrainingSpec) -> PhaseOrder:
        """Phases of prompts."""
        prompts = self.rollouts.prompts or spec.optimization.batch_size
        self._order = PhaseOrder(samples, spec, prompts, self.objective.inner_epochs)
        return self._order

    def ready(self, trainer: Trainer, step: int) -> int:
        """Sample what the phase of `step` learns from, unless it lies on disk; returns the phase's end."""
        phase = self._order.phase(step)
        self._maker = self._maker or Maker(trainer, self.objective, self.rollouts, self._judge)
        self._maker.drop_before(self._order.number(_oldest(trainer.checkpoints)))
        self._lesson = Lesson(self.objective, self._maker.rows(phase), phase.compares)
        self._sampling = {"sampling_seconds": self._maker.seconds / (phase.end - phase.start)}
        return phase.end

    def check(self, collator: Collator, samples: Iterable[Sample]) -> None:
        """Every prompt must leave room for the longest response that may be sampled."""
        collator.check_prompts(samples, self.rollouts.decoding.max_new_tokens)

    def encode(self, collator: Collator, sample: Sample) -> Encoded:
        """The responses sampled for a prompt, token by token as they were generated."""
        return Encoded([collator.group_of_ids(sample, self._lesson.tokens[sample.id])])

    def examples(self, collator: Collator, sample: Sample) -> Sequence[Group]:
        """Two different responses share the prompt, where several will."""
        backwards = " ".join(reversed(sample.chosen.split()))
        return [collator.group(sample, [sample.chosen, backwards][: self.objective.samples])]

    def share(self, scored: Scored, state: Mapping[str, float]) -> tuple[Tensor, Shares]:
        """Share of the loss, and of the means over tokens of what it is judged by."""
        actions = self._actions(scored)
        lengths = self._lesson.lengths(scored.batch)
        repeated = [weight for weight in scored.weights for _ in range(self.objective.samples)]
        weights = sent(repeated, actions.logps.device)
        found = self.objective.token_losses(actions)
        shares = self.objective.token_shares(actions.mask, weights, len(lengths), sum(lengths))
        measures = {**found.measures, "entropy": scored.scores.tokens["entropy"]}
        every = actions.mask * weights[:, None] / sum(lengths)
        return (found.losses * shares).sum(), {name: (values * every).sum() for name, values in measures.items()}

    def _actions(self, scored: Scored) -> Actions:
        """The micro-batch beside what its phase knows of it."""
        import torch

        read, lengths = scored.scores.tokens, scored.scores.lengths
        logps = read["logp"]
        mask = (torch.arange(logps.shape[1], device=logps.device) < lengths[:, None]).to(logps.dtype)
        # In the only step of a phase the policy is the one that sampled: the ratio is 1 to the last bit.
        known = {"old": logps.detach(), **self._lesson.of(scored.samples, logps)}
        return Actions(logps, mask=mask, values=read.get("value"), **known)

    def finish(self, means: dict[str, float], state: Mapping[str, float]) -> Mapping[str, float]:
        """Add what is known of the whole phase."""
        means |= self._lesson.measures | self._sampling
        return state


def _oldest(checkpoints: Checkpoints) -> int:
    """The step that the oldest checkpoint is of, which training may have to go back to."""
    return min((int(path.name.removeprefix("step-")) for path in checkpoints.folder.glob("step-*")), default=0)
