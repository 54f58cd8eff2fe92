"""How often the intervals hold and the tests cry wolf, where the truth is known.

A value is method + seed + item + method x item + rest. 4,000 replications: one standard error of a share of 5% is 0.3%.
"""

from functools import partial

import numpy as np
import pytest

from cwdpo.statistics.bootstrap import paired_bootstrap
from cwdpo.statistics.corpus import item_values, share_from
from cwdpo.statistics.crossed import crossed_difference, crossed_interval
from cwdpo.statistics.seeds import one_sample, t_interval, welch

REPLICATIONS = 4000
REST = 0.6
FALSE_POSITIVES = (0.03, 0.07)
COVERED = (0.93, 0.97)


def within(values, bounds):
    share = float(np.mean(values))
    assert bounds[0] <= share <= bounds[1], f"{share:.2%}"


def method(generator, seeds, item, interaction, seed_std):
    """Matrices of every replication, (replications, seeds, items); `item` is shared, `interaction` is the method's."""
    shape = (len(item), seeds, item.shape[1])
    trained = generator.normal(0, seed_std, (len(item), seeds, 1)) if seed_std else 0.0
    return (item + interaction)[:, None, :] + trained + generator.normal(0, REST, shape)


@pytest.mark.parametrize("interaction", [0.0, 0.5])
@pytest.mark.parametrize(("seeds", "others"), [(3, 3), (5, 5)])
def test_seeds_on_a_fixed_test_set(seeds, others, interaction):
    generator = np.random.default_rng([seeds, others, int(interaction * 10)])
    item, own = generator.normal(0, 1, (1, 40)), generator.normal(0, interaction, 40)
    item = np.broadcast_to(item, (REPLICATIONS, 40))
    a = method(generator, seeds, item, own, 0.1).mean(axis=2)
    b = method(generator, others, item, 0.0, 0.1).mean(axis=2)
    truth = float(own.mean())
    tests = [welch(one, other) for one, other in zip((a - truth).tolist(), b.tolist(), strict=True)]
    within([test.p < 0.05 for test in tests], FALSE_POSITIVES)
    within([test.low <= 0 <= test.high for test in tests], COVERED)


@pytest.mark.parametrize("seeds", [3, 5])
def test_mean_of_seeds_on_a_fixed_test_set(seeds):
    generator = np.random.default_rng(seeds)
    item = np.broadcast_to(generator.normal(0, 1, 40), (REPLICATIONS, 40))
    values = method(generator, seeds, item, 0.0, 0.1).mean(axis=2).tolist()
    truth = float(item[0].mean())
    intervals = [t_interval(one) for one in values]
    within([found.low <= truth <= found.high for found in intervals], COVERED)
    within([one_sample(one, truth).p < 0.05 for one in values], FALSE_POSITIVES)


@pytest.mark.parametrize(
    ("seeds", "others", "interaction", "seed_std"),
    [
        (3, 3, 0.0, 0.1),
        (3, 3, 0.5, 0.1),
        (5, 5, 0.0, 0.0),
        (5, 5, 0.0, 0.1),
        (5, 5, 0.5, 0.1),
        (3, 1, 0.0, 0.3),
        (5, 1, 0.5, 0.1),
    ],
)
def test_new_seeds_and_new_items(seeds, others, interaction, seed_std):
    generator = np.random.default_rng([seeds, others, int(interaction * 10), int(seed_std * 10)])
    item = generator.normal(0, 1, (REPLICATIONS, 50))
    a = method(generator, seeds, item, generator.normal(0, interaction, item.shape), seed_std)
    b = method(generator, others, item, generator.normal(0, interaction, item.shape), seed_std if others > 1 else 0.0)
    tests = [crossed_difference(one, other) for one, other in zip(a, b, strict=True)]
    within([test.p < 0.05 for test in tests], FALSE_POSITIVES)
    within([test.low <= 0 <= test.high for test in tests], COVERED)


@pytest.mark.parametrize(("seeds", "own", "interaction"), [(3, 0.1, 0.0), (3, 0.1, 0.5), (5, 0.1, 0.5), (5, 0.0, 0.0)])
def test_seeds_that_share_stage_1_are_compared_in_pairs(seeds, own, interaction):
    """Methods trained from the same Stage 1, seed by seed; taken for independent, they hardly ever differ."""
    generator = np.random.default_rng([seeds, int(own * 10), int(interaction * 10)])
    item = generator.normal(0, 1, (REPLICATIONS, 50))
    stage1 = generator.normal(0, 1, (REPLICATIONS, seeds, 1)) + generator.normal(0, 0.5, (REPLICATIONS, seeds, 50))
    a, b = (
        stage1 + method(generator, seeds, item, generator.normal(0, interaction, item.shape), own) for _ in range(2)
    )
    tests = [crossed_difference(one, np.zeros((1, 50))) for one in a - b]
    within([test.p < 0.05 for test in tests], FALSE_POSITIVES)
    within([test.low <= 0 <= test.high for test in tests], COVERED)
    assert np.mean([crossed_difference(one, other).p < 0.05 for one, other in zip(a, b, strict=True)]) < 0.01


@pytest.mark.parametrize("seeds", [3, 5])
def test_mean_of_new_seeds_and_new_items(seeds):
    generator = np.random.default_rng(seeds)
    values = method(generator, seeds, generator.normal(0, 1, (REPLICATIONS, 50)), 0.0, 0.1)
    within([found.low <= 0 <= found.high for found in map(crossed_interval, values)], COVERED)


def mentions(generator, item, seed_std):
    """Hallucinated and all mentions of every description by five seeds, (replications, seeds, items, 2)."""
    whole = generator.poisson(3, (len(item), 5, item.shape[1]))
    logit = item[:, None, :] + generator.normal(0, seed_std, (len(item), 5, 1))
    return np.stack([generator.binomial(whole, 1 / (1 + np.exp(-logit))), whole], axis=3).astype(float)


def test_corpus_metric_of_new_seeds_and_new_items():
    generator = np.random.default_rng(1)
    item = generator.normal(-1, 1, (1500, 60))
    both = [mentions(generator, item, 0.2) for _ in range(2)]
    values = [map(partial(item_values, value=share_from), one) for one in both]
    within([crossed_difference(a, b).p < 0.05 for a, b in zip(*values, strict=True)], FALSE_POSITIVES)


def test_items_alone_take_trainings_for_methods():
    # Why a test over items is labelled "these checkpoints". Two methods that are the same, with five seeds each, differ
    # with variance 2 (0.01 / 5 + 0.36 / 500); the items show 2 x 0.36 / 500 of it. 1.96 of those standard errors are
    # 1.01 true ones: it finds a difference in 31% of all studies, and the more items the surer it is.
    generator = np.random.default_rng(2)
    item = generator.normal(0, 1, (400, 100))
    a, b = (method(generator, 5, item, 0.0, 0.1) for _ in range(2))
    means = [one.mean(axis=1).tolist() for one in (a, b)]
    alone = [paired_bootstrap(x, y, resamples=200) for x, y in zip(*means, strict=True)]
    assert np.mean([not found.low <= 0 <= found.high for found in alone]) > 0.25
    by_seed = [one.mean(axis=2).tolist() for one in (a, b)]
    assert np.mean([welch(x, y).p < 0.05 for x, y in zip(*by_seed, strict=True)]) < 0.08
    assert np.mean([crossed_difference(x, y).p < 0.05 for x, y in zip(a, b, strict=True)]) < 0.08
