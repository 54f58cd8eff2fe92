"""Stage 2: preference training against cached reference log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cwdpo.base.context import StageContext
from cwdpo.data.samples import Sample, load_samples
from cwdpo.objectives.responses import Pairs
from cwdpo.train.config import Stage2Spec
from cwdpo.train.loop import Scored, Shares, Trainer
from cwdpo.train.reference import ReferenceLogps, load_reference
from cwdpo.train.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor


def run(context: StageContext) -> None:
    """Train on the Stage-2 portion, without samples that have no rejected response; writes a PEFT or model folder."""
    spec: Stage2Spec = context.spec
    samples = load_samples(context.inputs["pairs"], context.inputs["negatives"], "stage2", paired=True)
    reference = load_reference(context.inputs["reference"], samples)
    context.event("samples", used=len(samples), without_rejected=samples.left_out)
    Trainer(context, spec, samples, PreferenceTask(spec.objective, reference)).run()


class PreferenceTask:
    """Pairs the chosen response of a sample with each of its rejected ones."""

    accumulates = True

    def __init__(self, objective: Any, reference: Mapping[str, ReferenceLogps]) -> None:
        self.objective = objective
        self.reference = reference

    def responses(self, sample: Sample) -> list[str]:
        """The chosen response, then the rejected ones."""
        return [sample.chosen, *sample.rejected]

    def initial_state(self) -> Mapping[str, float]:
        """Nothing is carried."""
        return {}

    def share(self, scored: Scored, state: Mapping[str, float]) -> tuple[Tensor, Shares]:
        """Share of the mean over samples of the mean over their pairs, and of what the pairs are judged by."""
        pairs, weights = self._pairs(scored)
        result = self.objective.pair_losses(pairs)
        measures = {
            "margin": pairs.delta_chosen - pairs.delta_rejected,
            "accuracy": (pairs.delta_chosen > pairs.delta_rejected).float(),
            "delta_chosen": pairs.delta_chosen,
            "delta_rejected": pairs.delta_rejected,
            "mean_logp_rejected": pairs.policy_rejected / pairs.rejected_lengths,
            **result.measures,
        }
        logged = {name: (values.detach() * weights).sum() for name, values in measures.items()}
        return (result.losses * weights).sum(), logged

    def finish(self, means: dict[str, float], state: Mapping[str, float]) -> Mapping[str, float]:
        """Nothing to update."""
        return state

    def _pairs(self, scored: Scored) -> tuple[Pairs, Tensor]:
        """All pairs of the micro-batch and their weights in the global mean. Shapes (P,)."""
        samples = scored.samples
        device = scored.logps.device
        chosen, rejected = (sent(rows, device) for rows in _pair_rows(samples))
        reference = [self.reference[sample.id] for sample in samples]
        reference_chosen = [entry.chosen for entry in reference for _ in entry.rejected]
        reference_rejected = [value for entry in reference for value in entry.rejected]
        pairs = Pairs(
            policy_chosen=scored.logps[chosen],
            policy_rejected=scored.logps[rejected],
            reference_chosen=sent(reference_chosen, device),
            reference_rejected=sent(reference_rejected, device),
            rejected_lengths=scored.lengths[rejected],
        )
        shares = [
            weight / (len(sample.rejected) * len(scored.batch))
            for sample, weight in zip(samples, scored.weights, strict=True)
            for _ in sample.rejected
        ]
        return pairs, sent(shares, device)


def _pair_rows(samples: Sequence[Sample]) -> tuple[list[int], list[int]]:
    """Row of the chosen and row of the rejected response of each pair."""
    chosen, rejected = [], []
    row = 0
    for sample in samples:
        for offset in range(1, len(sample.rejected) + 1):
            chosen.append(row)
            rejected.append(row + offset)
        row += 1 + len(sample.rejected)
    return chosen, rejected
