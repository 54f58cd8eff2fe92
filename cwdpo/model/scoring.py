"""How a model scores groups: by shared prefixes and its head in chunks, or plainly where it cannot do that.

Whether a model can is measured, not looked up: before the work starts a few samples are scored both ways, and a way
that gives other log-probabilities is not used.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.data.batches import Collator, Group
from cwdpo.data.layout import Positions, ResponseBatch, separate_rows, shared_rows
from cwdpo.data.samples import Sample
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.logps import response_logps

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Nats per token by which a way may differ from the plain one; a wrong mask or position is off by far more."""

TRIED = 2  # samples the ways are compared on, all in one row: those with most responses of the first LOOKED_AT
LOOKED_AT = 64


@dataclass(frozen=True)
class Way:
    """A way to score.

    Attributes:
        shared: the responses of a group share one prefix.
        chunked: the LM head gives log-probabilities, a chunk of positions at a time (`head.py`).
    """

    shared: bool
    chunked: bool

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
        way: how.
    """

    def __init__(self, model: Any, pad: int, device: torch.device, way: Way) -> None:
        self.way = way
        self._model, self._pad, self._device = model, pad, device
        self._positions = prefix_positions(model)
        self._apart = way.shared and splits_prefixes(model)

    def logps(self, groups: Sequence[Group], width: int = 0) -> tuple[Tensor, Tensor]:
        """Log-probabilities and lengths of all responses, group by group; see `response_logps`.

        `width` is that of `shared_rows`.
        """
        batch = self.batch(groups, width)
        if self._device.type == "cuda":
            batch = batch.pinned()
        return response_logps(self._model, batch.to(self._device), plain_head=not self.way.chunked)

    def batch(self, groups: Sequence[Group], width: int = 0) -> ResponseBatch:
        """Rows of one forward pass, on the CPU."""
        # One response each has nothing to share, and a plain causal mask is cheaper.
        if self.way.shared and any(len(group.responses) > 1 for group in groups):
            return shared_rows(groups, self._pad, self._positions, self._apart, width)
        return separate_rows(groups, self._pad)


def choose_scorer(
    context: StageContext,
    model: Any,
    collator: Collator,
    samples: Sequence[Sample],
    responses: Callable[[Sample], list[str]],
    dtype: str,
) -> Scorer:
    """The quickest way that execution allows and that agrees with the plain one on a few samples.

    Collective: every rank must call with the same samples. What was chosen, and why, is an event.
    """
    execution, device = context.execution, distributed.device_of(context.rank)
    make = partial(Scorer, model, collator.pad, device)
    wished = Way(execution.shared_prefix, execution.chunked_head and _is_plain_product(model))
    first = sorted(samples[:LOOKED_AT], key=lambda sample: -len(responses(sample)))[:TRIED]
    groups = [collator.group(sample, responses(sample)) for sample in first]
    differences: dict[Way, float] = {}
    for way in dict.fromkeys([wished, Way(False, wished.chunked), PLAIN]):
        if way == PLAIN:
            break
        with _evaluating(model):
            differences[way] = _difference(make(way), make(PLAIN), groups)
        if distributed.from_first_rank(differences[way] <= TOLERANCE[dtype], context.rank):
            break
    _tell(context, wished, way, differences)
    return make(way)


def _tell(context: StageContext, wished: Way, chosen: Way, differences: dict[Way, float]) -> None:
    by_name = {str(way): difference for way, difference in differences.items()}
    context.event("scoring", way=str(chosen), wished=str(wished), difference_per_token=by_name)
    if chosen != wished and context.rank.is_first:
        print(
            f"this model cannot be scored with {wished}: its log-probabilities would differ by"
            f" {differences[wished]:.2g} nats per token; going on with {chosen}, which is slower",
            file=sys.stderr,
        )


def prefix_positions(model: Any) -> Positions:
    """Rotary positions of a prefix: the model's own where an image has several axes (M-RoPE), else 0, 1, 2, ..."""
    own = next((module.get_rope_index for module in model.modules() if hasattr(module, "get_rope_index")), None)
    return _counted if own is None else _by_model(own)


def _counted(prefix: dict[str, Tensor]) -> Tensor:
    import torch

    return torch.arange(prefix["input_ids"].shape[1])[None]


def _by_model(own: Callable[..., tuple[Tensor, Tensor]]) -> Positions:
    known = inspect.signature(own).parameters

    def positions(prefix: dict[str, Tensor]) -> Tensor:
        found, _ = own(**{key: value for key, value in prefix.items() if key in known})
        return found[:, 0]

    return positions


def _is_plain_product(model: Any) -> bool:
    """True when logits are nothing but the product with one whole head."""
    import torch

    head = model.get_output_embeddings()
    split = getattr(head.weight, "device_mesh", None)  # over the ranks of a tensor-parallel replica
    return type(head) is torch.nn.Linear and split is None


def _difference(scorer: Scorer, plain: Scorer, groups: Sequence[Group]) -> float:
    """Largest difference to the plain way, nats per token of a response; in rows of their own and all in one."""
    import torch

    with torch.no_grad():
        expected, lengths = plain.logps(groups)
        found = [scorer.logps(groups, width)[0] for width in (0, sum(group.length for group in groups))]
    difference = float(((torch.stack(found) - expected).abs() / lengths).max())
    return math.inf if math.isnan(difference) else difference  # NaN agrees with nothing


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Context without dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
