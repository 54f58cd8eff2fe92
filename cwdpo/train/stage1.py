"""Stage 1: supervised training on chosen responses, and on rejected ones where the objective wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.base.runtime import Rank
from cwdpo.data.samples import Sample, load_samples
from cwdpo.objectives.responses import Responses, Supervised
from cwdpo.train.config import Stage1Spec
from cwdpo.train.loop import Scored, Shares, Trainer
from cwdpo.train.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor


def run(context: StageContext) -> None:
    """Train on the Stage-1 portion; writes a PEFT folder or a model folder."""
    spec: Stage1Spec = context.spec
    samples = load_samples(context.inputs["pairs"], context.inputs.get("negatives"), "stage1")
    Trainer(context, spec, samples, SupervisedTask(spec.objective, context.rank)).run()


class SupervisedTask:
    """Scores chosen (and rejected) responses and hands them to the objective."""

    def __init__(self, objective: Supervised, rank: Rank) -> None:
        self.objective = objective
        self.rank = rank
        self.accumulates = not objective.needs_batch_mean

    def responses(self, sample: Sample) -> list[str]:
        """The chosen response, then the rejected ones if the objective uses them."""
        return [sample.chosen, *(sample.rejected if self.objective.uses_rejected else ())]

    def initial_state(self) -> Mapping[str, float]:
        """The objective's."""
        return self.objective.initial_state()

    def share(self, scored: Scored, state: Mapping[str, float]) -> tuple[Tensor, Shares]:
        """Share of the objective, and of the mean NLL of both kinds of response (nats per token)."""
        chosen, rejected = self._split(scored)
        logged = {"nll_chosen": chosen.nll_share(per_token=True).detach()}
        if rejected.total:
            logged["nll_rejected"] = rejected.nll_share(self.objective.per_token).detach()
        if self.objective.needs_batch_mean and rejected.total:
            (mean,) = distributed.sum_over_ranks(logged["nll_rejected"].reshape(1), self.rank)
            state = self.objective.next_state(state, mean)
        return self.objective.share(chosen, rejected, state), logged

    def finish(self, means: dict[str, float], state: Mapping[str, float]) -> Mapping[str, float]:
        """Update the objective's state by the step's exact global mean, and add the true penalty to the loss."""
        if "nll_rejected" not in means:
            return state
        mean = means["nll_rejected"]
        means["penalty"] = self.objective.penalty(mean)
        means["penalty_active"] = float(means["penalty"] > 0)
        return dict(self.objective.next_state(state, mean))

    def _split(self, scored: Scored) -> tuple[Responses, Responses]:
        """Rows of chosen and of rejected responses, with their totals over the global batch."""
        counts = [len(self.responses(sample)) for sample in scored.samples]
        every = [weight for weight, count in zip(scored.weights, counts, strict=True) for _ in range(count)]
        weights = sent(every, scored.logps.device)
        first = list(accumulate(counts[:-1], initial=0))
        rest = sorted(set(range(len(every))) - set(first))
        responses = Responses(scored.logps, scored.lengths, weights, total=len(scored.batch))
        rejected_total = sum(len(self.responses(sample)) - 1 for sample in scored.batch)
        return _select(responses, first), replace(_select(responses, rest), total=rejected_total)


def _select(responses: Responses, rows: list[int]) -> Responses:
    """By number, not by mask: a GPU would have to be asked how many a mask selects."""
    index = sent(rows, responses.logps.device).long()
    return replace(
        responses,
        logps=responses.logps[index],
        lengths=responses.lengths[index],
        weights=responses.weights[index],
    )
