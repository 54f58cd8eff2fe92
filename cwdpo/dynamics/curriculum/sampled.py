"""Pairs drawn in proportion to their cooling weight as probes see it change: what is hard comes more often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cwdpo.dynamics.curriculum.pace import Pace, Pacing

if TYPE_CHECKING:
    import numpy as np


class Sampled(Pacing):
    """Draws each batch without replacement, with chances in proportion to `w_c`; a pass may repeat and omit pairs.

    The weight is that of `probe.cooling`, whatever scale the objective itself has.
    """

    name: Literal["sampled"] = "sampled"
    floor: float = Field(default=0.05, gt=0, le=1)
    """Least weight of a pair, so that none is lost for good; chosen, the paper prints none."""

    def batch(self, epoch: np.ndarray, place: int, size: int, pace: Pace, seed: int) -> np.ndarray:
        """Of all samples of the pass. Shape (at most size,).

        The largest of u^(1/w), u uniform, are such a draw (Efraimidis and Spirakis 2006).
        """
        import numpy as np

        count = len(epoch[place * size : (place + 1) * size])
        weights = np.maximum(pace.weights()[epoch], self.floor)
        keys = np.log(np.random.default_rng(seed).random(len(epoch))) / weights
        return epoch[np.argsort(-keys, kind="stable")[:count]]
