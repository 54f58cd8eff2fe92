"""What a probe reads in one forward pass: log-probabilities of all responses, whole distributions of the first ones.

How far a distribution has moved since the start of a stage is computed over the whole vocabulary. Of the policy at the
start nothing of that size is kept where its LM head is frozen: the hidden states that predict the tokens are enough;
the head makes the distributions of them again, a chunk at a time. Where the head is trained, or does more than a
product, log-probabilities are kept, in half precision.

Shapes: K tokens of all responses, C of them of the first responses of groups, R responses, H width of the model, V
vocabulary, T tokens of the greatest probability.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwdpo.data.encoding import Group
from cwdpo.model.head import head_doing
from cwdpo.model.logps import plain_logits
from cwdpo.model.scoring import Scorer
from cwdpo.model.tokens import Chunk, Head, read_tokens
from cwdpo.objectives.reading import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.data.layout import ResponseBatch, Wanted

OF_ALL = Reading(("logp",), ("residual",))
"""What is read of every response."""


@dataclass(frozen=True)
class Distributions:
    """What is read of the tokens of first responses, group by group in their order.

    Attributes:
        values: `logp`, `entropy`, `tv` and `js` (see `distances`). Shapes (C,).
        top_tokens, top_probs: the likeliest tokens, in order. Shapes (C, T).
        kept: what a later probe needs of this one, should it be the start: states (C, H), or log-probabilities (C, V).
    """

    values: dict[str, Tensor]
    top_tokens: Tensor
    top_probs: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Looked:
    """What was read of some groups.

    Attributes:
        logps, residuals, lengths: of every response, group by group: its log-probability, the sum over its tokens of
            ||onehot - p||^2, and how many tokens it has. Shapes (R,).
        first: of the first response of each group.
        first_lengths: their tokens. Shape (groups,).
    """

    logps: Tensor
    residuals: Tensor
    lengths: Tensor
    first: Distributions
    first_lengths: list[int]


@dataclass(frozen=True)
class Lens:
    """How to look at a model.

    Attributes:
        top: T.
        keeps_states: what is kept of the start are states; False where the head is trained.
    """

    scorer: Scorer
    top: int
    keeps_states: bool = True

    def look(self, groups: Sequence[Group], start: Tensor | None = None) -> Looked:
        """Read groups, without gradient.

        Args:
            start: what was `kept` of the same tokens when the stage began; None at the start itself.
        """
        import torch

        batch = self.scorer.batch(groups).to(self.scorer.device)
        first = _first_rows(groups)
        chosen = _tokens_of(batch.wanted, first)
        with torch.no_grad():
            look = self._by_head if self.scorer.way.chunked else self._by_logits
            values, found = look(batch, chosen, start)
        sums = [batch.wanted.table(one).sum(1) for one in values]
        lengths = batch.wanted.lengths
        return Looked(sums[0], sums[1], lengths, found, [int(lengths[row]) for row in first])

    def _by_head(self, batch: ResponseBatch, chosen: Tensor, start: Tensor | None) -> tuple[Tensor, Distributions]:
        model = self.scorer.model
        with self._looking(model, batch.wanted, chosen, start) as found:
            values: Tensor = model(**batch.inputs, attention_mask=batch.attention(), use_cache=False).logits
        return values, found[0]

    @contextmanager
    def _looking(
        self, model: Any, wanted: Wanted, chosen: Tensor, start: Tensor | None
    ) -> Iterator[list[Distributions]]:
        """Context in which a model returns what is read of every token, (2, K), and adds distributions to a list."""
        head, found = model.get_output_embeddings(), list[Distributions]()

        def read(_: Any, hidden: Tensor) -> Tensor:
            rows = hidden.flatten(0, 1).index_select(0, wanted.sources)
            linear = Head(head.weight, head.bias)
            found.append(self._distributions(rows.index_select(0, chosen), linear, wanted.tokens[chosen], start))
            return read_tokens(rows, linear, wanted.tokens, OF_ALL)

        with head_doing(model, wanted, read):
            yield found

    def _distributions(self, states: Tensor, head: Head, tokens: Tensor, start: Tensor | None) -> Distributions:
        """A chunk at a time."""
        import torch

        before = [None] * len(tokens) if start is None else start.to(states.device).split(head.rows)
        parts, kept = [], []
        for rows, targets, other in zip(states.split(head.rows), tokens.split(head.rows), before, strict=False):
            logp = head.logits(rows).log_softmax(1)
            then = other if other is None or not self.keeps_states else head.logits(other).log_softmax(1)
            parts.append(self._of_chunk(logp, targets, then))
            kept.append(rows if self.keeps_states else logp.half())
        return _joined(parts, torch.cat(kept))

    def _by_logits(self, batch: ResponseBatch, chosen: Tensor, start: Tensor | None) -> tuple[Tensor, Distributions]:
        import torch

        logits, which = plain_logits(self.scorer.model, batch)
        whole = Chunk(logits.index_select(0, which).log_softmax(1), batch.wanted.tokens)
        own = whole.logp.index_select(0, chosen)
        before = None if start is None else start.to(own.device)
        part = self._of_chunk(own, whole.tokens[chosen], before)
        return torch.stack([whole.of_tokens(), whole.residual()]), _joined([part], own.half())

    def _of_chunk(self, logp: Tensor, tokens: Tensor, start: Tensor | None) -> _Part:
        """Shapes: logp and start (k, V), tokens (k,)."""
        import torch

        chunk = Chunk(logp, tokens)
        tv, js = distances(logp, start.float()) if start is not None else (torch.zeros_like(logp[:, 0]),) * 2
        top = logp.topk(min(self.top, logp.shape[1]), 1)
        values = {"logp": chunk.of_tokens(), "entropy": chunk.entropy(), "tv": tv, "js": js}
        return values, top.indices, top.values.exp()


_Part = tuple[dict[str, "Tensor"], "Tensor", "Tensor"]


def distances(logp: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Total variation `1/2 sum_v |p - q|`, and Jensen-Shannon divergence in nats, of each row. Shapes (k, V) -> (k,).

    JS = 1/2 KL(p || m) + 1/2 KL(q || m) with m = (p + q) / 2, at most log 2.
    """
    import math

    import torch

    p, q = logp.exp(), start.exp()
    middle = torch.logaddexp(logp, start) - math.log(2)
    # Where a probability is 0 its term is 0, and its logarithm may be minus infinity.
    to_middle = [torch.where(part > 0, part * (log - middle), 0.0).sum(1) for part, log in ((p, logp), (q, start))]
    tv, js = 0.5 * (p - q).abs().sum(1), 0.5 * (to_middle[0] + to_middle[1])
    return tv.clamp(max=1.0), js.clamp(0.0, math.log(2))  # rounding goes past the bounds


def _joined(parts: Sequence[_Part], kept: Tensor) -> Distributions:
    import torch

    values = {name: torch.cat([part[0][name] for part in parts]) for name in parts[0][0]}
    return Distributions(values, torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts]), kept)


def _first_rows(groups: Sequence[Group]) -> list[int]:
    """The number of the first response of each group among all responses."""
    rows, start = [], 0
    for group in groups:
        rows.append(start)
        start += len(group.responses)
    return rows


def _tokens_of(wanted: Wanted, rows: Sequence[int]) -> Tensor:
    """Which of the wanted tokens belong to some responses, response by response. Shape (C,)."""
    import torch

    own = torch.tensor(rows, device=wanted.slots.device)
    places = torch.isin(wanted.slots // wanted.longest, own).nonzero().squeeze(1)
    return places[wanted.slots[places].argsort()]
