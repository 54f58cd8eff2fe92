"""The order of samples under a curriculum: a function of the seed, the starting policy, and the newest probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cwdpo.base.identity import seed_from
from cwdpo.data.encoding import Collator
from cwdpo.data.samples import DataOrder, Sample
from cwdpo.dynamics.curriculum.pace import Pace, Pacing
from cwdpo.train.config import TrainingSpec
from cwdpo.train.reference import ReferenceLogps

if TYPE_CHECKING:
    import numpy as np


class PacedOrder(DataOrder):
    """A `DataOrder` whose batches a curriculum chooses.

    Args:
        start: mean log-probability of each sample's rejected responses before the first step. Shape (N,).
    """

    def __init__(self, samples: Sequence[Sample], spec: TrainingSpec, curriculum: Pacing, start: np.ndarray) -> None:
        super().__init__(samples, spec.optimization.batch_size, spec.seed, spec.one_per_image)
        self._curriculum, self._start = curriculum, start
        self._pace: Pace | None = None

    def hear(self, start: Sequence[float], now: Sequence[float], l_floor: float, tau: float) -> None:
        """What probes say of graded negatives, before the first step and now; batches from here on go by it."""
        import numpy as np

        self._pace = Pace(self._start, np.array(start), np.array(now), l_floor, tau)

    def batch(self, step: int) -> list[Sample]:
        """Samples of optimizer step `step` (0-based)."""
        import numpy as np

        assert self._pace is not None, "step 0 is probed before the first batch"
        epoch, place = divmod(step, self.steps_per_epoch)
        numbers = self._curriculum.batch(
            np.asarray(self._epoch(epoch)), place, self._batch_size, self._pace,
            seed_from("curriculum", self._seed, step),
        )  # fmt: skip
        return [self._samples[int(number)] for number in numbers]


def starting_mean_logps(
    samples: Sequence[Sample], reference: Mapping[str, ReferenceLogps], collator: Collator
) -> np.ndarray:
    """Mean log-probability of each sample's rejected responses under the reference, nats per token. Shape (N,)."""
    import numpy as np

    def mean(sample: Sample) -> float:
        logps = reference[sample.id].terms["rejected"]
        lengths = (len(collator.response_ids(text)) for text in sample.rejected)
        return sum(logp / length for logp, length in zip(logps, lengths, strict=True)) / len(sample.rejected)

    return np.array([mean(sample) for sample in samples])
