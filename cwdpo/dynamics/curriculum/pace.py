"""What every curriculum goes by: how likely each rejected response was at the start, and what probes say since.

Shapes: N samples, P negatives of the probe set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cwdpo.base.config import Config

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Pace:
    """Where a training stands.

    Attributes:
        start: mean log-probability, nats per token, of each sample's rejected responses before the first step. Shape
            (N,).
        probed_start, probed_now: the same of the probe set's graded negatives, then and at the newest probe. Shapes
            (P,).
        l_floor, tau: scale of the cooling weight.
    """

    start: np.ndarray
    probed_start: np.ndarray
    probed_now: np.ndarray
    l_floor: float
    tau: float

    def weights(self) -> np.ndarray:
        """w_c (Eq. 6) of each sample, as far as probes tell without scoring it again. Shape (N,).

        A response is taken to have changed as the probe's negatives have that were about as likely as it at the start:
        those of the same third.
        """
        import numpy as np

        edges = np.quantile(self.probed_start, [1 / 3, 2 / 3])
        thirds = np.searchsorted(edges, self.probed_start)
        changes = self.probed_now - self.probed_start
        by_third = np.array([changes[thirds == third].mean() if (thirds == third).any() else 0.0 for third in range(3)])
        now = self.start + by_third[np.searchsorted(edges, self.start)]
        weights: np.ndarray = 0.5 * (1 + np.tanh((now - self.l_floor) / self.tau / 2))
        return weights


class Pacing(Config):
    """What the order of samples asks of a curriculum."""

    name: str

    def batch(self, epoch: np.ndarray, place: int, size: int, pace: Pace, seed: int) -> np.ndarray:
        """Numbers of the samples of a step.

        Args:
            epoch: numbers of the samples of this pass over the data, shuffled. Shape (at most N,).
            place: which step of the pass it is, from 0.
            size: samples of a step; the last one of a pass may have fewer.
            seed: of this step.
        """
        raise TypeError(f"{type(self).__name__} does not say what a batch is")
