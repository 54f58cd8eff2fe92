"""Floating-point operations of a pass, from the sizes of a model: two for each multiplication and addition.

Matrix products and attention scores are counted, all pairs of tokens that a plain kernel looks at; norms, activations
and the softmax are not. `tests/jobs/forecast/test_flops.py` compares this with what torch counts.

A frozen matrix takes 2 a number and token forward and 2 backward, for what comes before it; a trained one 2 more. An
adapter trains. The vision tower is frozen unless it is trained, too: then nothing runs backward through it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cwdpo.jobs.forecast.dimensions import Dimensions

ATTENTION_BACKWARD = 2.5
"""Times those of the scores forward: five products, where there were two."""


@dataclass(frozen=True)
class Rows:
    """What goes through the model for one sample, as one row or as one for each response.

    Attributes:
        image: image tokens.
        text: other tokens of the prefix.
        responses: how many there are behind the prefix.
        length: tokens of one.
        shared: the prefix is computed once for all of them.
        everywhere: the last feed-forward layer runs at every token, not only where a response is predicted.
    """

    image: float
    text: float
    responses: float = 0
    length: float = 0
    shared: bool = True
    everywhere: bool = False

    @property
    def prefix(self) -> float:
        """Tokens before the responses."""
        return self.image + self.text

    @property
    def copies(self) -> float:
        """How often the prefix is computed."""
        return 1 if self.shared or not self.responses else self.responses

    @property
    def wanted(self) -> float:
        """Tokens that are predicted."""
        return self.responses * self.length

    @property
    def tokens(self) -> float:
        """Of all rows."""
        return self.copies * self.prefix + self.wanted

    @property
    def skipped(self) -> float:
        """Tokens that the last feed-forward layer does not see."""
        return self.tokens - self.wanted if self.wanted and not self.everywhere else 0

    @property
    def pairs(self) -> float:
        """Pairs of tokens that attention looks at: causal within the prefix, responses at all of their row."""
        if not self.shared:
            return self.copies * (self.prefix + self.length) ** 2
        return self.prefix**2 + self.wanted * self.tokens


@dataclass(frozen=True)
class Trained:
    """What of a model is trained.

    Attributes:
        rank: of the adapter; 0 trains the weights themselves.
        vision: the vision tower is trained, too.
        recomputed: activations are computed again in the backward pass.
    """

    rank: int = 0
    vision: bool = False
    recomputed: bool = False

    def count(self, model: Dimensions) -> int:
        """Parameters that are trained."""
        if self.rank:
            return model.lora(self.rank)
        return model.total if self.vision else model.total - model.of_vision


def forward(model: Dimensions, rows: Rows, rank: int = 0) -> float:
    """Operations of one pass over the rows of a sample, with an adapter of this rank."""
    return seen(model, rows) + decoded(model, rows, rank) + 2 * model.head * rows.wanted


def step(model: Dimensions, rows: Rows, trained: Trained) -> float:
    """Operations of a sample's part of a training step: forward and backward."""
    rows = replace(rows, everywhere=True) if trained.recomputed else rows
    scores = _scores(model, rows)
    again = decoded(model, rows, trained.rank) if trained.recomputed else 0
    backward = decoded(model, rows) - scores + ATTENTION_BACKWARD * scores
    if trained.rank:
        backward += 2 * 2 * _adapter(model, rows, trained.rank)
    else:
        backward += decoded(model, rows) - scores + 2 * model.head * rows.wanted
    vision = 2 * seen(model, rows) if trained.vision and not trained.rank else 0
    return forward(model, rows, trained.rank) + again + backward + vision + 2 * model.head * rows.wanted


def decoded(model: Dimensions, rows: Rows, rank: int = 0) -> float:
    """Operations of the decoder's layers; the last feed-forward layer runs where a response is predicted."""
    products = 2 * (model.layers * model.layer * rows.tokens - model.feed_forward * rows.skipped)
    return products + _scores(model, rows) + (2 * _adapter(model, rows, rank) if rank else 0)


def _adapter(model: Dimensions, rows: Rows, rank: int) -> float:
    """Numbers of an adapter, times the tokens that they are used for."""
    return model.lora(rank) * rows.tokens - 3 * rank * (model.hidden + model.intermediate) * rows.skipped


def _scores(model: Dimensions, rows: Rows) -> float:
    """Queries with keys, and their weights with values."""
    return 4 * model.layers * model.queries * rows.pairs


def seen(model: Dimensions, rows: Rows) -> float:
    """Operations of the vision tower for the image of a row, forward."""
    vision = model.vision
    patches = rows.image * vision.merge**2
    window = min(vision.window**2 or patches, patches)
    scores = 4 * vision.hidden * patches * (vision.whole * patches + (vision.depth - vision.whole) * window)
    blocks = patches * (vision.depth * vision.block + vision.embedding)
    return rows.copies * (2 * (blocks + rows.image * vision.merger(model.hidden)) + scores)
