"""Preference losses against numbers derived by hand, METHOD.md's identities, their limits, and any numbers.

Closed forms used throughout: sigmoid(ln 3) = 3/4, so -log sigmoid(ln 3) = ln(4/3) with slope -1/4; sigmoid(2 ln 3) =
9/10; ln 3 apart in mean log-probability is a cooling weight of 3/4; at the floor the weight is 1/2. beta is 0.1, so a
difference of 10 ln 3 is a margin of ln 3.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from by_hand import gradients, leaf, pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.objectives import CwDpo, Dpo, FixedWeightDpo, FocalDpo, OpaDpo, VDpo
from cwdpo.objectives.cw_dpo import cooled_losses
from cwdpo.objectives.focal_dpo import focal_losses
from cwdpo.objectives.preference import Pairs, Term

LN3 = math.log(3)


def two_terms(chosen: list[float], rejected: list[float], logps: list[float], lengths: list[int]) -> Pairs:
    """Pairs with these differences to the reference and this policy log-probability of the rejected response."""
    return pairs({"chosen": chosen, "rejected": rejected}, {"rejected": logps}, lengths)


def losses_and_gradients(objective: Any, given: Pairs) -> tuple[list[float], list[float], list[float]]:
    """Losses, and the gradient of their sum in logp(y_w) and in logp(y_l)."""
    losses = objective.pair_losses(given).losses
    return (losses.tolist(), *gradients(losses, given.policy["chosen"], given.policy["rejected"]))


def assert_equal(one: Any, other: Any, given: Pairs) -> None:
    """The same losses and gradients."""
    for left, right in zip(losses_and_gradients(one, given), losses_and_gradients(other, given), strict=True):
        assert left == pytest.approx(right, rel=1e-6, abs=1e-12)


# ---- dpo


def test_dpo_loss_and_gradient() -> None:
    given = two_terms([10 * LN3 - 4, 0.0], [-4.0, 0.0], [-20.0, -9.0], [5, 3])
    losses, chosen, rejected = losses_and_gradients(Dpo(beta=0.1), given)
    assert losses == pytest.approx([math.log(4 / 3), math.log(2)])
    assert chosen == pytest.approx([-0.025, -0.05])  # -beta * (1 - sigmoid(m)): sigmoid 3/4, then 1/2
    assert rejected == pytest.approx([0.025, 0.05])
    assert Dpo(beta=0.1).pair_losses(given).measures == {}


# ---- cw_dpo


def test_cw_dpo_loss_and_gradient() -> None:
    # mean_logp of the rejected response: -3 + ln 3 and -3, so w_c is 3/4 and 1/2.
    given = two_terms([10 * LN3 - 3, 2.0], [-4.0, 4.0], [4 * (LN3 - 3), -9.0], [4, 3])
    result = CwDpo().pair_losses(given)
    assert result.measures["w_c"].tolist() == pytest.approx([0.75, 0.5])
    assert result.histograms["w_c"].tolist() == pytest.approx([0.75, 0.5])
    assert result.measures["filtered"].tolist() == [0.0, 0.0]
    losses, chosen, rejected = losses_and_gradients(CwDpo(), given)
    assert losses == pytest.approx([math.log(4 / 3), math.log(2)])  # margins ln 3 and 0
    assert chosen == pytest.approx([-0.025, -0.05])
    # +beta * (1 - sigmoid(m)) * w_c: w_c is detached, so no other term appears.
    assert rejected == pytest.approx([0.025 * 0.75, 0.05 * 0.5])


def any_pairs(count: int) -> tuple[Pairs, list[tuple[float, float, float]]]:
    """Pairs, and of each of them delta_w, delta_l and the mean log-probability of its rejected response."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    means, delta_w, delta_l = (5 * torch.randn(3, count, generator=generator, dtype=torch.float64)).tolist()
    means = [-abs(mean) for mean in means]
    logps = [mean * length for mean, length in zip(means, lengths, strict=True)]
    return two_terms(delta_w, delta_l, logps, lengths), list(zip(delta_w, delta_l, means, strict=True))


@pytest.mark.parametrize(
    ("objective", "weight"),
    [
        (Dpo(beta=0.3), lambda mean: 1.0),
        (FixedWeightDpo(beta=0.3, weight=0.7), lambda mean: 0.7),
        (CwDpo(beta=0.3, filter="keep", l_floor=-2.0, tau=0.5), lambda mean: 1 / (1 + math.exp(-(mean + 2.0) / 0.5))),
    ],
)
def test_gradient_identities_hold_at_random_points(objective: Any, weight: Any) -> None:
    """The identities of METHOD.md, from a margin computed here."""
    given, numbers = any_pairs(50)
    _, chosen, rejected = losses_and_gradients(objective, given)
    for index, (delta_w, delta_l, mean) in enumerate(numbers):
        w_c = weight(mean)
        left = 1 - 1 / (1 + math.exp(-0.3 * (delta_w - w_c * delta_l)))
        assert chosen[index] == pytest.approx(-0.3 * left, abs=1e-12)
        assert rejected[index] == pytest.approx(0.3 * left * w_c, abs=1e-12)


def test_the_cooling_weight_has_an_upper_bound() -> None:
    certain = two_terms([0.0], [0.0], [0.0], [7])  # mean_logp 0, the largest there is
    assert CwDpo().pair_losses(certain).measures["w_c"].item() == pytest.approx(0.953, abs=5e-4)
    assert CwDpo(tau=5.0).pair_losses(certain).measures["w_c"].item() == pytest.approx(0.646, abs=5e-4)
    likely = two_terms([0.0] * 4, [0.0] * 4, [-0.01, -0.5, -2.0, -40.0], [1] * 4)
    weights = CwDpo().pair_losses(likely).measures["w_c"].tolist()
    assert 0.953 > weights[0] > weights[1] > weights[2] > weights[3] == 0.0


@pytest.mark.parametrize(
    ("mode", "loss", "weight", "chosen", "rejected"),
    [
        # delta_w = 10 ln 3, so without the rejected term the margin is ln 3.
        ("zero", math.log(4 / 3), 0.0, -0.025, 0.0),
        ("drop", 0.0, 1 / 4, 0.0, 0.0),
        # w_c = sigmoid(-ln 3) = 1/4 and delta_l = 40 ln 3: the margin is 0.
        ("keep", math.log(2), 1 / 4, -0.05, 0.05 / 4),
    ],
)
def test_filter_modes(mode: str, loss: float, weight: float, chosen: float, rejected: float) -> None:
    given = two_terms([10 * LN3], [40 * LN3], [2 * (-3 - LN3)], [2])
    objective = CwDpo(filter=mode)
    measures = objective.pair_losses(given).measures
    assert measures["w_c"].item() == pytest.approx(weight)
    assert measures["filtered"].item() == 1.0
    losses, *found = losses_and_gradients(objective, given)
    assert losses == pytest.approx([loss])
    assert found[0] == pytest.approx([chosen])
    assert found[1] == pytest.approx([rejected])


@pytest.mark.parametrize("mode", ["zero", "drop", "keep"])
@pytest.mark.parametrize(
    ("margin", "tau", "border"), [(0.0, 1.0, -3.0), (1.0, 1.0, -4.0), (3.0, 1.0, -6.0), (1.0, 2.0, -5.0)]
)
def test_filtering_starts_strictly_under_the_margin(mode: str, margin: float, tau: float, border: float) -> None:
    given = two_terms([0.0] * 3, [0.0] * 3, [border - 0.001, border, border + 0.001], [1, 1, 1])
    result = CwDpo(filter=mode, filter_margin=margin, tau=tau).pair_losses(given)
    assert result.measures["filtered"].tolist() == [1.0, 0.0, 0.0]
    at_border = 1 / (1 + math.exp(margin))
    under = 0.0 if mode == "zero" else pytest.approx(at_border, abs=1e-3)
    assert result.measures["w_c"].tolist()[0] == under
    assert result.measures["w_c"].tolist()[1] == pytest.approx(at_border)
    assert result.losses.tolist() == pytest.approx([0.0 if mode == "drop" else math.log(2), math.log(2), math.log(2)])


# ---- fixed_weight_dpo


def test_fixed_weight_dpo_loss_and_gradient() -> None:
    # w = 1/2 and delta_l = -8: the margins are ln 3 and 0.
    given = two_terms([10 * LN3 - 4, -4.0], [-8.0, -8.0], [-1.0, -90.0], [1, 1])
    losses, chosen, rejected = losses_and_gradients(FixedWeightDpo(weight=0.5), given)
    assert losses == pytest.approx([math.log(4 / 3), math.log(2)])
    assert chosen == pytest.approx([-0.025, -0.05])
    assert rejected == pytest.approx([0.0125, 0.025])  # however likely the negative


# ---- focal_dpo


def test_focal_dpo_loss_and_gradient() -> None:
    given = two_terms([10 * LN3, 2.0], [0.0, 2.0], [-3.0, -3.0], [1, 1])
    measures = FocalDpo().pair_losses(given).measures
    assert measures["focal_weight"].tolist() == pytest.approx([1 / 16, 1 / 4])  # (1 - 3/4)^2 and (1 - 1/2)^2
    losses, chosen, rejected = losses_and_gradients(FocalDpo(), given)
    assert losses == pytest.approx([math.log(4 / 3) / 16, math.log(2) / 4])
    assert chosen == pytest.approx([-0.1 / 4 / 16, -0.1 / 2 / 4])  # the weight is detached
    assert rejected == pytest.approx([0.1 / 4 / 16, 0.1 / 2 / 4])


# ---- v_dpo


def seen_and_blank(logps: list[float], blank: list[float], deltas: list[float]) -> Pairs:
    """One pair: (y_w, y_l) with the image, without it, and differences to the reference."""
    return pairs(
        {"chosen": deltas[:1], "rejected": deltas[1:]},
        {"chosen": logps[:1], "rejected": logps[1:], "chosen|blank": blank[:1], "rejected|blank": blank[1:]},
    )


@pytest.mark.parametrize(
    ("gamma", "blank", "deltas"),
    [
        # guided(y_w) - ref = logp + 0.5 * (logp - blank) - ref = delta + 1; guided(y_l) - ref = delta + 2
        (1.5, [-9.0, -8.0], [10 * LN3 - 1, -2.0]),
        # 0.5 * logp + 0.5 * blank - ref = delta - 1, and delta - 2
        (0.5, [-9.0, -8.0], [10 * LN3 + 1, 2.0]),
    ],
)
def test_v_dpo_loss_and_gradient(gamma: float, blank: list[float], deltas: list[float]) -> None:
    given = seen_and_blank([-7.0, -4.0], blank, deltas)
    losses, chosen, rejected = losses_and_gradients(VDpo(gamma=gamma), given)
    assert losses == pytest.approx([math.log(4 / 3)])
    assert chosen == pytest.approx([-0.1 * gamma / 4])  # what is said without the image pulls at nothing
    assert rejected == pytest.approx([0.1 * gamma / 4])
    assert VDpo(gamma=gamma).pair_losses(given).measures["guidance"].tolist() == pytest.approx([2.0])


# ---- opa_dpo: beta 1/2; rewards ln 3 (truth), 0 (revised), -ln 3 (own); ln 3 and -ln 3 under the masked image.

ANSWERS = math.log(10 / 9) + math.log(4 / 3)  # truth 2 ln 3 above own, revised ln 3 above it
IMAGES = math.log(2) + math.log(4 / 3)  # truth as likely under the masked image, revised ln 3 more likely


def five_terms() -> Pairs:
    return pairs({
        "chosen": [2 * LN3], "revised": [0.0], "rejected": [-2 * LN3],
        "chosen|masked": [2 * LN3], "revised|masked": [-2 * LN3],
    })  # fmt: skip


@pytest.mark.parametrize(
    ("offset", "anchor", "truth", "revised"),
    [
        (0.0, math.log(4 / 3) + math.log(2), 1 / 4, 1 / 2),  # truth ln 3 above the offset, revised at it
        (LN3, math.log(2) + math.log(4 / 3), 1 / 2, 1 / 4),  # truth at the offset, revised ln 3 under it
    ],
)
def test_opa_dpo_loss_and_gradient(offset: float, anchor: float, truth: float, revised: float) -> None:
    given, objective = five_terms(), OpaDpo(beta=0.5, offset=offset)
    result = objective.pair_losses(given)
    parts = {name: values.item() for name, values in result.measures.items()}
    assert parts == pytest.approx({"loss_answers": ANSWERS, "loss_images": IMAGES, "loss_anchor": anchor})
    assert result.losses.tolist() == pytest.approx([ANSWERS + 0.2 * IMAGES + anchor])
    found = gradients(result.losses, *(given.policy[term] for term in objective.terms))
    assert dict(zip(objective.terms, (gradient for (gradient,) in found), strict=True)) == {
        "chosen": pytest.approx(-0.5 * (1 / 10 + 0.2 / 2 + truth)),
        "rejected": pytest.approx(0.5 * (1 / 10 + 1 / 4)),
        "revised": pytest.approx(-0.5 * (1 / 4 + 0.2 / 4 - revised)),
        "chosen|masked": pytest.approx(0.5 * 0.2 / 2),
        "revised|masked": pytest.approx(0.5 * 0.2 / 4),
    }


def test_opa_dpos_weights_weigh_their_parts() -> None:
    losses = OpaDpo(beta=0.5, image_weight=3.0, anchor_weight=2.0).pair_losses(five_terms()).losses
    assert losses.tolist() == pytest.approx([ANSWERS + 3 * IMAGES + 2 * (math.log(4 / 3) + math.log(2))])


@pytest.mark.parametrize(
    ("sentences", "weight"),
    [
        ([], 1.0),
        ([(1, False)], 2.5),
        ([(2, False)], 2.0),
        ([(3, False)], 1.5),
        ([(4, False)], 1.0),
        ([(1, True)], 7.5),
        ([(4, False), (2, True)], 3.5),  # (1 + 3 * 2) / 2
    ],
)
def test_opa_dpo_weighs_a_pair_by_its_sentences(sentences: list[tuple[int, bool]], weight: float) -> None:
    assert OpaDpo().pair_weight(sentences) == pytest.approx(weight)


def test_others_weigh_all_pairs_alike() -> None:
    assert Dpo().pair_weight([(1, True)]) == 1.0


# ---- limits: one objective becomes another.


@pytest.mark.parametrize(
    ("limit", "objective"),
    [
        (FixedWeightDpo(weight=1.0), Dpo()),
        (CwDpo(l_floor=-1e6, filter="keep"), Dpo()),
        (CwDpo(tau=1e9, filter="keep"), FixedWeightDpo(weight=0.5)),
        (CwDpo(tau=1e9), FixedWeightDpo(weight=0.5)),  # then the filter reaches no negative
        (FocalDpo(gamma=0.0), Dpo()),
        (VDpo(gamma=1.0), Dpo()),
    ],
)
def test_limits(limit: Any, objective: Any) -> None:
    assert_equal(limit, objective, any_pairs(20)[0])


def test_v_dpo_with_gamma_1_asks_for_no_blank_image() -> None:
    assert VDpo(gamma=1.0).still_terms == ()
    assert VDpo().still_terms == ("chosen|blank", "rejected|blank")
    assert VDpo(gamma=1.0).pair_losses(any_pairs(3)[0]).measures == {}


def test_opa_dpo_with_own_answers_for_revised_ones_and_the_rest_off_is_dpo() -> None:
    chosen, own = [3.0, -2.0, 40.0], [1.0, 5.0, 0.0]
    given = pairs({"chosen": chosen, "rejected": own, "revised": own, "chosen|masked": own, "revised|masked": own})
    losses = OpaDpo(image_weight=0.0, anchor_weight=0.0).pair_losses(given).losses
    # Beside it stands revised > own, -log sigmoid(0) each.
    assert losses.tolist() == pytest.approx([loss + math.log(2) for loss in Dpo().pair_losses(given).losses.tolist()])


# ---- gradients against finite differences, what is detached held fixed.


def checked(function: Any, *inputs: Any) -> bool:
    return torch.autograd.gradcheck(function, inputs)


def with_policy(given: Pairs, terms: tuple[Term, ...], logps: tuple[Any, ...]) -> Pairs:
    return Pairs({**given.policy, **dict(zip(terms, logps, strict=True))}, given.reference, given.lengths)


def blank_too() -> Pairs:
    deltas, logps = [[4.0, -3.0, 12.0], [-1.0, 6.0, 2.0]], [[-6.0, -4.0, -5.0], [-8.0, -2.0, -7.0]]
    return pairs(
        dict(zip(("chosen", "rejected"), deltas, strict=True)),
        dict(zip(("chosen|blank", "rejected|blank"), logps, strict=True)),
    )


def five_of_three() -> Pairs:
    generator = torch.Generator().manual_seed(4)
    return pairs({term: (9 * torch.randn(3, generator=generator)).tolist() for term in OpaDpo().terms})


@pytest.mark.parametrize(
    ("objective", "given"),
    [
        (Dpo(), any_pairs(4)[0]),
        (FixedWeightDpo(), any_pairs(4)[0]),
        (VDpo(), blank_too()),
        (OpaDpo(offset=0.4), five_of_three()),
    ],
)
def test_gradients_of_pair_losses(objective: Any, given: Pairs) -> None:
    def losses(*logps: Any) -> Any:
        return objective.pair_losses(with_policy(given, objective.terms, logps)).losses

    assert checked(losses, *(given.policy[term] for term in objective.terms))


def test_gradients_of_cooled_losses_at_a_fixed_weight() -> None:
    given, weight = any_pairs(4)[0], torch.tensor([0.1, 0.5, 0.9, 0.0]).double()

    def losses(*logps: Any) -> Any:
        return cooled_losses(with_policy(given, Dpo().terms, logps), weight, 0.3)

    assert checked(losses, *(given.policy[term] for term in Dpo().terms))


def test_gradients_of_focal_losses_at_a_fixed_weight() -> None:
    weight = torch.tensor([0.1, 0.5, 1.0]).double()
    assert checked(lambda margin: focal_losses(margin, weight), leaf(-2.0, 0.0, 3.0))


def both_terms(given: Pairs) -> tuple[Any, Any]:
    return given.policy["chosen"], given.policy["rejected"]


@pytest.mark.parametrize("mode", ["zero", "drop", "keep"])
def test_no_gradient_flows_through_the_cooling_weight(mode: str) -> None:
    given, _ = any_pairs(20)
    result = CwDpo(filter=mode).pair_losses(given)
    weight = result.measures["w_c"]
    assert not weight.requires_grad
    kept = torch.ones(20) if mode != "drop" else 1 - result.measures["filtered"]
    expected = gradients(kept * cooled_losses(given, weight, 0.1), *both_terms(given))
    for found, fixed in zip(gradients(result.losses, *both_terms(given)), expected, strict=True):
        assert found == pytest.approx(fixed, abs=1e-15)


def test_no_gradient_flows_through_the_focal_weight() -> None:
    given, _ = any_pairs(20)
    result = FocalDpo().pair_losses(given)
    weight = result.measures["focal_weight"]
    assert not weight.requires_grad
    margin = 0.1 * (given.delta_chosen - given.delta_rejected)
    expected = gradients(focal_losses(margin, weight), *both_terms(given))
    for found, fixed in zip(gradients(result.losses, *both_terms(given)), expected, strict=True):
        assert found == pytest.approx(fixed, abs=1e-15)


# ---- what each asks of the data and of the forward pass.


@pytest.mark.parametrize(
    ("objective", "terms", "requires", "masked_share"),
    [
        *((kind(), ("chosen", "rejected"), set(), None) for kind in (Dpo, CwDpo, FixedWeightDpo, FocalDpo, VDpo)),
        (OpaDpo(masked=0.4), ("chosen", "rejected", "revised", "chosen|masked", "revised|masked"), {"revised"}, 0.4),
    ],
)
def test_what_it_asks_for(objective: Any, terms: tuple, requires: set, masked_share: float | None) -> None:
    assert objective.terms == terms
    assert objective.requires == requires
    assert objective.masked_share == masked_share
    assert isinstance(objective, VDpo) or objective.still_terms == ()


# ---- properties: any log-probabilities down to -1e4 under policy and reference, in the float32 of a run.

ANY = settings(derandomize=True, database=None, deadline=None, max_examples=30)
TERMS: tuple[Term, ...] = (*OpaDpo().terms, "chosen|blank", "rejected|blank")
LOGPS = st.tuples(*[st.floats(-1e4, 0, width=32)] * len(TERMS))
ROWS = st.lists(st.tuples(LOGPS, LOGPS, st.integers(1, 50)), min_size=1, max_size=6)

ALL = [
    Dpo(), CwDpo(), CwDpo(filter="drop"), CwDpo(filter="keep", l_floor=-9.0), FixedWeightDpo(), FocalDpo(),
    FocalDpo(gamma=0.5), VDpo(), VDpo(gamma=0.3), OpaDpo(offset=2.0),
]  # fmt: skip


def named(value: Any) -> str | None:
    return getattr(value, "name", None)


def gathered(rows: list[tuple]) -> Pairs:
    """Pairs of rows: logps of the policy, of the reference, and the length of the rejected response."""
    policy, reference, lengths = zip(*rows, strict=True)
    ours, theirs = (dict(zip(TERMS, torch.tensor(values).T, strict=True)) for values in (policy, reference))
    trained = {term: ours[term].clone().requires_grad_(not term.endswith("|blank")) for term in TERMS}
    return Pairs(trained, theirs, {"rejected": torch.tensor(lengths).float()})


@pytest.mark.parametrize("objective", ALL, ids=named)
@ANY
@given(rows=ROWS)
def test_losses_are_finite_and_never_negative(objective: Any, rows: list[tuple]) -> None:
    given_pairs = gathered(rows)
    result = objective.pair_losses(given_pairs)
    assert result.losses.shape == (len(rows),)
    assert torch.isfinite(result.losses).all()
    assert (result.losses >= 0).all()
    found = gradients(result.losses, *(given_pairs.policy[term] for term in objective.terms))
    assert torch.isfinite(torch.tensor(found)).all()


@pytest.mark.parametrize("objective", ALL, ids=named)
@ANY
@given(rows=ROWS)
def test_measures_are_detached_and_of_every_pair(objective: Any, rows: list[tuple]) -> None:
    result = objective.pair_losses(gathered(rows))
    for values in (*result.measures.values(), *result.histograms.values()):
        assert values.shape == (len(rows),)
        assert not values.requires_grad
        assert torch.isfinite(values).all()
    for values in result.histograms.values():
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("objective", ALL, ids=named)
@ANY
@given(rows=ROWS, data=st.data())
def test_a_pairs_loss_depends_on_no_other_pair(objective: Any, rows: list[tuple], data: Any) -> None:
    """So the order of pairs permutes their losses, and micro-batches change none."""
    together = objective.pair_losses(gathered(rows)).losses
    order = data.draw(st.permutations(range(len(rows))))
    permuted = objective.pair_losses(gathered([rows[index] for index in order])).losses
    assert torch.allclose(permuted, together[order], rtol=1e-6)
    alone = torch.cat([objective.pair_losses(gathered([row])).losses for row in rows])
    assert torch.allclose(alone, together, rtol=1e-6)


@pytest.mark.parametrize("objective", [Dpo(), FixedWeightDpo(), CwDpo(filter="keep"), VDpo(gamma=1.0)], ids=named)
@ANY
@given(rows=ROWS)
def test_gradients_are_bounded_by_beta_and_have_their_sign(objective: Any, rows: list[tuple]) -> None:
    given_pairs = gathered(rows)
    _, chosen, rejected = losses_and_gradients(objective, given_pairs)
    assert all(-0.1 - 1e-7 <= gradient <= 0 for gradient in chosen)
    assert all(0 <= gradient <= 0.1 + 1e-7 for gradient in rejected)


# ---- values without meaning.


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (Dpo, {"beta": 0}, r"beta: Input should be greater than 0; found 0"),
        (CwDpo, {"tau": -1}, r"tau: Input should be greater than 0; found -1"),
        (CwDpo, {"filter": "none"}, r"filter: .*'zero', 'drop' or 'keep'; found 'none'"),
        (CwDpo, {"filter_margin": -0.1}, r"filter_margin: .* greater than or equal to 0"),
        (FixedWeightDpo, {"weight": -0.1}, r"weight: .* greater than or equal to 0"),
        (FocalDpo, {"gamma": -1}, r"gamma: .* greater than or equal to 0; found -1"),
        (VDpo, {"gamma": 0}, r"gamma: Input should be greater than 0; found 0"),
        (VDpo, {"gamma": -1.5}, r"gamma: Input should be greater than 0; found -1.5"),
        (OpaDpo, {"masked": 1}, r"masked: Input should be less than 1; found 1"),
        (OpaDpo, {"masked": 0}, r"masked: Input should be greater than 0; found 0"),
        (OpaDpo, {"image_weight": -1}, r"image_weight: .* greater than or equal to 0"),
        (OpaDpo, {"anchor_weight": -1}, r"anchor_weight: .* greater than or equal to 0"),
    ],
)
def test_values_without_meaning_are_refused(kind: Any, content: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(kind, content, "grid.yaml")
