"""What one sample of a stage is made of: rows of tokens by its objective, its data and its negatives.

Lengths of texts are those that the kinds of data usually have; image tokens follow from the model and its pixel limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cwdpo.data.pairs import PairsSpec
from cwdpo.data.sources import Demo, Karpathy, Llava, Ocrvqa, Preferences
from cwdpo.graph import Node
from cwdpo.jobs.forecast.dimensions import Dimensions
from cwdpo.jobs.forecast.flops import Rows
from cwdpo.jobs.forecast.ranges import Range, exactly
from cwdpo.model.config import Policy
from cwdpo.negatives.source import Source
from cwdpo.negatives.stage import NegativesSpec
from cwdpo.objectives.nsft import Nsft
from cwdpo.objectives.online import Online
from cwdpo.objectives.preference import Preference, Term
from cwdpo.objectives.supervised import Supervised
from cwdpo.train.config import Stage1Spec, Stage2Spec

PROMPT = 40
"""Tokens of a system prompt, the marks of a chat template and a short question."""
CAPTION, SHORT, LONG = 14, 6, 100
"""Tokens of a caption, of an answer in a word, of an answer in sentences, end-of-turn included."""
TURN = 35
"""Tokens of one question and answer of a dialogue."""
SPOKEN = 0.4
"""Share of the longest answer that a sampled one has."""

PHOTO = (307_200, 409_600)
"""Pixels of a usual photograph (640 x 480), and of the largest of COCO's (640 x 640)."""
PICTURE = (307_200, 4_194_304)
"""Of pictures of any kind: the same, and 2048 x 2048."""


def image_tokens(model: Dimensions | None, policy: Policy, node: Node) -> tuple[Range, float]:
    """Tokens of an image that a node reads, and of the largest that is to be expected."""
    if model is None:
        return Range(), 0.0
    if model.vision.side or not model.vision.depth:
        fixed = model.vision.tokens(0)
        return exactly(fixed), fixed
    usual, largest = PHOTO if isinstance(_source(node), Demo | Karpathy) else PICTURE
    limit = min(value for value in (policy.max_pixels, model.most_pixels, largest) if value)
    middle = max(min(usual, limit), policy.min_pixels or 0)
    tokens = model.vision.tokens
    return Range(tokens(0.75 * middle), tokens(middle), tokens(max(limit, middle))), tokens(max(limit, middle))


def _source(node: Node) -> object:
    pairs = node.inputs.get("pairs")
    return pairs.spec.data if isinstance(pairs, Node) and isinstance(pairs.spec, PairsSpec) else None


def answer_tokens(node: Node) -> int:
    """Tokens of a response in the data that a node reads."""
    source = _source(node)
    if isinstance(source, Llava | Preferences):
        return LONG
    return SHORT if isinstance(source, Ocrvqa) else CAPTION


def negatives_of(node: Node) -> Source | None:
    """Where the rejected responses that a node reads come from."""
    found = node.inputs.get("negatives")
    return found.spec.negatives if isinstance(found, Node) and isinstance(found.spec, NegativesSpec) else None


def rejected_of(source: Source | None) -> int:
    """Rejected responses of a record."""
    count, inner = getattr(source, "count", None), getattr(source, "of", None)
    if isinstance(count, int):
        return count
    if getattr(source, "source", "") == "graded":
        return 3
    return rejected_of(inner) if isinstance(inner, Source) else 1


def rows_of(node: Node) -> tuple[tuple[Rows, ...], tuple[Rows, ...]]:
    """Rows of a training sample, with gradient and without."""
    spec = node.spec
    assert isinstance(spec, Stage1Spec | Stage2Spec), "only trainings have rows"
    objective, shared, length = spec.objective, node.execution.shared_prefix, answer_tokens(node)
    if isinstance(objective, Preference):
        rejected = rejected_of(negatives_of(node))
        return views(objective.terms, rejected, length, shared), views(objective.still_terms, rejected, length, shared)
    if isinstance(objective, Online):
        assert isinstance(spec, Stage2Spec), "Stage 1 samples nothing"
        assert spec.rollouts is not None, "the schema fills them in"
        spoken = math.ceil(SPOKEN * spec.rollouts.decoding.max_new_tokens)
        rows: tuple[Rows, ...] = (Rows(0, PROMPT, objective.samples, spoken, shared),)
        return rows, rows if objective.kl or objective.looks_at_old else ()
    given = _supervised(objective, node, length, shared)
    return given, given if "kl" in objective.reading.names else ()


def _supervised(objective: Supervised, node: Node, length: int, shared: bool) -> tuple[Rows, ...]:
    """The chosen response, and what is scored beside it."""
    source = negatives_of(node)
    if objective.beside == "dialogue":
        turns = int(getattr(source, "turns", 1))
        dialogues = Rows(0, PROMPT, rejected_of(source), turns * TURN, shared)
        chosen = Rows(0, PROMPT, 1, length, shared)
        return (chosen, dialogues) if not isinstance(objective, Nsft) or objective.chosen else (dialogues,)
    return (Rows(0, PROMPT, 1 + (rejected_of(source) if objective.beside else 0), length, shared),)


def views(terms: Sequence[Term], rejected: int, length: int, shared: bool) -> tuple[Rows, ...]:
    """Rows of a pair: one for each view of the image, with the responses that are scored under it."""
    found: dict[str, int] = {}
    for term in terms:
        role, _, view = term.partition("|")
        found[view] = found.get(view, 0) + (1 if role == "chosen" else rejected)
    return tuple(Rows(0, PROMPT, responses, length, shared) for responses in found.values())


def seeing(rows: Sequence[Rows], image: float) -> tuple[Rows, ...]:
    """The same with so many image tokens each."""
    return tuple(replace(row, image=image) for row in rows)
