"""On-policy objectives on tables small enough to compute by hand: advantages, returns, losses, gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from cwdpo.objectives import Grpo, Ppo
from cwdpo.objectives.online import Actions, Experience

LOG2 = math.log(2)


def table(*rows: list[float]) -> Any:
    """Rows of numbers, filled up with zeros."""
    longest = max(map(len, rows))
    return torch.tensor([row + [0.0] * (longest - len(row)) for row in rows], dtype=torch.float64)


def mask(*lengths: int) -> Any:
    return table(*([1.0] * length for length in lengths))


def approx(*rows: list[float]) -> Any:
    return [pytest.approx(row) for row in rows]


# ---- grpo


def test_grpo_normalises_rewards_within_the_responses_of_one_prompt() -> None:
    rewards = torch.tensor([0.0, 2.0, 5.0, 5.0], dtype=torch.float64)
    targets = Grpo(samples=2).targets(Experience(rewards, mask(1, 3, 2, 2)))
    one = 1 / (math.sqrt(2) + 1e-4)  # mean 1, unbiased deviation sqrt(2)
    assert targets.advantages.tolist() == approx([-one, 0, 0], [one, one, one], [0, 0, 0], [0, 0, 0])
    assert targets.returns is None
    # Four responses: -one, one, 0, 0 have the unbiased variance 2 one^2 / 3.
    assert targets.measures == pytest.approx({"advantage_std": one * math.sqrt(2 / 3), "zero_std_groups": 0.5})


def actions(logps: Any, old: Any, advantages: Any, lengths: tuple[int, ...], **more: Any) -> Actions:
    return Actions(logps.requires_grad_(), old, advantages, mask(*lengths), **more)


# Ratios 2, 1, 1/2, 2; advantages 3, 3, -1, -1. Beyond 0.8 .. 1.2 a good action earns 1.2 A, and a bad one is as bad as
# 0.8 |A| at least; a bad action that became likelier counts in full.
OLD = table([-1.0, -2.0], [-1.0, -3.0])
LOGPS = table([-1.0 + LOG2, -2.0], [-1.0 - LOG2, -3.0 + LOG2])
ADVANTAGES = table([3.0, 3.0], [-1.0, -1.0])
SURROGATE = ([-3.6, -3.0], [0.8, 2.0])


def test_grpo_clips_ratios_and_adds_k3() -> None:
    reference = table([-1.0, -2.0], [-1.0, -3.0])
    given = actions(LOGPS.clone(), OLD, ADVANTAGES, (2, 2), reference=reference)
    found = Grpo(kl=0.5).token_losses(given)
    # k3 = q/p - log(q/p) - 1: for q/p = 1/2, 1, 2, 1/2.
    low, high = 0.5 + LOG2 - 1, 2 - LOG2 - 1
    k3 = ([low, 0.0], [high, low])
    expected = [[s + 0.5 * k for s, k in zip(*rows, strict=True)] for rows in zip(SURROGATE, k3, strict=True)]
    assert found.losses.tolist() == approx(*expected)
    assert found.measures["kl"].tolist() == approx(*k3)
    assert found.measures["ratio"].tolist() == approx([2.0, 1.0], [0.5, 2.0])
    assert found.measures["clip_fraction"].tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_the_gradient_is_cut_where_the_ratio_is_clipped() -> None:
    given = actions(LOGPS.clone(), OLD, ADVANTAGES, (2, 2))
    Grpo(kl=0.0).token_losses(given).losses.sum().backward()
    # d(-r A)/dlogp = -r A where nothing is clipped: 0, -1 * 3, 0, -2 * -1.
    assert given.logps.grad.tolist() == approx([0.0, -3.0], [0.0, 2.0])


def test_without_kl_nothing_is_asked_of_the_reference() -> None:
    found = Grpo(kl=0.0).token_losses(actions(LOGPS.clone(), OLD, ADVANTAGES, (2, 2)))
    assert found.losses.tolist() == approx(*SURROGATE)
    assert "kl" not in found.measures


def test_grpo_takes_means_over_tokens_then_over_responses_and_ppo_over_tokens() -> None:
    weights = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    # A micro-batch of a global batch of 4 responses with 10 tokens; the third row only fills up.
    by_response = Grpo().token_shares(mask(1, 3, 2), weights, 4, 10)
    by_token = Ppo().token_shares(mask(1, 3, 2), weights, 4, 10)
    assert by_response.tolist() == approx([1 / 4, 0, 0], [1 / 12, 1 / 12, 1 / 12], [0, 0, 0])
    assert by_token.tolist() == approx([0.1, 0, 0], [0.1, 0.1, 0.1], [0, 0, 0])


# ---- ppo


def test_ppo_advantages_and_returns_by_hand() -> None:
    """Two responses, of two tokens and of one; discount 1, lambda 1/2, kl 1/2.

    Rewards of tokens: (-0.5 * 0.2, 2 - 0.5 * -0.4) = (-0.1, 2.2), and 1 - 0.5 * 1 = 0.5.
    d_2 = 2.2 - 0.5 = 1.7, d_1 = -0.1 + 0.5 - 1 = -0.6; A_2 = 1.7, A_1 = -0.6 + 1.7 / 2 = 0.25; A of the other: 0.5 - 2.
    """
    experience = Experience(
        rewards=torch.tensor([2.0, 1.0], dtype=torch.float64),
        mask=mask(2, 1),
        old=table([-1.0, -2.0], [-3.0]),
        reference=table([-1.2, -1.6], [-4.0]),
        values=table([1.0, 0.5], [2.0]),
    )
    targets = Ppo(kl=0.5, gae_lambda=0.5).targets(experience)
    raw = [0.25, 1.7, -1.5]
    assert targets.returns is not None
    assert targets.returns.tolist() == approx([1.25, 2.2], [0.5, 0.0])
    mean = sum(raw) / 3
    variance = sum((value - mean) ** 2 for value in raw) / 2
    white = [(value - mean) / math.sqrt(variance + 1e-8) for value in raw]
    assert targets.advantages.tolist() == approx(white[:2], [white[2], 0.0])
    # Returns 1.25, 2.2, 0.5 less values 1, 0.5, 2 are the advantages again.
    returns = [1.25, 2.2, 0.5]
    total = sum((value - sum(returns) / 3) ** 2 for value in returns) / 2
    expected = {"advantage_std": math.sqrt(variance), "explained_variance": 1 - variance / total}
    assert targets.measures == pytest.approx(expected)


def test_ppo_discounts_and_needs_no_reference_without_kl() -> None:
    """One response of three tokens, values 0, discount 1/2, lambda 1: A_t = R / 2^(tokens to go)."""
    zeros = table([0.0, 0.0, 0.0])
    experience = Experience(torch.tensor([4.0]).double(), mask(3), old=zeros, values=zeros)
    targets = Ppo(kl=0.0, gae_lambda=1.0, discount=0.5).targets(experience)
    assert targets.returns is not None
    assert targets.returns.tolist() == approx([1.0, 2.0, 4.0])


def test_equal_advantages_are_whitened_to_nothing() -> None:
    zeros = table([0.0], [0.0])
    targets = Ppo(kl=0.0).targets(Experience(torch.ones(2).double(), mask(1, 1), old=zeros, values=zeros))
    assert targets.advantages.tolist() == approx([0.0], [0.0])
    assert targets.measures == {"advantage_std": 0.0, "explained_variance": 0.0}


def test_ppo_value_loss_is_clipped_and_weighed() -> None:
    """Values 1.0 -> 1.5 (moved too far towards 2), 1.0 -> 1.1, 1.0 -> 0.5 (moved away from 2); clip 0.2.

    Squares: max(0.5^2, 0.8^2), max(0.9^2, 0.9^2), max(1.5^2, 1.2^2), halved.
    """
    values = table([1.5, 1.1, 0.5]).requires_grad_()
    logps = table([-1.0, -1.0, -1.0])
    given = actions(
        logps, logps.detach().clone(), table([1.0, 1.0, 1.0]), (3,),
        values=values, old_values=table([1.0, 1.0, 1.0]), returns=table([2.0, 2.0, 2.0]),
    )  # fmt: skip
    found = Ppo(value_weight=0.5, value_clip=0.2).token_losses(given)
    assert found.measures["value_loss"].tolist() == approx([0.32, 0.405, 1.125])
    assert found.losses.tolist() == approx([-1 + 0.16, -1 + 0.2025, -1 + 0.5625])
    (gradient,) = torch.autograd.grad(found.losses.sum(), values)
    # Where the clipped square is the larger one nothing pulls: 0, 0.5 * -0.9, 0.5 * -1.5.
    assert gradient.tolist() == approx([0.0, -0.45, -0.75])


# ---- gradients against finite differences, what a phase has fixed (what sampled, advantages, returns) given.


@pytest.mark.parametrize("objective", [Grpo(kl=0.0), Grpo(kl=0.5), Ppo(value_weight=0.5, value_clip=0.5)])
def test_gradients_of_the_loss(objective: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    fixed = {name: torch.randn(4, 5, generator=generator).double() * mask(1, 5, 2, 4) for name in COLUMNS}
    given = Actions(**fixed, mask=mask(1, 5, 2, 4))
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    shares = objective.token_shares(given.mask, weights, 3, 8)

    def loss(logps: Any, values: Any) -> Any:
        return (objective.token_losses(replace(given, logps=logps, values=values)).losses * shares).sum()

    clipped = objective.token_losses(given).measures["clip_fraction"] * weights[:, None]
    assert 0 < clipped.sum() < 8, "on both sides of the clipping"
    assert torch.autograd.gradcheck(loss, (given.logps.requires_grad_(), given.values.requires_grad_()))


# ---- properties: any responses, up to twenty nats from the policy that sampled them.

ANY = settings(derandomize=True, database=None, deadline=None, max_examples=30)
COLUMNS = ("logps", "old", "reference", "advantages", "values", "old_values", "returns")
TOKEN = st.tuples(*[st.floats(-20, 0)] * 3, *[st.floats(-10, 10)] * 4)
RESPONSE = st.lists(TOKEN, min_size=1, max_size=4)
RESPONSES = st.lists(RESPONSE, min_size=1, max_size=5)
OBJECTIVES = [Grpo(), Grpo(kl=0.0), Ppo()]


def wider(found: Any, by: int) -> Any:
    """With columns in which no response has a token."""
    return torch.nn.functional.pad(found, (0, by))


def gathered(responses: Sequence[Sequence[tuple]], by: int = 0) -> Actions:
    """Tables of responses that are given token by token."""
    columns = [table(*([token[place] for token in one] for one in responses)) for place in range(len(COLUMNS))]
    found = dict(zip(COLUMNS, [wider(column, by) for column in columns], strict=True))
    return Actions(**found, mask=wider(mask(*map(len, responses)), by))


def loss_and_gradients(objective: Any, responses: list, padding: Sequence[Any] = (), by: int = 0) -> tuple[Any, ...]:
    """The loss of a global batch, and its gradients in log-probabilities and values. Shapes (), (R, L), (R, L)."""
    given = gathered([*responses, *padding], by)
    leaves = given.logps.requires_grad_(), given.values.requires_grad_()
    weights = torch.tensor([1.0] * len(responses) + [0.0] * len(padding)).double()
    shares = objective.token_shares(given.mask, weights, len(responses), sum(map(len, responses)))
    loss = (objective.token_losses(given).losses * shares).sum()
    return loss.detach(), *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


def assert_close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("objective", OBJECTIVES)
@ANY
@drawn(responses=RESPONSES, padding=st.lists(RESPONSE, max_size=3), by=st.integers(0, 2))
def test_padding_changes_nothing(objective: Any, responses: list, padding: list, by: int) -> None:
    """Neither columns that no response reaches, nor responses that only fill up a micro-batch."""
    loss, *expected = loss_and_gradients(objective, responses)
    padded, *found = loss_and_gradients(objective, responses, padding, by)
    assert torch.isfinite(loss)
    assert_close(padded, loss)
    for mine, alone in zip(found, expected, strict=True):
        rest = torch.zeros_like(mine)
        rest[: alone.shape[0], : alone.shape[1]] = alone
        assert_close(mine, rest)


@pytest.mark.parametrize("objective", OBJECTIVES)
@ANY
@drawn(responses=RESPONSES, data=st.data())
def test_the_order_of_responses_does_not_matter(objective: Any, responses: list, data: Any) -> None:
    order = data.draw(st.permutations(range(len(responses))))
    loss, *expected = loss_and_gradients(objective, responses)
    shuffled, *found = loss_and_gradients(objective, [responses[index] for index in order])
    assert_close(shuffled, loss)
    for mine, before in zip(found, expected, strict=True):
        assert_close(mine, before[order])


def experience(responses: Sequence[Sequence[tuple]], rewards: Sequence[float], by: int = 0) -> Experience:
    found = gathered(responses, by)
    values = {"old": found.old, "reference": found.reference, "values": found.values}
    return Experience(torch.tensor(rewards).double(), found.mask, **values)


def lessons(objective: Any, *given: Any, by: int = 0) -> list[Any]:
    """Advantages, and returns where there are any."""
    targets = objective.targets(experience(*given, by=by))
    return [found for found in (targets.advantages, targets.returns) if found is not None]


PAIRED = st.lists(st.tuples(RESPONSE, st.floats(-5, 5)), min_size=2, max_size=6).filter(lambda rows: len(rows) % 2 == 0)
"""Responses with their rewards, two to a prompt."""


@pytest.mark.parametrize("objective", [Grpo(samples=2), Ppo(samples=2)])
@ANY
@drawn(rows=PAIRED, by=st.integers(1, 2))
def test_padding_changes_no_target(objective: Any, rows: list, by: int) -> None:
    given = list(zip(*rows, strict=True))
    for found, expected in zip(lessons(objective, *given, by=by), lessons(objective, *given), strict=True):
        assert_close(found, wider(expected, by))


@pytest.mark.parametrize("objective", [Grpo(samples=2), Ppo(samples=2)])
@ANY
@drawn(rows=PAIRED, data=st.data())
def test_targets_do_not_depend_on_the_order(objective: Any, rows: list, data: Any) -> None:
    """Neither of prompts nor of the responses of a prompt."""
    prompts = data.draw(st.permutations(range(0, len(rows), 2)))
    order = [prompt + place for prompt in prompts for place in data.draw(st.permutations(range(2)))]
    before = lessons(objective, *zip(*rows, strict=True))
    after = lessons(objective, *zip(*(rows[index] for index in order), strict=True))
    for found, expected in zip(after, before, strict=True):
        assert_close(found, expected[order])
