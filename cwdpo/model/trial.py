"""Which way of scoring a model takes: what its configuration rules out is not tried, what is tried is measured.

A few samples are scored in the quick way and in the plain one before the work starts. Differences are compared with
what the plain way itself shows when the same rows lie in other batches, so that the rounding of a wide bf16 model does
not count as a fault. The choice is kept beside the stage's other unfinished work: a run goes on as it began.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from cwdpo.base import distributed, files
from cwdpo.base.context import StageContext
from cwdpo.data.encoding import Group
from cwdpo.data.samples import Sample
from cwdpo.model.attention import joins_prefixes, splits_prefixes
from cwdpo.model.inference import evaluating
from cwdpo.model.scoring import PLAIN, Scorer, Way

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Mean difference, nats per token, that passes for rounding whatever the plain way shows by itself."""

NOISE = 3.0
"""Times the plain way's own difference that passes, too."""

CANDIDATES = 8  # samples with several responses among which two with prefixes of different lengths are looked for


def choose_scorer(
    context: StageContext,
    model: Any,
    pad: int,
    samples: Sequence[Sample],
    examples: Callable[[Sample], Sequence[Group]],
    dtype: str,
) -> Scorer:
    """The quickest way that execution allows and that agrees with the plain one on a few samples.

    Collective: every rank must call with the same samples. What was chosen, and why, is an event.

    Args:
        pad: token that fills up rows.
        examples: groups such as those that will be scored of a sample, one of each kind.
    """
    execution = context.execution
    make = partial(Scorer, model, pad, distributed.device_of(context.rank))
    groups = _trial_groups(examples, samples)
    severally = any(len(group.responses) > 1 for group in groups)
    wished = Way(execution.shared_prefix and severally, execution.chunked_head)
    kept = distributed.from_first_rank(_kept(context, wished), context.rank)
    if kept is not None:
        way = Way(**kept)
        return make(replace(way, apart=way.apart and splits_prefixes(model)))
    way, differences = _first_that_agrees(context, model, make, groups, wished, dtype)
    _keep(context, wished, way)
    _tell(context, wished, way, differences)
    return make(way)


def _first_that_agrees(
    context: StageContext, model: Any, make: Callable[[Way], Scorer], groups: Sequence[Group], wished: Way, dtype: str
) -> tuple[Way, dict[str, float | None]]:
    """The way, and the difference of each one that was tried, None where it could not even be computed."""
    differences: dict[str, float | None] = {}
    with evaluating(model):
        chunked = wished.chunked and _is_plain_product(model, make(PLAIN), groups)
        shared = wished.shared and _sees_everything(model, groups)
        expected = _logps(make(PLAIN), groups)
        alone = [value for group in groups for value in _logps(make(PLAIN), [group])]
        limit = _limit(_difference(expected, alone, groups), dtype)
        for way in dict.fromkeys([Way(shared, chunked), Way(False, chunked), PLAIN]):
            if way == PLAIN:
                break
            way = replace(way, apart=way.shared and splits_prefixes(model))
            difference = _tried(make(way), groups, expected, model)
            differences[str(way)] = difference if math.isfinite(difference) else None
            if distributed.from_first_rank(difference <= limit, context.rank):
                break
            joins_prefixes(model)
    return way, differences


def _limit(noise: float, dtype: str) -> float:
    """Largest difference that passes; none does where not even the plain way agrees with itself."""
    return max(TOLERANCE[dtype], NOISE * noise) if math.isfinite(noise) else -math.inf


def _trial_groups(examples: Callable[[Sample], Sequence[Group]], samples: Sequence[Sample]) -> list[Group]:
    """All groups of a sample with several responses, and one of a prefix of another length, where there are such."""
    several = (sample for sample in samples if sample.rejected)
    first, *others = [examples(sample) for sample in list(islice(several, CANDIDATES)) or samples[:2]]
    length = first[0].prefix_length
    other = next((groups[0] for groups in others if groups[0].prefix_length != length), (others or [first])[-1][0])
    return [*first, other]


def _sees_everything(model: Any, groups: Sequence[Group]) -> bool:
    """True when every token sees all tokens before it and none after it: a mask of ours takes away nothing else."""
    config = model.get_decoder().config
    kinds_of_token = groups[0].prefix.get("token_type_ids")
    if kinds_of_token is not None and bool(kinds_of_token.any()):  # images that see themselves in both directions
        return False
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    return not kinds and (window is None or window >= config.max_position_embeddings)


def _is_plain_product(model: Any, plain: Scorer, groups: Sequence[Group]) -> bool:
    """True when a model's logits are, bit by bit, what its one whole head gives: nothing caps or scales them."""
    import torch

    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or getattr(head.weight, "device_mesh", None) is not None:
        return False  # the latter: spread over the ranks of a tensor-parallel replica
    given: list[Any] = []
    results: list[Any] = []
    hooks = [
        head.register_forward_hook(lambda module, arguments, output: given.append(output)),
        model.register_forward_hook(lambda module, arguments, output: results.append(output.logits)),
    ]
    try:
        _logps(plain, groups[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return len(given) == len(results) == 1 and torch.equal(given[0].float(), results[0].float())


def _tried(scorer: Scorer, groups: Sequence[Group], expected: Sequence[float], model: Any) -> float:
    """Difference of a way to what is expected, infinite where it gives no numbers or fails; rows apart and packed."""
    import torch

    # Where weights are spread over ranks, one that broke off in a pass could not take part in another.
    spread = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
    widths = (0, sum(group.length for group in groups)) if scorer.way.shared else (0,)
    try:
        found = [_logps(scorer, groups, width) for width in widths]
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, IndexError, RuntimeError):
        if spread:
            raise
        return math.inf
    return max(_difference(values, expected, groups) for values in found)


def _difference(found: Sequence[float], expected: Sequence[float], groups: Sequence[Group]) -> float:
    """Mean over all tokens of how far the responses' log-probabilities are apart, nats; NaN agrees with nothing."""
    tokens = sum(len(response) for group in groups for response in group.responses)
    difference = sum(abs(mine - theirs) for mine, theirs in zip(found, expected, strict=True)) / tokens
    return math.inf if math.isnan(difference) else difference


def _logps(scorer: Scorer, groups: Sequence[Group], width: int = 0) -> list[float]:
    import torch

    with torch.no_grad():
        values: list[float] = scorer.logps(groups, width)[0].tolist()
    return values


def _kept(context: StageContext, wished: Way) -> dict[str, bool] | None:
    """The way this stage has begun with, where it wished for the same."""
    path = context.partial / "scoring.json"
    content = files.read_json(path) if context.rank.is_first and path.exists() else {}
    return content["way"] if content.get("wished") == vars(wished) else None


def _keep(context: StageContext, wished: Way, way: Way) -> None:
    if context.rank.is_first:
        files.write_json(context.partial / "scoring.json", {"wished": vars(wished), "way": vars(way)})


def _tell(context: StageContext, wished: Way, chosen: Way, differences: dict[str, float | None]) -> None:
    context.event("scoring", way=str(chosen), wished=str(wished), difference_per_token=differences)
    if str(chosen) != str(wished) and context.rank.is_first:
        print(
            f"this model is not scored with {wished}, but with {chosen}, which is slower: its attention or its head is"
            f" of another kind, or log-probabilities would differ (nats per token: {differences or 'not tried'})",
            file=sys.stderr,
        )
