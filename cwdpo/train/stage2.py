"""Stage 2: preference training against cached reference log-probabilities, or what stands in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cwdpo.base.context import StageContext
from cwdpo.data.encoding import Collator
from cwdpo.data.samples import Sample, Samples, load_samples
from cwdpo.objectives.online import Online
from cwdpo.objectives.preference import Pairs, Preference, Term
from cwdpo.objectives.reading import Reading
from cwdpo.objectives.supervised import Supervised
from cwdpo.train.config import Stage2Spec
from cwdpo.train.loop import Trainer
from cwdpo.train.online import OnlineTask
from cwdpo.train.reference import ReferenceLogps, load_reference
from cwdpo.train.rounds import RoundTrainer
from cwdpo.train.stage1 import SupervisedTask
from cwdpo.train.task import Encoded, Scored, Shares, Task, gradient_shares
from cwdpo.train.terms import groups_of, rows_of
from cwdpo.train.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-4
"""Nats by which policy and reference differ before the first step, in float32."""

BINS = 10
"""Of a histogram over [0, 1]."""


def run(context: StageContext) -> None:
    """Train on the Stage-2 portion; writes a PEFT or model folder, and beside it what a next round goes on from."""
    spec: Stage2Spec = context.spec
    samples, task = _begun(context, spec)
    if spec.round:
        RoundTrainer(context, spec, samples, task, spec.round).run()
    else:
        Trainer(context, spec, samples, task).run()


def _begun(context: StageContext, spec: Stage2Spec) -> tuple[Samples, Task]:
    """What is trained on, and how it enters the loss."""
    pairs, negatives = context.inputs["pairs"], context.inputs.get("negatives")
    if isinstance(spec.objective, Supervised):
        return load_samples(pairs, negatives, "stage2"), SupervisedTask(spec.objective, context.rank)
    if isinstance(spec.objective, Online):
        assert spec.rollouts is not None, "the experiment's schema fills them in"
        return load_samples(pairs, None, "stage2"), OnlineTask(context, spec.objective, spec.rollouts)
    # Samples that have no rejected response are left out.
    samples = load_samples(pairs, negatives, "stage2", paired=True)
    context.event("samples", used=len(samples), without_rejected=samples.left_out)
    reference = load_reference(context.inputs["reference"], samples, spec.objective.terms)
    return samples, PreferenceTask(spec.objective, reference)


class PreferenceTask(Task):
    """Pairs the chosen response of a sample with each of its rejected ones."""

    reading = Reading(observed=("residual",))

    def __init__(self, objective: Preference, reference: Mapping[str, ReferenceLogps]) -> None:
        self.objective = objective
        self.kinds = {"rejected", *objective.requires}
        self.reference = reference

    def encode(self, collator: Collator, sample: Sample) -> Encoded:
        """The terms of the objective, one group for each view of the image."""
        masked = self.objective.masked_share
        trained = groups_of(collator, sample, self.objective.terms, masked)
        return Encoded(trained, groups_of(collator, sample, self.objective.still_terms, masked))

    def share(self, scored: Scored, state: Mapping[str, float]) -> tuple[Tensor, Shares]:
        """Share of the mean over samples of the mean over their pairs, and of what the pairs are judged by."""
        rows = self._rows(scored, self.objective.terms)
        pairs, weights = self._pairs(scored, rows), self._weights(scored)
        result = self.objective.pair_losses(pairs)
        measures = {
            "margin": pairs.delta_chosen - pairs.delta_rejected,
            "accuracy": _wins(pairs.delta_chosen - pairs.delta_rejected),
            "delta_chosen": pairs.delta_chosen,
            "delta_rejected": pairs.delta_rejected,
            "mean_logp_rejected": pairs.policy["rejected"] / pairs.lengths["rejected"],
            **result.measures,
            **_in_bins(result.histograms),
        }
        logged = {name: (values.detach() * weights).sum() for name, values in measures.items()}
        share = (result.losses * self._importance(scored) * weights).sum()
        return share, logged | gradient_shares(share, scored.scores, self._roles(scored))

    def _pairs(self, scored: Scored, rows: Mapping[Term, Tensor]) -> Pairs:
        """All pairs of the micro-batch. Shapes (P,)."""
        policy = {term: scored.scores.logps.index_select(0, index) for term, index in rows.items()}
        lengths = {term: scored.scores.lengths.index_select(0, index) for term, index in rows.items()}
        if scored.still is not None:
            for term, index in self._rows(scored, self.objective.still_terms).items():
                policy[term] = scored.still.logps.index_select(0, index)
                lengths[term] = scored.still.lengths.index_select(0, index)
        device = scored.scores.lengths.device
        entries = [(self.reference[sample.id], len(sample.rejected)) for sample in scored.samples]
        reference = {term: [value for entry, pairs in entries for value in entry.of(term, pairs)] for term in rows}
        return Pairs(policy, {term: sent(values, device) for term, values in reference.items()}, lengths)

    def _rows(self, scored: Scored, terms: Sequence[Term]) -> dict[Term, Tensor]:
        """Which response is each term's of each pair. Shapes (P,)."""
        device = scored.scores.lengths.device
        return {term: sent(rows, device).long() for term, rows in rows_of(scored.samples, terms).items()}

    def _roles(self, scored: Scored) -> dict[str, Tensor]:
        """Which responses are whose, each once, under the whole image."""
        rows = rows_of(scored.samples, self.objective.terms)
        device = scored.scores.lengths.device
        return {term: sent(sorted(set(own)), device).long() for term, own in rows.items() if "|" not in term}

    def _weights(self, scored: Scored) -> Tensor:
        """Of each pair in the global mean over samples of the mean over their pairs. Shape (P,)."""
        shares = [
            weight / (len(sample.rejected) * len(scored.batch))
            for sample, weight in zip(scored.samples, scored.weights, strict=True)
            for _ in sample.rejected
        ]
        return sent(shares, scored.scores.lengths.device)

    def _importance(self, scored: Scored) -> Tensor:
        """What the objective makes of the scored sentences of each rejected response. Shape (P,)."""
        weights = [
            self.objective.pair_weight([(sentence.score, sentence.image_error) for sentence in sentences])
            for sample in scored.samples
            for sentences in sample.scores or [()] * len(sample.rejected)
        ]
        return sent(weights, scored.scores.lengths.device)


def _wins(margins: Tensor) -> Tensor:
    """1 where a margin is positive, 0 where it is negative, 1/2 where it is nothing but rounding. Shape (P,)."""
    return 0.5 * (1 + margins.sign() * (margins.abs() > ROUNDING).to(margins.dtype))


def _in_bins(histograms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`w_c` -> `w_c_from_0.0`, ...: 1 for values in that tenth of [0, 1]. Shapes (P,)."""
    bins: dict[str, Tensor] = {}
    for name, values in histograms.items():
        places = (values * BINS).floor().clamp(0, BINS - 1)
        bins |= {f"{name}_from_{place / BINS:.1f}": (places == place).to(values.dtype) for place in range(BINS)}
    return bins
