"""Metrics of a whole corpus (BLEU, METEOR, F1, shares of counts), resampled without scoring anything again.

Each is a function of sums over items: an item is a row of statistics, a corpus their sum. `Value` maps sums to the
metric, for any number of corpora at once: (..., statistics) -> (...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cwdpo.base.errors import DataError
from cwdpo.statistics.bootstrap import Interval, draws

Value = Callable[[np.ndarray], np.ndarray]

BLEU = ("bleu_correct", "bleu_guess", "candidate_length", "reference_length")
"""What `bleu_from` needs of each item of a caption benchmark."""
METEOR = ("meteor_statistics",)
"""What `meteor_from` needs."""

# Parameters of METEOR 1.5's English "rank" task: Denkowski and Lavie, "Meteor Universal" (2014).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHER_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


def statistics_of(items: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> np.ndarray:
    """Statistics of items, (items, statistics), from rows of their files: numbers and lists under `keys`, in a line.

    `DataError` where an item lacks one.
    """
    rows = list(items)
    for key in keys:
        if lacking := sum(row.get(key) is None for row in rows):
            raise DataError(f"{lacking:,} of {len(rows):,} items have no {key}")
    columns = [np.array([row[key] for row in rows], dtype=np.float64).reshape(len(rows), -1) for key in keys]
    return np.concatenate(columns, axis=1)


def f1_counts(said: Sequence[bool], true: Sequence[bool], groups: Sequence[str]) -> np.ndarray:
    """Statistics for `f1_from`: both, said, true in the columns of an item's group, 0 in the others.

    Shapes: `said`, `true`, `groups` (items,) -> (items, 3 x distinct groups).
    """
    answers = np.array([said, true], dtype=bool)
    counts = np.stack([answers.all(axis=0), *answers], axis=1)
    member = np.array(groups)[:, None] == np.unique(groups)
    return (member[:, :, None] * counts[:, None, :]).reshape(len(counts), -1).astype(np.float64)


def bleu_from(sums: np.ndarray, order: int = 4) -> np.ndarray:
    """BLEU-`order` in [0, 1] from sums of `BLEU`: n-grams of 1 to 4 words that are correct, all of them, lengths.

    Shapes: `sums` (..., 10) -> (...). Papineni et al. (2002), with the constants of pycocoevalcap's bleu_scorer.py.
    """
    precisions = (sums[..., :order] + 1e-15) / (sums[..., 4 : 4 + order] + 1e-9)
    ratio = (sums[..., 8] + 1e-15) / (sums[..., 9] + 1e-9)
    return np.exp(np.minimum(0.0, 1 - 1 / ratio)) * precisions.prod(axis=-1) ** (1 / order)


def meteor_from(sums: np.ndarray) -> np.ndarray:
    """METEOR in [0, 1] from sums of `METEOR`, in the order of `cwdpo.metrics.meteor`.

    Shapes: `sums` (..., 23) -> (...). Denkowski and Lavie (2014), section 2.
    """
    length, reference_length, function, reference_function = np.moveaxis(sums[..., :4], -1, 0)
    chunks, words, reference_words = np.moveaxis(sums[..., 20:], -1, 0)
    by_matcher = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)
    content, reference_content, matched, reference_matched = np.moveaxis(_MATCHER_WEIGHTS @ by_matcher, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = _mix(content, matched) / _mix(length - function, function)
        recall = _mix(reference_content, reference_matched) / _mix(
            reference_length - reference_function, reference_function
        )
        f_mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
        scores = f_mean * (1 - _GAMMA * (2 * chunks / (words + reference_words)) ** _BETA)
    return np.where(precision * recall > 0, scores, 0.0)


def f1_from(sums: np.ndarray) -> np.ndarray:
    """F1 in [0, 1] from sums of `f1_counts`, the mean over groups; 0 for a group with nothing said or true.

    Shapes: `sums` (..., 3 x groups) -> (...).
    """
    both, said, true = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    return (2 * both / np.maximum(said + true, 1.0)).mean(axis=-1)


def share_from(sums: np.ndarray) -> np.ndarray:
    """Sum of the first statistic over that of the second (ones, for a mean); nan where that is 0.

    Shapes: `sums` (..., 2) -> (...).
    """
    part, whole = np.moveaxis(sums, -1, 0)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)


def corpus_bootstrap(
    a: np.ndarray, b: np.ndarray, value: Value, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of a - b over items, drawn in pairs: of these checkpoints, whatever other seeds would do.

    Shapes: `a` and `b` (items, statistics), or (seeds, items, statistics) for the mean of the seeds' values; the same
    items in the same order, any number of seeds each. Resamples without a value are left out. `DataError` for unequal
    items, none, or no value.
    """
    methods = [_with_seeds(one) for one in (a, b)]
    _check(methods)
    items, size = methods[0].shape[1:]
    columns = np.concatenate([one.transpose(1, 0, 2).reshape(items, -1) for one in methods], axis=1)

    def differences(times: np.ndarray) -> np.ndarray:
        values = value((times @ columns).reshape(len(times), -1, size))
        own = len(methods[0])
        return values[:, :own].mean(axis=1) - values[:, own:].mean(axis=1)

    (observed,) = differences(np.ones((1, items)))
    drawn = np.concatenate([differences(times) for times in draws(resamples, items, np.random.default_rng(seed))])
    return _interval(float(observed), drawn, level, items)


def item_values(statistics: np.ndarray, value: Value) -> np.ndarray:
    """What each item is worth to each seed's corpus: values whose mean is the metric, for `crossed_difference`.

    Shapes: `statistics` (seeds, items, statistics) -> (seeds, items). The jackknife's pseudo-values, moved to the
    metric: Efron and Tibshirani (1993), chapter 11. A bootstrap that draws seeds as well is no substitute: of three
    to five seeds it rejects 1% to 14% at 5%, where the crossed test of these keeps to 3% to 5%. `DataError` where all
    of a metric hangs on one item: it has no value without that.
    """
    sums = statistics.sum(axis=1, keepdims=True)
    without = value(sums - statistics)
    if np.isnan(without).any():
        raise DataError("the metric has no value without one of these items")
    items = statistics.shape[1]
    return value(sums) + (items - 1) * (without.mean(axis=1, keepdims=True) - without)


def _mix(content: np.ndarray, function: np.ndarray) -> np.ndarray:
    return _DELTA * content + (1 - _DELTA) * function


def _with_seeds(statistics: np.ndarray) -> np.ndarray:
    """(seeds, items, statistics)."""
    return statistics if statistics.ndim == 3 else statistics[None]


def _check(methods: Sequence[np.ndarray]) -> None:
    shapes = sorted({one.shape[1:] for one in methods})
    if len(shapes) > 1:
        raise DataError(f"a paired bootstrap needs the statistics of the same items: found the shapes {shapes}")
    if not shapes[0][0]:
        raise DataError("a paired bootstrap needs at least one item")


def _interval(difference: float, drawn: np.ndarray, level: float, items: int) -> Interval:
    known = drawn[~np.isnan(drawn)]
    if np.isnan(difference) or not known.size:
        raise DataError("the metric has no value on these items, so that there is no difference")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(difference, low, high, items)
