"""Every pair once in a pass over the data, by how likely its rejected response was at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cwdpo.dynamics.curriculum.pace import Pace, Pacing

if TYPE_CHECKING:
    import numpy as np


class Ordered(Pacing):
    """Sorts each pass; pairs that are equally hard stay shuffled. The order does not change while training runs."""

    name: Literal["ordered"] = "ordered"
    first: Literal["easy", "hard"] = "easy"
    """Easy rejected responses are the unlikely ones."""

    def batch(self, epoch: np.ndarray, place: int, size: int, pace: Pace, seed: int) -> np.ndarray:
        """The next `size` of the sorted pass. Shape (at most size,)."""
        import numpy as np

        sign = 1.0 if self.first == "easy" else -1.0
        order = np.argsort(sign * pace.start[epoch], kind="stable")
        return epoch[order[place * size : (place + 1) * size]]
