"""Supervised losses against numbers derived by hand, torch's cross-entropy, and properties that hold for any numbers.

Throughout: chosen logps -6 and -2 over 3 and 4 tokens (2 and 0.5 nats per token, on average 1.25); beside them logps
-3, -8 and -10 over 3, 4 and 5 tokens (1, 2 and 2 nats per token, on average 5/3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from by_hand import gradients, leaf, responses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.objectives import (
    ContinualSft,
    Nsft,
    Sft,
    SftC,
    SftCCeiling,
    SftCHard,
    SftEntropy,
    SftGentle,
    SftLabelSmoothing,
    SftRevised,
)
from cwdpo.objectives.supervised import Responses

ON, OFF = {"penalty_on": 1.0}, {"penalty_on": 0.0}
THIRDS = [1 / 9, 1 / 12, 1 / 15]
"""1/(3 L): gradient of the mean over three responses of the mean over tokens."""


def chosen_of(logps: Any, **other: Any) -> Responses:
    return responses({"logp": logps, **other}, [3, 4])


def beside_of(logps: Any, **other: Any) -> Responses:
    return responses({"logp": logps, **other}, [3, 4, 5])


def share_and_gradients(objective: Any, state: Any) -> tuple[float, list[float], list[float]]:
    """The loss at this file's numbers, and its gradients in the chosen logps and in those beside them."""
    chosen, beside = leaf(-6, -2), leaf(-3, -8, -10)
    share = objective.share(chosen_of(chosen), beside_of(beside), state)
    return (share.item(), *gradients(share, chosen, beside))


def times(factor: float, values: list[float]) -> Any:
    return pytest.approx([factor * value for value in values])


# ---- sft and continual_sft: one formula on different data.


@pytest.mark.parametrize("kind", [Sft, ContinualSft])
@pytest.mark.parametrize(
    ("reduction", "loss", "gradient"),
    [("token_mean", 1.25, [-1 / 6, -1 / 8]), ("sequence_sum", 4.0, [-1 / 2, -1 / 2])],
)
def test_sft_is_the_mean_over_responses(kind: Any, reduction: str, loss: float, gradient: list[float]) -> None:
    value, chosen, beside = share_and_gradients(kind(reduction=reduction), {})
    assert value == pytest.approx(loss)
    assert chosen == pytest.approx(gradient)
    assert beside == [0.0, 0.0, 0.0]


def test_a_padding_row_has_no_gradient() -> None:
    logps = leaf(-6, -2)
    share = Sft().share(responses({"logp": logps}, [3, 4], [1.0, 0.0], total=1), beside_of(leaf(0, 0, 0)), {})
    assert share.item() == pytest.approx(2.0)
    assert gradients(share, logps) == [pytest.approx([-1 / 3, 0.0])]


# ---- sft_c


def test_sft_c_loss_is_equation_4() -> None:
    objective = SftC(weight=0.1, floor=4.0)
    value, chosen, rejected = share_and_gradients(objective, ON)
    assert objective.penalty(5 / 3, ON) == pytest.approx(0.7 / 3)
    # E[nll(y+)] + lambda * (C - E[nll(y-)]) = 1.25 + 0.1 * 7/3
    assert value == pytest.approx(1.25 + 0.7 / 3)
    assert chosen == pytest.approx([-1 / 6, -1 / 8])
    assert rejected == times(0.1, THIRDS)  # descending makes negatives less likely


@pytest.mark.parametrize("kind", [SftC, SftCCeiling])
@pytest.mark.parametrize(("settings", "state"), [({}, OFF), ({"weight": 0.0}, ON)])
def test_with_the_penalty_off_or_lambda_0_it_is_sft(kind: Any, settings: dict, state: dict) -> None:
    assert share_and_gradients(kind(**settings), state) == share_and_gradients(Sft(), {})


def test_the_switch_follows_the_previous_steps_mean() -> None:
    objective = SftC(floor=4.0)
    assert objective.initial_state() == ON
    assert not objective.needs_batch_mean
    assert objective.next_state(OFF, 3.999) == ON
    assert objective.next_state(ON, 4.0) == OFF  # relu(0) = 0: nothing to push
    assert objective.next_state(ON, 4.001) == OFF
    assert (objective.penalty(4.0, ON), objective.penalty(9.0, ON)) == (0.0, 0.0)


@pytest.mark.parametrize("kind", [SftC, SftCCeiling])
def test_the_current_batch_can_be_asked_for(kind: Any) -> None:
    assert kind(constraint_estimate="current_batch").needs_batch_mean
    assert not kind().needs_batch_mean


# ---- sft_c_ceiling: the same with the sign of the constraint turned.


def test_sft_c_ceiling_pulls_unlikely_negatives_back() -> None:
    objective = SftCCeiling(weight=0.1, ceiling=1.0)
    value, chosen, rejected = share_and_gradients(objective, ON)
    assert value == pytest.approx(1.25 + 0.1 * (5 / 3 - 1.0))
    assert chosen == pytest.approx([-1 / 6, -1 / 8])
    assert rejected == times(-0.1, THIRDS)  # descending makes negatives more likely


def test_the_ceiling_switches_above_it() -> None:
    objective = SftCCeiling(ceiling=4.0)
    assert objective.initial_state() == ON
    assert objective.next_state(ON, 3.999) == OFF
    assert objective.next_state(ON, 4.0) == OFF
    assert objective.next_state(OFF, 4.001) == ON
    assert objective.penalty(9.0, ON) == pytest.approx(0.5)
    assert (objective.penalty(4.0, ON), objective.penalty(1.0, ON)) == (0.0, 0.0)


# ---- sft_c_hard


def test_sft_c_hard_loss_is_the_lagrangian() -> None:
    value, chosen, rejected = share_and_gradients(SftCHard(floor=4.0), {"multiplier": 3.0})
    assert value == pytest.approx(1.25 + 3 * 7 / 3)
    assert chosen == pytest.approx([-1 / 6, -1 / 8])
    assert rejected == times(3.0, THIRDS)


def test_dual_ascent_with_the_methods_numbers() -> None:
    """mu <- clip(mu + 0.05 * (4 - nll), 0, 10) from 0: up by 0.1, up by 0.15, down by 0.05, down past 0, up by 0.2."""
    objective = SftCHard()
    state = objective.initial_state()
    assert state == {"multiplier": 0.0}
    for nll, multiplier in [(2.0, 0.1), (1.0, 0.25), (5.0, 0.2), (9.0, 0.0), (0.0, 0.2), (4.0, 0.2)]:
        state = objective.next_state(state, nll)
        assert state == {"multiplier": pytest.approx(multiplier)}


def test_the_multiplier_stays_under_its_bound() -> None:
    objective = SftCHard(step=3.0, initial=2.0, largest=10.0)
    state = objective.next_state(objective.initial_state(), 2.0)
    assert state == {"multiplier": pytest.approx(8.0)}
    state = objective.next_state(state, 3.0)  # 8 + 3
    assert state == {"multiplier": 10.0}
    state = objective.next_state(state, 4.5)  # comes down from the bound at once: 10 - 1.5
    assert state == {"multiplier": pytest.approx(8.5)}
    assert SftCHard(initial=20.0, largest=10.0).initial_state() == {"multiplier": 10.0}


def test_the_hard_penalty_has_the_sign_of_the_gap() -> None:
    penalties = [SftCHard(floor=4.0).penalty(nll, {"multiplier": 2.0}) for nll in (1.0, 4.0, 5.0)]
    assert penalties == pytest.approx([6.0, 0.0, -2.0])


# ---- sft_entropy: entropies 1.5, 2 and 5 nats, so 0.5, 0.5 and 1 per token, on average 2/3.


@pytest.mark.parametrize(
    ("reduction", "loss", "gradient"),
    [("token_mean", 1.25 - 0.3 * 2 / 3, [-0.3 * third for third in THIRDS]),
     ("sequence_sum", 4.0 - 0.3 * 8.5 / 3, [-0.1, -0.1, -0.1])],
)  # fmt: skip
def test_sft_entropy_raises_the_entropy_along_negatives(reduction: str, loss: float, gradient: list[float]) -> None:
    chosen, rejected, entropies = leaf(-6, -2), leaf(-3, -8, -10), leaf(1.5, 2, 5)
    objective = SftEntropy(weight=0.3, reduction=reduction)
    share = objective.share(chosen_of(chosen), beside_of(rejected, entropy=entropies), {})
    assert share.item() == pytest.approx(loss)
    found = gradients(share, chosen, rejected, entropies)
    assert found[0] == gradients(Sft(reduction=reduction).share(chosen_of(chosen), beside_of(rejected), {}), chosen)[0]
    assert found[1] == [0.0, 0.0, 0.0]  # how likely negatives themselves are does not matter
    assert found[2] == pytest.approx(gradient)


# ---- smoothed labels: uniform -9 and -8 (3 and 2 nats per token), beside -9, -16 and -15 (3, 4 and 3).


def test_label_smoothing_by_hand() -> None:
    logps, uniform = leaf(-6, -2), leaf(-9, -8)
    share = SftLabelSmoothing(smoothing=0.2).share(chosen_of(logps, uniform=uniform), beside_of(leaf(0, 0, 0)), {})
    assert share.item() == pytest.approx(0.8 * 1.25 + 0.2 * 2.5)
    found = gradients(share, logps, uniform)
    assert found[0] == pytest.approx([-0.8 / 6, -0.8 / 8])
    assert found[1] == pytest.approx([-0.2 / 6, -0.2 / 8])


def test_sft_gentle_by_hand() -> None:
    chosen, rejected, uniform = leaf(-6, -2), leaf(-3, -8, -10), leaf(-9, -16, -15)
    objective = SftGentle(weight=0.05, smoothing=0.1)
    share = objective.share(chosen_of(chosen), beside_of(rejected, uniform=uniform), {})
    # E[smoothed ce(y-)] = 0.9 * 5/3 + 0.1 * 10/3 = 11/6
    assert share.item() == pytest.approx(1.25 + 0.05 * 11 / 6)
    found = gradients(share, chosen, rejected, uniform)
    assert found[0] == pytest.approx([-1 / 6, -1 / 8])
    assert found[1] == times(-0.05 * 0.9, THIRDS)
    assert found[2] == times(-0.05 * 0.1, THIRDS)


def test_label_smoothing_of_0_is_sft() -> None:
    logps = leaf(-6, -2)
    smoothed = SftLabelSmoothing(smoothing=0.0).share(chosen_of(logps, uniform=leaf(-9, -8)), beside_of(leaf()), {})
    plain = Sft().share(chosen_of(logps), beside_of(leaf()), {})
    assert smoothed.item() == plain.item()
    assert gradients(smoothed, logps) == gradients(plain, logps)


# ---- sft_revised and nsft: two kinds of responses, each with its own mean.


def test_sft_revised_learns_truth_and_revised_answers() -> None:
    value, chosen, revised = share_and_gradients(SftRevised(), {})
    assert value == pytest.approx(1.25 + 5 / 3)
    assert chosen == pytest.approx([-1 / 6, -1 / 8])
    assert revised == times(-1.0, THIRDS)


def test_nsft_learns_chosen_responses_and_dialogues() -> None:
    assert share_and_gradients(Nsft(), {}) == share_and_gradients(SftRevised(), {})


def test_nsft_without_chosen_learns_dialogues_alone() -> None:
    value, chosen, dialogues = share_and_gradients(Nsft(chosen=False), {})
    assert value == pytest.approx(5 / 3)
    assert chosen == [0.0, 0.0]
    assert dialogues == times(-1.0, THIRDS)


@pytest.mark.parametrize(
    ("chosen", "loss", "gradient"), [(True, 1.25 + 5 / 3 + 0.5 * 0.35, 0.5), (False, 5 / 3 + 0.5 * 0.2, 0.0)]
)
def test_nsft_keeps_near_the_policy_at_the_start(chosen: bool, loss: float, gradient: float) -> None:
    """KL 0.2 and 0.1 per token of chosen responses (0.15 on average), 0.1, 0.2 and 0.3 beside them (0.2)."""
    kl_chosen, kl_beside = leaf(0.6, 0.4), leaf(0.3, 0.8, 1.5)
    share = Nsft(chosen=chosen, kl=0.5).share(
        chosen_of(leaf(-6, -2), kl=kl_chosen), beside_of(leaf(-3, -8, -10), kl=kl_beside), {}
    )
    assert share.item() == pytest.approx(loss)
    found = gradients(share, kl_chosen, kl_beside)
    assert found[0] == times(gradient, [1 / 6, 1 / 8])
    assert found[1] == times(0.5, THIRDS)


# ---- sequence_sum: chosen responses have 6 and 2 nats (4 on average), those beside them 3, 8 and 10 (7).


@pytest.mark.parametrize(
    ("objective", "state", "loss", "gradient"),
    [
        (SftC(weight=0.5, floor=9.0, reduction="sequence_sum"), ON, 4 + 0.5 * (9 - 7), 0.5 / 3),
        (SftCCeiling(weight=0.5, ceiling=5.0, reduction="sequence_sum"), ON, 4 + 0.5 * (7 - 5), -0.5 / 3),
        (SftCHard(floor=9.0, reduction="sequence_sum"), {"multiplier": 3.0}, 4 + 3 * (9 - 7), 3 / 3),
        (SftRevised(reduction="sequence_sum"), {}, 4 + 7, -1 / 3),
        (Nsft(reduction="sequence_sum"), {}, 4 + 7, -1 / 3),
        (Nsft(chosen=False, reduction="sequence_sum"), {}, 7, -1 / 3),
    ],
)
def test_sums_over_tokens_when_asked(objective: Any, state: dict, loss: float, gradient: float) -> None:
    value, _, beside = share_and_gradients(objective, state)
    assert value == pytest.approx(loss)
    assert beside == pytest.approx([gradient] * 3)


def test_nsfts_divergence_is_summed_with_the_rest() -> None:
    chosen, beside = chosen_of(leaf(-6, -2), kl=leaf(0.6, 0.4)), beside_of(leaf(-3, -8, -10), kl=leaf(0.3, 0.8, 1.6))
    share = Nsft(kl=0.5, reduction="sequence_sum").share(chosen, beside, {})
    assert share.item() == pytest.approx(4 + 7 + 0.5 * (0.5 + 0.9))


# ---- what each asks of the data and of the forward pass.


@pytest.mark.parametrize(
    ("objective", "beside", "requires", "trained"),
    [
        (Sft(), None, set(), ("logp",)),
        (ContinualSft(), None, set(), ("logp",)),
        (SftC(), "rejected", set(), ("logp",)),
        (SftCHard(), "rejected", set(), ("logp",)),
        (SftCCeiling(), "rejected", set(), ("logp",)),
        (SftEntropy(), "rejected", set(), ("logp", "entropy")),
        (SftGentle(), "rejected", set(), ("logp", "uniform")),
        (SftLabelSmoothing(), None, set(), ("logp", "uniform")),
        (SftRevised(), "revised", {"revised"}, ("logp",)),
        (Nsft(), "dialogue", {"dialogue"}, ("logp",)),
        (Nsft(chosen=False, kl=0.1), "dialogue", {"dialogue"}, ("logp", "kl")),
    ],
)
def test_what_it_asks_for(objective: Any, beside: str | None, requires: set, trained: tuple) -> None:
    assert objective.beside == beside
    assert objective.requires == requires
    assert objective.reading.trained == trained
    assert objective.reading.observed == ()


@pytest.mark.parametrize("kind", [Sft, ContinualSft, SftEntropy, SftGentle, SftLabelSmoothing, SftRevised, Nsft])
def test_most_have_no_penalty_and_carry_nothing(kind: Any) -> None:
    assert kind().initial_state() == kind().next_state({}, 0.1) == {}
    assert kind().penalty(0.0, {}) is None
    assert not kind().needs_batch_mean


# ---- torch's cross-entropy on real logits, responses of several lengths.

WORDS = 7


def logits(*lengths: int) -> list[Any]:
    """Logits of each response, shape (L, WORDS)."""
    generator = torch.Generator().manual_seed(sum(lengths))
    return [2 * torch.randn(n, WORDS, generator=generator, dtype=torch.float64).requires_grad_() for n in lengths]


def targets(given: Sequence[Any]) -> list[Any]:
    return [torch.arange(len(response)) * 3 % WORDS for response in given]


START = torch.linspace(-1, 1, WORDS).double().log_softmax(-1)
"""What the policy at the start says, everywhere the same."""


def read(given: Sequence[Any]) -> Responses:
    """What a forward pass reads of these logits."""
    logs = [response.log_softmax(-1) for response in given]
    logps = [log.gather(1, target[:, None]).sum() for log, target in zip(logs, targets(given), strict=True)]
    sums = {
        "logp": torch.stack(logps),
        "uniform": torch.stack([log.mean(-1).sum() for log in logs]),
        "entropy": torch.stack([-(log.exp() * log).sum() for log in logs]),
        "kl": torch.stack([(log.exp() * (log - START)).sum() for log in logs]),
    }
    return responses(sums, [len(response) for response in given])


def torchs(given: Sequence[Any], smoothing: float, reduction: str) -> Any:
    """Mean over responses of torch's cross-entropy of one response: its mean over tokens, or its sum."""
    over_tokens = {"token_mean": "mean", "sequence_sum": "sum"}[reduction]
    losses = [
        cross_entropy(response, target, reduction=over_tokens, label_smoothing=smoothing)
        for response, target in zip(given, targets(given), strict=True)
    ]
    return torch.stack(losses).mean()


def assert_same(ours: Any, theirs: Any, leaves: list[Any]) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    mine, other = (torch.autograd.grad(loss, leaves) for loss in (ours, theirs))
    for left, right in zip(mine, other, strict=True):
        assert torch.allclose(left, right, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_sum"])
@pytest.mark.parametrize(
    ("objective", "smoothing"),
    [(Sft(), 0.0), (SftLabelSmoothing(), 0.1), (SftLabelSmoothing(smoothing=0.6), 0.6)],
)
def test_chosen_terms_are_torchs_cross_entropy(objective: Any, smoothing: float, reduction: str) -> None:
    given = logits(1, 3, 5)
    ours = objective.model_copy(update={"reduction": reduction}).share(read(given), read(logits(2)), {})
    assert_same(ours, torchs(given, smoothing, reduction), given)


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_sum"])
def test_sft_gentles_second_term_is_torchs_smoothed_cross_entropy(reduction: str) -> None:
    chosen, rejected = logits(1, 3, 5), logits(2, 6, 1, 4)
    ours = SftGentle(weight=0.2, smoothing=0.3, reduction=reduction).share(read(chosen), read(rejected), {})
    theirs = torchs(chosen, 0.0, reduction) + 0.2 * torchs(rejected, 0.3, reduction)
    assert_same(ours, theirs, chosen + rejected)


def test_sft_entropys_gradient_in_the_logits() -> None:
    """dH/dz_v = -p_v (log p_v + H), so the second term pulls by +eta/(R L) p_v (log p_v + H)."""
    rejected = logits(2, 6, 4)
    share = SftEntropy(weight=0.2).share(read(logits(1, 3)), read(rejected), {})
    for response, found in zip(rejected, torch.autograd.grad(share, rejected), strict=True):
        log = response.detach().log_softmax(-1)
        entropy = -(log.exp() * log).sum(-1, keepdim=True)
        assert torch.allclose(found, 0.2 / (3 * len(response)) * log.exp() * (log + entropy), atol=1e-13)


# ---- gradients in the logits against finite differences, what is carried (a switch, a multiplier) held fixed.


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_sum"])
@pytest.mark.parametrize(
    ("objective", "state"),
    [
        (SftC(weight=0.5), ON),
        (SftC(weight=0.5), OFF),
        (SftCHard(), {"multiplier": 3.0}),
        (SftGentle(weight=0.2, smoothing=0.3), {}),
        (SftEntropy(weight=0.2), {}),
        (SftLabelSmoothing(smoothing=0.2), {}),
        (Nsft(), {}),
        (Nsft(kl=0.5), {}),
    ],
)
def test_gradients_in_the_logits(objective: Any, state: dict, reduction: str) -> None:
    asked = objective.model_copy(update={"reduction": reduction})

    def share(*given: Any) -> Any:
        return asked.share(read(given[:2]), read(given[2:]), state)

    assert torch.autograd.gradcheck(share, (*logits(1, 3), *logits(2, 4, 3)))


# ---- properties: any log-probabilities down to -1e4, any number of responses.

ANY = settings(derandomize=True, database=None, deadline=None, max_examples=30)
ROW = st.fixed_dictionaries({
    "length": st.integers(1, 50), "logp": st.floats(-1e4, 0), "uniform": st.floats(-1e4, 0),
    "entropy": st.floats(0, 1e4), "kl": st.floats(0, 1e4),
})  # fmt: skip
CHOSEN, BESIDE = st.lists(ROW, min_size=1, max_size=6), st.lists(ROW, max_size=6)

NEVER_NEGATIVE = [
    Sft(), Sft(reduction="sequence_sum"), ContinualSft(), SftGentle(), SftLabelSmoothing(), SftRevised(), Nsft(),
    Nsft(chosen=False, kl=0.3),
]  # fmt: skip
ALL = [*NEVER_NEGATIVE, SftC(), SftC(reduction="sequence_sum"), SftCCeiling(), SftCHard(initial=2.0), SftEntropy()]


def named(value: Any) -> str | None:
    return getattr(value, "name", None)


def gathered(rows: list[dict], padding: list[dict] = (), total: int = 0) -> Responses:
    """These responses, then padding; `total` is that of the global batch if it has more."""
    every = [*rows, *padding]
    sums = {name: leaf(*(row[name] for row in every)) for name in ("logp", "uniform", "entropy", "kl")}
    weights = [1.0] * len(rows) + [0.0] * len(padding)
    lengths = [row["length"] for row in every]
    return Responses(sums, torch.tensor(lengths).double(), torch.tensor(weights).double(), total or len(rows))


def share_of(objective: Any, chosen: Responses, beside: Responses) -> Any:
    return objective.share(chosen, beside, objective.initial_state())


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("objective", ALL, ids=named)
@ANY
@given(chosen=CHOSEN, beside=BESIDE)
def test_every_loss_is_one_finite_number(objective: Any, chosen: list[dict], beside: list[dict]) -> None:
    share = share_of(objective, gathered(chosen), gathered(beside))
    assert share.shape == ()
    assert torch.isfinite(share)
    assert objective not in NEVER_NEGATIVE or share >= 0


@pytest.mark.parametrize("objective", ALL, ids=named)
@ANY
@given(chosen=CHOSEN, beside=BESIDE, padding=st.lists(ROW, min_size=1, max_size=3))
def test_padding_changes_nothing(
    objective: Any, chosen: list[dict], beside: list[dict], padding: list[dict]
) -> None:  # fmt: skip
    padded = gathered(chosen, padding), gathered(beside, padding)
    share = share_of(objective, *padded)
    assert share.item() == close(share_of(objective, gathered(chosen), gathered(beside)).item())
    for kind, rows in zip(padded, (chosen, beside), strict=True):
        for gradient in gradients(share, *kind.sums.values()):
            assert gradient[len(rows) :] == [0.0] * len(padding)


@pytest.mark.parametrize("objective", ALL, ids=named)
@ANY
@given(chosen=CHOSEN, beside=BESIDE, data=st.data())
def test_the_order_of_responses_does_not_matter(
    objective: Any, chosen: list[dict], beside: list[dict], data: Any
) -> None:  # fmt: skip
    shuffled = [gathered(data.draw(st.permutations(rows))) for rows in (chosen, beside)]
    assert share_of(objective, *shuffled).item() == close(
        share_of(objective, gathered(chosen), gathered(beside)).item()
    )


def parts(rows: list[dict], data: Any) -> list[Responses]:
    """The rows cut into three micro-batches anyhow; some may be empty."""
    where = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    cut = [[row for row, place in zip(rows, where, strict=True) if place == part] for part in range(3)]
    return [gathered(part, total=len(rows)) for part in cut]


@pytest.mark.parametrize("objective", ALL, ids=named)
@ANY
@given(chosen=CHOSEN, beside=BESIDE, data=st.data())
def test_shares_of_any_split_add_up(objective: Any, chosen: list[dict], beside: list[dict], data: Any) -> None:
    split = zip(parts(chosen, data), parts(beside, data), strict=True)
    shares = [share_of(objective, *micro).item() for micro in split]
    assert sum(shares) == close(share_of(objective, gathered(chosen), gathered(beside)).item())


@pytest.mark.parametrize("objective", [SftC(), SftCCeiling(), SftC(reduction="sequence_sum")], ids=named)
@ANY
@given(chosen=CHOSEN, beside=st.lists(ROW, min_size=1, max_size=6))
def test_switched_by_its_own_batch_the_loss_is_sft_and_the_penalty(
    objective: Any, chosen: list[dict], beside: list[dict]
) -> None:
    """Eq. 4 to the letter, whatever was switched before: the penalty is never below 0."""
    mean = gathered(beside).nll_share(objective.per_token).item()
    state = objective.next_state(OFF, mean)
    plain = gathered(chosen).nll_share(objective.per_token).item()
    share = objective.share(gathered(chosen), gathered(beside), state).item()
    assert share == close(plain + objective.penalty(mean, state))
    assert objective.penalty(mean, state) >= 0


# ---- values without meaning.


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (Sft, {"reduction": "mean"}, r"reduction: .*'token_mean' or 'sequence_sum'; found 'mean'"),
        (SftC, {"constraint_estimate": "batch"}, r"constraint_estimate: .*'previous_step' or 'current_batch'"),
        (SftCCeiling, {"constraint_estimate": "batch"}, r"constraint_estimate: .*'previous_step' or 'current_batch'"),
        (SftCHard, {"step": 0}, r"step: Input should be greater than 0; found 0"),
        (SftCHard, {"initial": -1}, r"initial: .* greater than or equal to 0; found -1"),
        (SftCHard, {"largest": 0}, r"largest: Input should be greater than 0; found 0"),
        (SftEntropy, {"weight": -0.1}, r"weight: .* greater than or equal to 0"),
        (SftGentle, {"weight": -0.1}, r"weight: .* greater than or equal to 0"),
        (SftGentle, {"smoothing": 1}, r"smoothing: Input should be less than 1; found 1"),
        (SftLabelSmoothing, {"smoothing": 1}, r"smoothing: Input should be less than 1; found 1"),
        (Nsft, {"kl": -0.1}, r"kl: .* greater than or equal to 0"),
    ],
)
def test_values_without_meaning_are_refused(kind: Any, content: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(kind, content, "grid.yaml")
