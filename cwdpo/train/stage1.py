"""Stage 1: supervised training on chosen responses, and on what the objective wants beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.base.runtime import Rank
from cwdpo.data.encoding import Collator
from cwdpo.data.samples import Sample, load_samples
from cwdpo.objectives.reading import Reading
from cwdpo.objectives.supervised import Responses, Supervised
from cwdpo.train.config import Stage1Spec
from cwdpo.train.loop import Trainer
from cwdpo.train.task import Encoded, Scored, Shares, Task, gradient_shares
from cwdpo.train.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor


def run(context: StageContext) -> None:
    """Train on the Stage-1 portion; writes a PEFT folder or a model folder."""
    spec: Stage1Spec = context.spec
    samples = load_samples(context.inputs["pairs"], context.inputs.get("negatives"), spec.portion)
    Trainer(context, spec, samples, SupervisedTask(spec.objective, context.rank)).run()


class SupervisedTask(Task):
    """Scores chosen responses, and what the objective wants beside them, and hands them to the objective."""

    def __init__(self, objective: Supervised, rank: Rank) -> None:
        self.objective = objective
        self.rank = rank
        self.accumulates = not objective.needs_batch_mean
        self.reading = _looked_at(objective)
        self.needs_start = "kl" in self.reading.names
        self.kinds = {objective.beside} if objective.beside else ()

    def encode(self, collator: Collator, sample: Sample) -> Encoded:
        """The chosen response with its rejected or revised ones; dialogues are conversations of their own."""
        if self.objective.beside == "dialogue":
            chosen = collator.group(sample, [sample.chosen])
            return Encoded([chosen, *(collator.dialogue(sample, turns) for turns in sample.dialogues)])
        beside = {"rejected": sample.rejected, "revised": sample.revised}.get(self.objective.beside or "", ())
        return Encoded([collator.group(sample, [sample.chosen, *beside])])

    def initial_state(self) -> Mapping[str, float]:
        """The objective's."""
        return self.objective.initial_state()

    def share(self, scored: Scored, state: Mapping[str, float]) -> tuple[Tensor, Shares]:
        """Share of the objective, and of the mean NLL of both kinds of response (as `reduction` has it)."""
        kinds = self._kinds(scored)
        chosen, beside = (kind for kind, _ in kinds.values())
        logged = {"nll_chosen": chosen.nll_share(self.objective.per_token).detach()}
        if beside.total:
            logged[self._beside_nll] = beside.nll_share(self.objective.per_token).detach()
            if self.objective.needs_batch_mean:
                (mean,) = distributed.sum_over_ranks(logged[self._beside_nll].reshape(1), self.rank)
                state = self.objective.next_state(state, mean)
        share = self.objective.share(chosen, beside, state)
        if "residual" in self.reading.names:
            rows = {name: index for name, (_, index) in kinds.items()}
            logged |= gradient_shares(share, scored.scores, rows)
        return share, logged | self._means({name: kind for name, (kind, _) in kinds.items()})

    def finish(self, means: dict[str, float], state: Mapping[str, float]) -> Mapping[str, float]:
        """Update the objective's state by the step's exact global mean, and add the true penalty to the means."""
        if self._beside_nll not in means:
            return state
        mean = means[self._beside_nll]
        penalty = self.objective.penalty(mean, state)
        if penalty is not None:
            means["penalty"] = penalty
            means["penalty_active"] = float(penalty > 0)
        return dict(self.objective.next_state(state, mean))

    @property
    def _beside_nll(self) -> str:
        return f"nll_{self.objective.beside}"

    def _means(self, kinds: Mapping[str, Responses]) -> Shares:
        """Shares of the means of what is read beside log-probabilities, such as `entropy_rejected`."""
        return {
            f"{name}_{kind}": responses.mean_share(name, self.objective.per_token).detach()
            for name in self.reading.names
            for kind, responses in kinds.items()
            if responses.total and name not in ("logp", "residual")
        }

    def _kinds(self, scored: Scored) -> dict[str, tuple[Responses, Tensor]]:
        """The chosen responses and what is scored beside them, with totals over the global batch, and their rows."""
        counts = [1 + self._count(sample) for sample in scored.samples]
        every = [weight for weight, count in zip(scored.weights, counts, strict=True) for _ in range(count)]
        device = scored.scores.lengths.device
        first = list(accumulate(counts[:-1], initial=0))
        rest = sorted(set(range(len(every))) - set(first))
        responses = Responses(scored.scores.sums, scored.scores.lengths, sent(every, device), total=0)
        totals = (len(scored.batch), sum(map(self._count, scored.batch)))
        names = ("chosen", self.objective.beside or "beside")
        # By number, not by mask: a GPU would have to be asked how many a mask selects.
        rows = [sent(numbers, device).long() for numbers in (first, rest)]
        selected = [_select(replace(responses, total=total), index) for total, index in zip(totals, rows, strict=True)]
        return dict(zip(names, zip(selected, rows, strict=True), strict=True))

    def _count(self, sample: Sample) -> int:
        """How many responses of a sample are scored beside the chosen one."""
        return len(_beside(sample, self.objective))


def _looked_at(objective: Supervised) -> Reading:
    """What the objective reads, and what tells how hard each kind of response pulls where log-probabilities are all."""
    reading = objective.reading
    return Reading(reading.trained, ("residual",)) if objective.beside and reading.trained == ("logp",) else reading


def _beside(sample: Sample, objective: Supervised) -> Sequence[object]:
    """What is scored beside the chosen response: texts, or dialogues."""
    found = {"rejected": sample.rejected, "revised": sample.revised, "dialogue": sample.dialogues}
    return found[objective.beside] if objective.beside else ()


def _select(responses: Responses, rows: Tensor) -> Responses:
    """The responses of some rows."""
    return replace(
        responses,
        sums={name: values.index_select(0, rows) for name, values in responses.sums.items()},
        lengths=responses.lengths.index_select(0, rows),
        weights=responses.weights.index_select(0, rows),
    )
