"""On-policy training: a phase of sampling, then steps over what was sampled, in turn.

A phase takes some prompts, samples responses to each with the policy as it is, and goes over them `inner_epochs` times
in batches of `batch_size` prompts. Everything but the steps themselves is in files (`rollouts.py`), so that a phase that
was begun is finished as it began, by any number of ranks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cwdpo.base.context import StageContext
from cwdpo.base.identity import seed_from
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import DataOrder, Sample
from cwdpo.objectives.online import Actions, Experience, Online
from cwdpo.train.config import Rollouts, Stage2Spec, TrainingSpec
from cwdpo.train.rollouts import Maker, Row
from cwdpo.train.task import Encoded, Scored, Shares, Task
from cwdpo.train.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.train.loop import Trainer


@dataclass(frozen=True)
class Phase:
    """Some prompts, and the steps that learn from the responses to them.

    Attributes:
        number: 0-based, over all epochs.
        start, end: its steps are start .. end - 1.
    """

    number: int
    start: int
    end: int
    prompts: Sequence[Sample]


class PhaseOrder:
    """Which prompts make up the global batch of each step: a function of the seed alone."""

    def __init__(self, samples: Sequence[Sample], spec: TrainingSpec, prompts: int, inner_epochs: int) -> None:
        self._batch_size, self._seed, self._inner_epochs = spec.optimization.batch_size, spec.seed, inner_epochs
        self._prompts = DataOrder(samples, prompts, spec.seed, spec.one_per_image)
        self._steps = self._steps_over(min(prompts, len(samples)))
        self._taken = lru_cache(maxsize=2)(self._prompts.batch)
        whole = self._prompts.steps_per_epoch - 1  # phases of an epoch but the last, which may have fewer prompts
        self.steps_per_epoch = whole * self._steps + self._steps_over(len(self._taken(whole)))

    def phase(self, step: int) -> Phase:
        """The phase of optimizer step `step` (0-based)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        within = place // self._steps
        number = epoch * self._prompts.steps_per_epoch + within
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


class Learned:
    """What a phase sampled and what it teaches, as tables on the host.

    Args:
        rows: of `rollouts.py`, one per prompt.
        compares: the steps compare the policy with the one that sampled, which only the first step of all is.
    """

    def __init__(self, objective: Online, rows: Sequence[Row], compares: bool) -> None:
        samples = [sample for row in rows for sample in row["samples"]]
        self.tokens = {row["id"]: [sample["tokens"] for sample in row["samples"]] for row in rows}
        self._first = {row["id"]: number * objective.samples for number, row in enumerate(rows)}
        self._samples = objective.samples
        experience = _experience(samples)
        targets = objective.targets(experience)
        self._tables = {
            "advantages": targets.advantages,
            "old": experience.old if compares else None,
            "reference": experience.reference,
            "old_values": experience.values,
            "returns": targets.returns,
        }
        self.measures = {**_about(samples, experience), **targets.measures}

    def of(self, samples: Sequence[Sample], width: int, device: Tensor) -> dict[str, Tensor]:
        """Tables of the responses to some prompts, (R, `width`), where `device` is; those that there are."""
        rows = [self._first[sample.id] + place for sample in samples for place in range(self._samples)]
        return {
            name: table[rows, :width].to(device)
            for name, table in self._tables.items()
            if table is not None
        }


class OnlineTask(Task):
    """Samples responses and hands them to the objective.

    Args:
        rollouts: how they are sampled.

    Raises:
        NotAvailable: the reward needs what is not on this machine.
    """

    def __init__(self, context: StageContext, spec: Stage2Spec, objective: Online, rollouts: Rollouts) -> None:
        self.objective, self.rollouts = objective, rollouts
        self.reading = objective.reads
        self.needs_start = objective.kl > 0
        self._judge = rollouts.reward.judge(context.inputs)
        self._maker: Maker | None = None

    def order(self, samples: Sequence[Sample], spec: TrainingSpec) -> PhaseOrder:
        """Phases of prompts."""
        prompts = self.rollouts.prompts or spec.optimization.batch_size
        self._order = PhaseOrder(samples, spec, prompts, self.objective.inner_epochs)
        return self._order

    def ready(self, trainer: Trainer, step: int) -> int:
        """Sample what the phase of `step` learns from, unless it lies on disk; returns the phase's end."""
        phase = self._order.phase(step)
        self._maker = self._maker or Maker(trainer, self.objective, self.rollouts, self._judge)
        compares = phase.end - phase.start > 1
        saved = trainer.checkpoints.steps()
        self._maker.drop_before(self._order.phase(min(saved, default=0)).number)
        rows = self._maker.rows(phase.number, phase.prompts, compares, begun=step > phase.start)
        self._learned = Learned(self.objective, rows, compares)
        return phase.end

    def encode(self, collator: Collator, sample: Sample) -> Encoded:
        """The responses sampled for a prompt, token by token as they were generated."""
        return Encoded([collator.group_of_ids(sample, self._learned.tokens[sample.id])])

    def example(self, collator: Collator, sample: Sample) -> Group:
        """Two different responses share the prompt, where several will."""
        backwards = " ".join(reversed(sample.chosen.split()))
        return collator.group(sample, [sample.chosen, backwards][: self.objective.samples])

    def share(self, scored: Scored, state: Mapping[str, float]) -> tuple[Tensor, Shares]:
        """Share of the loss, and of the means over tokens of what it is judged by."""
        logps, device = scored.scores.tokens["logp"], scored.scores.lengths
        tables = self._learned.of(scored.samples, logps.shape[1], logps)
        mask = (_places(logps) < device[:, None]).to(logps.dtype)
        actions = Actions(
            logps, mask=mask, values=scored.scores.tokens.get("value"), **{"old": logps.detach(), **tables}
        )
        weights = sent([weight for weight in scored.weights for _ in range(self.objective.samples)], logps.device)
        lengths = [len(tokens) for sample in scored.batch for tokens in self._learned.tokens[sample.id]]
        found = self.objective.token_losses(actions)
        share = (found.losses * self.objective.token_shares(mask, weights, len(lengths), sum(lengths))).sum()
        measures = {**found.measures, "entropy": scored.scores.tokens["entropy"]}
        every = mask * weights[:, None] / sum(lengths)
        return share, {name: (values * every).sum() for name, values in measures.items()}

    def finish(self, means: dict[str, float], state: Mapping[str, float]) -> Mapping[str, float]:
        """Add what is known of the whole phase."""
        means |= self._learned.measures
        return state


def _experience(samples: Sequence[Mapping[str, object]]) -> Experience:
    """Tables of all responses, in float64, so that sums over a phase do not round."""
    import torch

    lengths = torch.tensor([len(sample["tokens"]) for sample in samples])
    longest = int(lengths.max())

    def table(key: str) -> Tensor | None:
        if key not in samples[0]:
            return None
        rows = [torch.tensor(sample[key], dtype=torch.float64) for sample in samples]
        return torch.stack([torch.nn.functional.pad(row, (0, longest - len(row))) for row in rows])

    return Experience(
        rewards=torch.tensor([sample["reward"] for sample in samples], dtype=torch.float64),
        mask=(torch.arange(longest) < lengths[:, None]).double(),
        old=table("logps"),
        reference=table("reference"),
        values=table("values"),
    )
