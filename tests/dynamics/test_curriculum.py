"""Which pairs come when: sorted passes, draws in proportion to weights, and weights that probes move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit
from scipy.stats import chisquare

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.data.samples import DataOrder, Sample
from cwdpo.dynamics.curriculum import Ordered, Sampled
from cwdpo.dynamics.curriculum.pace import Pace, Pacing
from cwdpo.model.config import Policy
from cwdpo.objectives.dpo import Dpo
from cwdpo.train.config import Optimization, Stage2Spec
from cwdpo.train.steering.ordering import PacedOrder, starting_mean_logps

ANY = settings(derandomize=True, database=None, deadline=None, max_examples=60)
L_FLOOR, TAU = -3.0, 0.5


def pace(start: Sequence[float], before: Sequence[float] = (-1.0, -2.0, -3.0), now: Sequence[float] = ()) -> Pace:
    """By default nothing has changed since the start."""
    return Pace(np.array(start), np.array(before), np.array(now or before), L_FLOOR, TAU)


def weighing(*weights: float) -> Pace:
    """Where samples have these cooling weights."""
    return pace([L_FLOOR + TAU * float(logit(weight)) for weight in weights])


def steps(curriculum: Pacing, epoch: np.ndarray, size: int, at: Pace, seed: Callable[[int], int]) -> list[list[int]]:
    """All batches of a pass."""
    count = -(-len(epoch) // size)
    return [curriculum.batch(epoch, place, size, at, seed(place)).tolist() for place in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# Weights


def test_before_anything_has_changed_a_weight_is_equation_6() -> None:
    start = [-9.0, -3.5, -3.0, -2.0, 0.0]
    assert pace(start).weights() == pytest.approx([expit((value - L_FLOOR) / TAU) for value in start])


def test_weights_by_hand() -> None:
    """The probe's thirds: -6 and -5 have gained 1 and 3, -4 and -3 nothing, -2 and -1 have lost 2 and 1.

    Their borders lie a third and two thirds of the way through -6 ... -1: at -6 + 5/3 and -6 + 10/3.
    """
    at = pace([-6.0, -4.4, -4.3, -2.7, -2.6, 0.0], [-5, -1, -4, -6, -2, -3], [-2, -2, -4, -5, -4, -3])
    moved = [-6.0 + 2, -4.4 + 2, -4.3, -2.7, -2.6 - 1.5, 0.0 - 1.5]
    assert at.weights() == pytest.approx([expit((value + 3) / 0.5) for value in moved])


def test_all_negatives_moving_alike_move_all_samples_alike() -> None:
    chance = np.random.default_rng(0)
    start, before = chance.uniform(-6, 0, 50), chance.uniform(-6, 0, 33)
    at = Pace(start, before, before - 1.25, L_FLOOR, TAU)
    assert at.weights() == pytest.approx(expit((start - 1.25 - L_FLOOR) / TAU))


@ANY
@given(
    start=arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e3, 0)),
    probed=arrays(np.float64, st.tuples(st.just(2), st.integers(1, 9)), elements=st.floats(-1e3, 0)),
)
def test_weights_are_shares_whatever_is_probed(start: np.ndarray, probed: np.ndarray) -> None:
    """Also where a third of the probe's negatives is empty, as where many are equal or there are few."""
    found = Pace(start, probed[0], probed[1], L_FLOOR, TAU).weights()
    assert found.shape == start.shape
    assert ((found >= 0) & (found <= 1)).all()


# ---------------------------------------------------------------------------------------------------------------------
# Ordered

STARTS = arrays(np.float64, st.integers(1, 30), elements=st.floats(-20, 0) | st.sampled_from([-1.0, -2.0]))


@ANY
@given(start=STARTS, size=st.integers(1, 8), first=st.sampled_from(["easy", "hard"]), seed=st.integers(0, 99))
def test_a_sorted_pass_takes_every_pair_once_by_how_likely_its_rejected_response_was(
    start: np.ndarray, size: int, first: Any, seed: int
) -> None:
    """Pairs that are equally hard keep the places that shuffling gave them, whatever probes say."""
    epoch = np.random.default_rng(seed).permutation(len(start))
    batches = steps(Ordered(first=first), epoch, size, pace(start.tolist(), now=(-9.0, -9.0, 0.0)), hash)
    found = [number for batch in batches for number in batch]
    places = epoch.tolist().index
    sign = 1 if first == "easy" else -1
    assert found == sorted(range(len(start)), key=lambda number: (sign * start[number], places(number)))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)


def test_easy_rejected_responses_are_the_unlikely_ones() -> None:
    at, epoch = pace([-1.0, -9.0, -4.0]), np.arange(3)
    assert steps(Ordered(), epoch, 2, at, hash) == [[1, 2], [0]]
    assert steps(Ordered(first="hard"), epoch, 2, at, hash) == [[0, 2], [1]]


def test_a_pass_over_some_samples_takes_these_alone() -> None:
    """As where one caption an image is drawn."""
    at = pace([-1.0, -9.0, -4.0, -2.0])
    assert steps(Ordered(), np.array([3, 1]), 1, at, hash) == [[1], [3]]


# ---------------------------------------------------------------------------------------------------------------------
# Sampled

FOUR = 0.2, 0.4, 0.6, 0.9


def chance_of(drawn: Sequence[int], weights: Sequence[float]) -> float:
    """That one number after the other is drawn in proportion to the weights of those that are left."""
    found, left = 1.0, dict(enumerate(weights))
    for number in drawn:
        found *= left[number] / sum(left.values())
        del left[number]
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
def test_draws_are_as_frequent_as_exact_chances_say(size: int) -> None:
    """Of all ordered draws of four pairs of a shuffled pass, over 3,000 seeds."""
    at, epoch, count = weighing(*FOUR), np.array([2, 0, 3, 1]), 3000
    counts = Counter(tuple(Sampled().batch(epoch, 0, size, at, seed).tolist()) for seed in range(count))
    draws = list(permutations(range(4), size))
    expected = [count * chance_of(draw, FOUR) for draw in draws]
    assert sum(expected) == pytest.approx(count)
    assert set(counts) <= set(draws)
    assert chisquare([counts[draw] for draw in draws], expected).pvalue > 0.01


def test_no_pair_weighs_less_than_the_floor() -> None:
    """One weighs nothing: it is drawn as often as one of weight 0.3, here 3 of 12 times."""
    at, epoch, count = pace([-1e3, L_FLOOR + TAU * float(logit(0.9))]), np.arange(2), 2000
    first = Counter(int(Sampled(floor=0.3).batch(epoch, 0, 1, at, seed)[0]) for seed in range(count))
    # Five standard deviations of a share of 1/4 are 0.048.
    assert first[0] / count == pytest.approx(0.25, abs=0.048)


def test_a_floor_of_1_draws_evenly() -> None:
    at, epoch = weighing(*FOUR), np.arange(4)
    counts = Counter(int(Sampled(floor=1.0).batch(epoch, 0, 1, at, seed)[0]) for seed in range(2000))
    assert chisquare([counts[number] for number in range(4)]).pvalue > 0.01


def test_what_probes_say_moves_the_draw() -> None:
    """Likely negatives have become unlikely ones and the other way round: the rare pair becomes the frequent one."""
    before, epoch = (-5.0, -3.0, -1.0), np.arange(2)
    for now, frequent in ((before, 1), ((-1.0, -3.0, -5.0), 0)):
        at = pace([-5.0, -1.0], before, now)
        counts = Counter(int(Sampled().batch(epoch, 0, 1, at, seed)[0]) for seed in range(300))
        assert counts[frequent] > 250


@ANY
@given(start=STARTS, size=st.integers(1, 8), seed=st.integers(0, 2**63 - 1))
def test_a_batch_has_no_pair_twice_and_a_pass_as_many_as_a_plain_one(start: np.ndarray, size: int, seed: int) -> None:
    epoch = np.random.default_rng(0).permutation(len(start) + 5)[: len(start)]
    numbers = np.zeros(len(start) + 5)
    numbers[epoch] = start
    at = pace(numbers.tolist())
    batches = steps(Sampled(), epoch, size, at, lambda place: seed ^ place)
    assert all(len(set(batch)) == len(batch) for batch in batches)
    assert {number for batch in batches for number in batch} <= set(epoch.tolist())
    assert [len(batch) for batch in batches] == [len(epoch[at : at + size]) for at in range(0, len(epoch), size)]
    assert batches == steps(Sampled(), epoch, size, at, lambda place: seed ^ place)


def test_another_step_draws_anew() -> None:
    at, epoch = weighing(*[0.5] * 40), np.arange(40)
    found = {tuple(Sampled().batch(epoch, 0, 4, at, seed).tolist()) for seed in range(20)}
    assert len(found) == 20


@pytest.mark.parametrize("floor", [0.0, 1.5, -0.1])
def test_a_floor_is_a_share_above_0(floor: float) -> None:
    with pytest.raises(ConfigError, match="floor"):
        validate(Sampled, {"name": "sampled", "floor": floor}, "stage2.curriculum")


# ---------------------------------------------------------------------------------------------------------------------
# The order of a training

SAMPLES = [Sample(f"{number}", f"{number // 2}", "a.png", "?", "yes", ("no",)) for number in range(22)]
START = np.random.default_rng(0).integers(-6, 0, len(SAMPLES)).astype(float)
"""Many are equally hard."""
HEARD: tuple[Any, ...] = ([-5.0, -3.0, -1.0], [-6.0, -3.0, -2.0], L_FLOOR, TAU)


def order(curriculum: Pacing, seed: int = 3, one_per_image: bool = False) -> PacedOrder:
    optimization = Optimization(batch_size=4)
    spec = Stage2Spec(
        policy=Policy(dtype="float32"), objective=Dpo(), optimization=optimization, seed=seed,
        one_per_image=one_per_image,
    )  # fmt: skip
    return PacedOrder(SAMPLES, spec, curriculum, START)


def ids(batch: Sequence[Sample]) -> list[int]:
    return [int(sample.id) for sample in batch]


@pytest.mark.parametrize("curriculum", [Ordered(), Sampled()], ids=["ordered", "sampled"])
def test_batches_follow_from_seed_step_and_the_newest_probe_alone(curriculum: Pacing) -> None:
    """As after a resume: asked in another order, by another object, after other probes."""
    one, two = order(curriculum), order(curriculum)
    one.hear(*HEARD)
    expected = [ids(one.batch(step)) for step in range(18)]
    two.hear(HEARD[1], HEARD[0], -1.0, 3.0)
    two.batch(7)
    two.hear(*HEARD)
    assert [ids(two.batch(step)) for step in reversed(range(18))] == expected[::-1]
    other = order(curriculum, seed=4)
    other.hear(*HEARD)
    assert [ids(other.batch(step)) for step in range(18)] != expected


@pytest.mark.parametrize("one_per_image", [False, True])
def test_a_sorted_pass_is_the_pass_without_a_curriculum_but_sorted(one_per_image: bool) -> None:
    """Of the same captions, where one an image is drawn; what is equally hard comes in the shuffled order."""
    paced, plain = order(Ordered(), one_per_image=one_per_image), DataOrder(SAMPLES, 4, 3, one_per_image)
    paced.hear(*HEARD)
    count = plain.steps_per_epoch
    passes = []
    for epoch in range(2):
        found, shuffled = (
            [number for step in range(count) for number in ids(one.batch(count * epoch + step))]
            for one in (paced, plain)
        )
        assert found == sorted(shuffled, key=lambda number: START[number])
        passes.append(found)
    assert passes[0] != passes[1]


def test_a_curriculum_is_told_what_probes_said_and_where_the_pass_stands() -> None:
    told: list[Any] = []

    class Listening(Pacing):
        name: str = "listening"

        def batch(self, epoch: np.ndarray, place: int, size: int, pace: Pace, seed: int) -> np.ndarray:
            told.append((sorted(epoch.tolist()), place, size, pace.start.tolist(), pace.l_floor, pace.tau))
            told.append((pace.probed_start.tolist(), pace.probed_now.tolist()))
            return epoch[:2]

    paced = order(Listening())
    paced.hear([-5.0, -4.0], [-3.0, -2.0], L_FLOOR, TAU)
    assert len(paced.batch(8)) == 2
    assert told == [
        (list(range(22)), 2, 4, START.tolist(), L_FLOOR, TAU),
        ([-5.0, -4.0], [-3.0, -2.0]),
    ]


def test_what_is_heard_changes_what_is_drawn() -> None:
    paced = order(Sampled())
    paced.hear(*HEARD)
    before = [ids(paced.batch(step)) for step in range(6)]
    paced.hear([-5.0, -3.0, -1.0], [-1.0, -3.0, -5.0], L_FLOOR, TAU)
    after = [ids(paced.batch(step)) for step in range(6)]
    assert before != after
    assert START[np.concatenate(before)].mean() > START[np.concatenate(after)].mean()


def test_a_sample_starts_with_the_mean_of_its_rejected_responses_per_token() -> None:
    """Words are tokens here."""
    collator: Any = SimpleNamespace(response_ids=str.split)
    samples = [
        Sample("a", "a", "a.png", "?", "yes", ("one two", "one two three four")),
        Sample("b", "b", "b.png", "?", "yes", ("one",)),
    ]
    reference: Any = {
        name: SimpleNamespace(terms={"chosen": (-1.0,), "rejected": logps})
        for name, logps in {"b": (-7.0,), "a": (-3.0, -10.0)}.items()
    }
    found = starting_mean_logps(samples, reference, collator)
    assert found.tolist() == [pytest.approx((-3 / 2 - 10 / 4) / 2), -7.0]
