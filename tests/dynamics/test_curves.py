"""Curves of probes against what pandas is not asked for: loops in float64, scikit-learn, and numbers by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import entr, expit
from sklearn.calibration import calibration_curve

from cwdpo.dynamics.curves import BINS, calibration, calibration_at, curve, pairs
from cwdpo.dynamics.probing import probes_in_memory
from cwdpo.dynamics.rows import GRADES, KINDS, TOP, Probes, read_probes, write_probes
from cwdpo.dynamics.settings import Cooling
from cwdpo.objectives.cw_dpo import CwDpo
from cwdpo.objectives.dpo import Dpo
from cwdpo.objectives.preference import Pairs, Preference

ANY = settings(derandomize=True, database=None, deadline=None, max_examples=100)
WORDS, BETA = 9, 0.5
COOLING = Cooling(l_floor=-2.0, tau=0.7)
Sample = Mapping[str, Any]


def sample(name: str, kinds: Sequence[str], chance: np.random.Generator) -> dict[str, Any]:
    """What one sample's probe finds at one step, of numbers that no policy gives, of any size a policy may give."""
    lengths = [int(chance.integers(1, 7)) for _ in kinds]
    responses = {
        kind: [length, -length * chance.exponential(2), length * chance.uniform(0, 2)]
        for kind, length in zip(kinds, lengths, strict=True)
    }
    p = chance.dirichlet(np.full(WORDS, 0.3), lengths[0])
    order = np.argsort(-p, axis=1)[:, :TOP]
    truth = np.where(chance.random(len(p)) < 0.6, order[:, 0], chance.integers(0, WORDS, len(p)))
    tokens = {
        "token": truth.tolist(),
        "logp": np.log(np.take_along_axis(p, truth[:, None], 1)[:, 0]).tolist(),
        "entropy": entr(p).sum(1).tolist(),
        "tv": chance.uniform(0, 1, len(p)).tolist(),
        "js": chance.uniform(0, math.log(2), len(p)).tolist(),
        "top_tokens": order.tolist(),
        "top_probs": np.take_along_axis(p, order, 1).tolist(),
    }
    return {"id": name, "responses": responses, "tokens": tokens}


def points(seed: int = 0, steps: Sequence[int] = (0, 10, 20), missing: Iterable[str] = ()) -> dict[int, list[Sample]]:
    """Probes of seven samples; every other one lacks the kinds `missing`."""
    chance = np.random.default_rng(seed)
    kinds = [[kind for kind in KINDS if number % 2 == 0 or kind not in missing] for number in range(7)]
    return {step: [sample(f"s{number}", kinds[number], chance) for number in range(7)] for step in steps}


def probes(found: Mapping[int, Sequence[Sample]], beta: float = BETA) -> Probes:
    return probes_in_memory(found, {"beta": beta, "steps": list(found), "seconds": 0.0}, COOLING)


# ---------------------------------------------------------------------------------------------------------------------
# Every column of the curve, from what was probed and not from its rows


def expected(found: Mapping[int, Sequence[Sample]], step: int) -> dict[str, float]:
    """Every column of a step, in plain loops over samples, pairs and tokens."""
    values: dict[str, list[float]] = defaultdict(list)
    for one, start in zip(found[step], found[0], strict=True):
        for kind, (length, logp, _) in one["responses"].items():
            values[f"mean_logp_{kind}"].append(logp / length)
            values[f"delta_logp_{kind}"].append(logp - start["responses"][kind][1])
        for grade in (grade for grade in GRADES if grade in one["responses"]):
            add_pair(values, one["responses"], start["responses"], grade)
        add_tokens(values, one["tokens"])
    pulls = {f"{name}_variance": pvariance(values[name]) for name in values if name.startswith("loser_gradient")}
    return {**{name: fmean(column) for name, column in values.items()}, **pulls, "ece": ece_of(found[step])}


def add_pair(values: dict[str, list[float]], now: Mapping[str, Any], start: Mapping[str, Any], grade: str) -> None:
    """Numbers of a chosen response and a graded negative."""
    length, logp, residual = now[grade]
    won, lost = (now[kind][1] - start[kind][1] for kind in ("chosen", grade))
    weight = expit((logp / length - COOLING.l_floor) / COOLING.tau)
    a = expit(BETA * (won - lost))
    values["margin"].append(won - lost)
    values[f"margin_{grade}"].append(won - lost)
    values["accuracy"].append(0.5 if abs(won - lost) <= 1e-4 else float(won > lost))
    values["vulnerable"].append(float(0.8 <= a <= 0.99))
    values[f"w_c_{grade}"].append(weight)
    values["loser_gradient_dpo"].append(BETA * (1 - a) * math.sqrt(residual))
    cooled = expit(BETA * (won - weight * lost))
    values["loser_gradient_cw_dpo"].append(BETA * weight * (1 - cooled) * math.sqrt(residual))


def add_tokens(values: dict[str, list[float]], tokens: Mapping[str, Any]) -> None:
    """Means over the tokens of a true answer."""
    first = [probs[0] for probs in tokens["top_probs"]]
    values["top1"].append(fmean(first))
    values["top5"].append(fmean(sum(probs) for probs in tokens["top_probs"]))
    values["mean_logp_argmax"].append(fmean(map(math.log, first)))
    for name in ("entropy", "tv", "js"):
        values[name].append(fmean(tokens[name]))


def ece_of(samples: Sequence[Sample]) -> float:
    """Over all tokens of a step."""
    confidence, correct = [], []
    for one in samples:
        for token, top, probs in zip(
            *(one["tokens"][key] for key in ("token", "top_tokens", "top_probs")), strict=True
        ):
            confidence.append(probs[0])
            correct.append(token == top[0])
    return by_sklearn(np.array(confidence), np.array(correct))


def by_sklearn(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: scikit-learn's means of the bins that are not empty, weighted with pandas' counts."""
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15, strategy="uniform")
    counts = pd.Series(pd.cut(confidence, np.linspace(0, 1, 16), include_lowest=True)).value_counts(sort=False)
    weights = counts[counts > 0].to_numpy()
    return float(np.average(np.abs(accuracy - mean), weights=weights))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("missing", [(), ("other",), ("shuffled", "other", "greedy")], ids=str)
def test_every_column_is_what_loops_over_the_probes_give(seed: int, missing: tuple[str, ...]) -> None:
    """A kind that some samples lack is averaged over those that have it."""
    found = points(seed, missing=missing)
    table = curve(probes(found))
    assert list(table.index) == [0, 10, 20]
    for step in found:
        assert dict(table.loc[step]) == pytest.approx(expected(found, step), abs=1e-9)


def test_files_give_the_curve_that_memory_gives(tmp_path: Path) -> None:
    """Up to the precision of the files."""
    found = points()
    memory = probes(found)
    write_probes(tmp_path, memory.responses.to_dict("records"), memory.tokens.to_dict("records"), memory.about)
    read = curve(read_probes([tmp_path]))
    pd.testing.assert_frame_equal(read, curve(memory), check_dtype=False, check_index_type=False, rtol=2e-5, atol=1e-5)


def test_the_first_step_alone_is_a_curve() -> None:
    """As it is when training begins: nothing has moved, no pair is won or lost."""
    found = points(steps=[0])
    table = curve(probes(found))
    assert dict(table.loc[0]) == pytest.approx(expected(found, 0), abs=1e-9)
    assert dict(table.loc[0, ["margin", "accuracy", "vulnerable", "delta_logp_chosen"]]) == {
        "margin": 0.0, "accuracy": 0.5, "vulnerable": 0.0, "delta_logp_chosen": 0.0,
    }  # fmt: skip


def test_steps_come_in_order_whatever_the_order_of_rows() -> None:
    found = points(steps=[0, 20, 10])
    table = curve(probes(found))
    assert list(table.index) == [0, 10, 20]
    assert table.loc[20, "margin"] == pytest.approx(expected(found, 20)["margin"])


def test_a_kind_that_no_sample_has_is_no_column() -> None:
    kinds = [kind for kind in KINDS if kind != "other"]
    chance = np.random.default_rng(0)
    table = curve(probes({step: [sample(name, kinds, chance) for name in "ab"] for step in (0, 5)}))
    assert not [name for name in table.columns if "other" in name]
    assert not table.isna().any(axis=None)


def test_a_grade_that_no_sample_has_leaves_the_other_ones() -> None:
    chance = np.random.default_rng(0)
    found = {step: [sample(name, ["chosen", "hard"], chance) for name in "ab"] for step in (0, 5)}
    table = curve(probes(found))
    assert dict(table.loc[5]) == pytest.approx(expected(found, 5), abs=1e-9)
    assert [name for name in table.columns if "medium" in name or "easy" in name] == []


# ---------------------------------------------------------------------------------------------------------------------
# Pairs, by hand


def samples(**responses: Mapping[str, Sequence[float]]) -> list[Sample]:
    """Samples with these responses at one step, and tokens of no interest."""
    tokens = sample("", ["chosen"], np.random.default_rng(0))["tokens"]
    return [{"id": name, "responses": given, "tokens": tokens} for name, given in responses.items()]


def by_hand() -> Probes:
    """Two pairs: [tokens, logp, residual] of each response at steps 0 and 10."""
    before = samples(
        one={"chosen": [2, -4.0, 1.0], "hard": [4, -7.0, 1.0]},
        two={"chosen": [2, -5.0, 1.0], "hard": [2, -6.0, 1.0]},
    )
    now = samples(
        one={"chosen": [2, -2.0, 1.0], "hard": [4, -8.0, 4.0]},
        two={"chosen": [2, -6.0, 1.0], "hard": [2, -4.0, 9.0]},
    )
    return probes({0: before, 10: now})


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_margins_weights_and_gradients_of_two_pairs_by_hand() -> None:
    rows = pairs(by_hand())
    now = rows[rows.step == 10].set_index("id")
    # Delta of the chosen one less that of the rejected one: 2 - (-1), and -1 - 2.
    assert now.margin.to_dict() == pytest.approx({"one": 3.0, "two": -3.0})
    assert now.a.to_dict() == pytest.approx({"one": sigmoid(1.5), "two": sigmoid(-1.5)})
    # Both mean log-probabilities are -2, which is l_floor.
    assert now.w_c.to_dict() == pytest.approx({"one": 0.5, "two": 0.5})
    assert now.residual.to_dict() == pytest.approx({"one": 4.0, "two": 9.0})
    assert now.gradient_dpo.to_dict() == pytest.approx({"one": 0.5 * sigmoid(-1.5) * 2, "two": 0.5 * sigmoid(1.5) * 3})
    # Cooled margins: 2 - (-1) / 2, and -1 - 2 / 2.
    assert now.gradient_cw_dpo.to_dict() == pytest.approx(
        {"one": 0.5 * 0.5 * sigmoid(-1.25) * 2, "two": 0.5 * 0.5 * sigmoid(1.0) * 3}
    )


def test_means_and_variances_of_two_pairs_by_hand() -> None:
    row = curve(by_hand()).loc[10]
    dpo = 0.5 * sigmoid(-1.5) * 2, 0.5 * sigmoid(1.5) * 3
    assert row.margin == pytest.approx(0.0)
    assert row.accuracy == 0.5
    assert row.vulnerable == 0.5, "sigmoid(1.5) is 0.82, sigmoid(-1.5) is 0.18"
    assert row.loser_gradient_dpo == pytest.approx(sum(dpo) / 2)
    assert row.loser_gradient_dpo_variance == pytest.approx((dpo[0] - dpo[1]) ** 2 / 4)
    assert row.mean_logp_chosen == pytest.approx((-1 - 3) / 2)
    assert row.delta_logp_hard == pytest.approx((-1 + 2) / 2)


@pytest.mark.parametrize(
    ("objective", "column"),
    [
        (Dpo(beta=BETA), "gradient_dpo"),
        (CwDpo(beta=BETA, l_floor=COOLING.l_floor, tau=COOLING.tau, filter="keep"), "gradient_cw_dpo"),
    ],
    ids=["dpo", "cw_dpo"],
)
def test_a_gradient_is_that_of_the_loss_in_the_logits_of_the_loser(objective: Preference, column: str) -> None:
    """By autograd, from the objective that is trained with."""
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    words = torch.tensor([4, 0, 9])
    logp = logits.log_softmax(1)
    lost = logp.gather(1, words[:, None]).sum()[None]
    reference = {"chosen": torch.tensor([-5.0]), "rejected": torch.tensor([-9.0])}
    lengths = {name: torch.tensor([3.0]) for name in reference}
    found = objective.pair_losses(Pairs({"chosen": torch.tensor([-4.0]), "rejected": lost}, reference, lengths))
    (slope,) = torch.autograd.grad(found.losses.sum(), logits)
    residual = ((torch.nn.functional.one_hot(words, 11) - logp.exp()) ** 2).sum().item()
    before = samples(one={"chosen": [3, -5.0, 1.0], "hard": [3, -9.0, 1.0]})
    now = samples(one={"chosen": [3, -4.0, 1.0], "hard": [3, lost.item(), residual]})
    row = pairs(probes({0: before, 1: now})).set_index("step").loc[1]
    assert row[column] == pytest.approx(float(slope.norm()), rel=1e-6)


def test_only_graded_negatives_have_weights_and_are_pairs() -> None:
    found = probes(points())
    graded = found.responses.kind.isin(GRADES)
    assert found.responses[~graded].w_c.isna().all()
    assert found.responses[graded].w_c.notna().all()
    rows = pairs(found)
    assert len(rows) == 3 * 7 * len(GRADES)
    assert set(rows.kind) == set(GRADES)
    assert [name for name in curve(found).columns if name.startswith("w_c_")] == ["w_c_easy", "w_c_hard", "w_c_medium"]


def won_by(*margins: float, beta: float = 1.0) -> pd.Series:
    """The curve at a step where pairs have these margins."""
    before, now = (
        samples(**{str(place): {"chosen": [1, won, 1.0], "hard": [1, 0.0, 1.0]} for place, won in enumerate(step)})
        for step in ([0.0] * len(margins), margins)
    )
    row: pd.Series = curve(probes({0: before, 1: now}, beta)).loc[1]
    return row


def test_a_margin_of_rounding_size_is_won_by_none() -> None:
    assert won_by(9e-5, -9e-5).accuracy == 0.5
    assert won_by(9e-5, 9e-5).accuracy == 0.5
    assert won_by(2e-4, 2e-4, 2e-4, -2e-4).accuracy == 0.75


def test_the_vulnerable_region_lies_between_its_edges() -> None:
    """a = sigmoid(beta margin); Remark 1: 0.8 to 0.99."""
    logit = [math.log(a / (1 - a)) for a in (0.79, 0.81, 0.985, 0.995)]
    assert [won_by(value).vulnerable for value in logit] == [0.0, 1.0, 1.0, 0.0]
    assert won_by(*logit).vulnerable == 0.5
    assert won_by(logit[1], beta=0.1).vulnerable == 0.0


def test_gradients_of_huge_margins_are_numbers() -> None:
    """Whichever side of the sigmoid is rounded to nothing."""
    row = won_by(-5000.0, 5000.0)
    assert row.loser_gradient_dpo == pytest.approx(0.5)
    assert row.loser_gradient_dpo_variance == pytest.approx(0.25)


# ---------------------------------------------------------------------------------------------------------------------
# Calibration


CONFIDENCE = st.one_of(
    st.floats(0, 1),
    st.integers(0, BINS).map(lambda edge: edge / BINS),
    st.integers(0, BINS).map(lambda edge: float(np.float32(edge / BINS))),
)


@ANY
@given(tokens=st.lists(st.tuples(CONFIDENCE, st.booleans()), min_size=1, max_size=40))
@example(tokens=[(edge / BINS, edge % 2 == 0) for edge in range(BINS + 1)])
def test_the_calibration_error_is_that_of_scikit_learns_bins(tokens: list[tuple[float, bool]]) -> None:
    confidence, correct = (np.array(column) for column in zip(*tokens, strict=True))
    found = calibration(confidence, correct)
    assert found.error == pytest.approx(by_sklearn(confidence, correct), abs=1e-12)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=BINS, strategy="uniform")
    filled = found.share > 0
    assert found.accuracy[filled] == pytest.approx(accuracy)
    assert found.confidence[filled] == pytest.approx(mean)
    assert np.isnan(found.accuracy[~filled]).all()
    assert np.isnan(found.confidence[~filled]).all()
    assert found.share.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("confidence", "place"),
    [(0.0, 0), (1e-300, 0), (1 / 15, 0), (np.nextafter(1 / 15, 1), 1), (0.2, 2), (0.6, 8), (14 / 15, 13), (1.0, 14)],
)
def test_a_bin_is_closed_at_its_right_end(confidence: float, place: int) -> None:
    assert calibration(np.array([confidence]), np.array([True])).share.argmax() == place


def test_in_single_precision_the_edges_are_where_its_numbers_lie() -> None:
    """0.2 in float32 is above the edge, 0.6 too, 0.4 too; 1 is 1."""
    given = np.array([0.2, 0.4, 0.6, 1.0], np.float32)
    assert calibration(given, given > 0).share.nonzero()[0].tolist() == [3, 6, 9, 14]


def test_an_error_by_hand() -> None:
    """Bins of 2 and 1 of 3 tokens, off by |1/2 - 0.95| and |1 - 0.5|."""
    found = calibration(np.array([0.94, 0.96, 0.5]), np.array([True, False, True]))
    assert found.error == pytest.approx(2 / 3 * 0.45 + 1 / 3 * 0.5)


def test_the_calibration_of_a_step_is_that_of_its_tokens_alone() -> None:
    found = points()
    for step, row in curve(probes(found)).iterrows():
        assert calibration_at(probes(found), int(str(step))).error == pytest.approx(row["ece"])
        assert row["ece"] == pytest.approx(ece_of(found[int(str(step))]))
