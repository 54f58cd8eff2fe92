"""A model that scores groups of responses, in one of several ways that give the same log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwdpo.data.encoding import Group
from cwdpo.data.layout import ResponseBatch, apart_tokens, separate_rows, separate_tokens, shared_rows
from cwdpo.model.logps import Scores, read_responses, starting_states
from cwdpo.model.positions import prefix_positions
from cwdpo.objectives.reading import LOGPS, Reading

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Starting = Callable[[], AbstractContextManager[None]]
"""Context in which the model scored with is the policy at the start of the stage."""


@dataclass(frozen=True)
class Way:
    """A way to score.

    Attributes:
        shared: the responses of a group share one prefix.
        chunked: the LM head gives what is read of tokens, a chunk of them at a time (`tokens.py`).
        apart: attention treats prefixes and responses apart (`attention.py`).
    """

    shared: bool
    chunked: bool
    apart: bool = False

    def __str__(self) -> str:
        rows = "shared prefixes" if self.shared else "a row per response"
        return f"{rows}, {'the head in chunks' if self.chunked else 'all logits'}"


PLAIN = Way(shared=False, chunked=False)


class Scorer:
    """Lays groups out and scores them, in one way.

    Args:
        model: as it is called, wrappers included.
        pad: token that fills up rows.
        device: where the model is.
        way: how; `trial.py` finds out which one a model takes.
    """

    def __init__(self, model: Any, pad: int, device: torch.device, way: Way) -> None:
        self.way = way
        self.model, self._pad, self.device = model, pad, device
        self._positions = prefix_positions(model)

    def of_another(self, model: Any) -> Scorer:
        """The same for another model of the same kind."""
        return Scorer(model, self._pad, self.device, self.way)

    def logps(self, groups: Sequence[Group], width: int = 0) -> tuple[Tensor, Tensor]:
        """Log-probabilities and lengths of all responses, group by group, with gradient. Shapes (R,).

        `width` is that of `shared_rows`.
        """
        scores = self.read(groups, LOGPS, width=width)
        return scores.logps, scores.lengths

    def read(self, groups: Sequence[Group], reading: Reading, start: Starting | None = None, width: int = 0) -> Scores:
        """What `reading` names of all responses, group by group; see `read_responses`.

        Args:
            start: context of the policy at the start, where `kl` is read.
        """
        batch = self.batch(groups, width)
        if self.device.type == "cuda":
            batch = batch.pinned()
        batch = batch.to(self.device)
        plain = not self.way.chunked
        before = None
        if "kl" in reading.names:
            assert start is not None, "kl is read beside the policy at the start"
            with start():
                before = starting_states(self.model, batch, plain)
        return read_responses(self.model, batch, reading, plain, before)

    def batch(self, groups: Sequence[Group], width: int = 0) -> ResponseBatch:
        """Rows of one forward pass, on the CPU."""
        if self._shares(groups):
            return shared_rows(groups, self._pad, self._positions, self.way.apart, width)
        return separate_rows(groups, self._pad, None if self.way == PLAIN else self._positions)

    def tokens(self, groups: Sequence[Group]) -> int:
        """Tokens of one forward pass, padding included; groups that can share a row may take fewer."""
        return apart_tokens(groups) if self._shares(groups) else separate_tokens(groups)

    def _shares(self, groups: Sequence[Group]) -> bool:
        # One response each has nothing to share, and a plain causal mask is cheaper.
        return self.way.shared and any(len(group.responses) > 1 for group in groups)
