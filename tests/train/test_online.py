"""The order of on-policy training, and its shares: micro-batches and ranks add up to the loss of the global batch."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.encoding import Group
from cwdpo.data.samples import Sample
from cwdpo.model.logps import Scores
from cwdpo.model.micro import Member, cut, filled_up, rank_share
from cwdpo.objectives import Grpo, Ppo
from cwdpo.train.config import Optimization, TrainingSpec
from cwdpo.train.online import Lesson, OnlineTask, PhaseOrder
from cwdpo.train.settings import Stage2
from cwdpo.train.task import Scored

PROMPTS = [Sample(f"{number}", f"{number}", "x.jpg", "?", "truth") for number in range(11)]


# ---- order


def order(prompts: int, batch_size: int, inner_epochs: int, seed: int = 0) -> PhaseOrder:
    spec = TrainingSpec.model_construct(optimization=Optimization(batch_size=batch_size), seed=seed)
    return PhaseOrder(PROMPTS, spec, prompts, inner_epochs)


def test_an_epoch_is_a_pass_over_the_prompts_phase_by_phase() -> None:
    """11 prompts, 8 a phase, batches of 3, twice: 2 * ceil(8 / 3) + 2 * ceil(3 / 3) = 8 steps."""
    found = order(8, 3, 2)
    assert found.steps_per_epoch == 8
    phases = [found.phase(step) for step in range(16)]
    places = [(phase.number, phase.start, phase.end) for phase in phases]
    assert places == [(0, 0, 6)] * 6 + [(1, 6, 8)] * 2 + [(2, 8, 14)] * 6 + [(3, 14, 16)] * 2
    assert [found.number(step) for step in range(16)] == [phase.number for phase in phases]
    for first in (0, 8):
        once = [*phases[first].prompts, *phases[first + 6].prompts]
        assert Counter(sample.id for sample in once) == Counter(sample.id for sample in PROMPTS)


def test_every_inner_epoch_takes_each_prompt_of_the_phase_once_in_an_order_of_its_own() -> None:
    found = order(8, 3, 2)
    batches = [[sample.id for sample in found.batch(step)] for step in range(6)]
    assert [len(batch) for batch in batches] == [3, 3, 2, 3, 3, 2]
    whole = {sample.id for sample in found.phase(0).prompts}
    inner = [list(chain(*batches[:3])), list(chain(*batches[3:]))]
    assert [set(ids) for ids in inner] == [whole, whole]
    assert inner[0] != inner[1]
    assert batches == [[sample.id for sample in order(8, 3, 2).batch(step)] for step in range(6)]
    assert batches != [[sample.id for sample in order(8, 3, 2, seed=1).batch(step)] for step in range(6)]


def test_more_prompts_than_there_are_make_one_phase() -> None:
    found = order(100, 4, 1)
    assert found.steps_per_epoch == 3
    assert [(found.phase(step).number, found.phase(step).end) for step in (0, 2, 3)] == [(0, 3), (0, 3), (1, 6)]


# ---- settings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"objective": {"name": "grpo"}, "negatives": {"source": "perturb"}}, "would not use negatives"),
        ({"objective": {"name": "ppo"}, "sft_phase": {"objective": {"name": "sft"}}}, "would not use sft_phase"),
        ({"objective": {"name": "continual_sft"}, "rollouts": {}}, "samples nothing: leave out rollouts"),
        ({"objective": {"name": "grpo"}, "rollouts": {"decoding": {"strategy": "greedy"}}}, "valid: sample"),
        (
            {"objective": {"name": "grpo"}, "rollouts": {"decoding": {"strategy": "sample", "candidates": 2}}},
            "objective.samples says",
        ),
        ({"objective": {"name": "grpo"}, "rollouts": {"prompts": 64}}, "64 do not fill one batch of 128"),
        ({"objective": {"name": "grpo"}, "rollouts": {"reward": {"name": "bleu"}}}, "valid: cider_d, exact_answer"),
    ],
)
def test_what_does_not_fit_together_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Stage2, content, "test")


def test_rollouts_have_defaults_for_objectives_that_sample() -> None:
    assert validate(Stage2, {"objective": {"name": "ppo"}}, "test").sampling is not None
    assert validate(Stage2, {"objective": {"name": "continual_sft"}}, "test").sampling is None


# ---- shares

LENGTHS = {"0": [1, 3], "1": [2, 2], "2": [4, 1], "3": [3, 3], "4": [1, 1]}
REWARDS = {"0": [1.0, 0.0], "1": [0.5, 0.5], "2": [0.0, 3.0], "3": [1.0, 2.0], "4": [4.0, 0.0]}
BATCH = PROMPTS[:5]


def numbers(prompt: str, place: int, kind: int) -> list[float]:
    """Any values, one per token."""
    return [math.sin(10 * int(prompt) + 3 * place + kind + token) for token in range(LENGTHS[prompt][place])]


def rows(names: tuple[str, ...]) -> list[dict[str, Any]]:
    def response(prompt: str, place: int) -> dict[str, Any]:
        about = {"tokens": [7] * LENGTHS[prompt][place], "reward": REWARDS[prompt][place], "truncated": place == 0}
        return about | {name: numbers(prompt, place, kind) for kind, name in enumerate(names)}

    return [{"id": prompt, "samples": [response(prompt, place) for place in range(2)]} for prompt in LENGTHS]


def task_of(objective: Any, compares: bool) -> OnlineTask:
    """A task in the middle of a phase."""
    rewardless = SimpleNamespace(reward=SimpleNamespace(judge=lambda inputs: None))
    task = OnlineTask(SimpleNamespace(inputs={}), objective, rewardless)  # type: ignore[arg-type]
    names = ("logps", "reference", *(["values"] if objective.reads.values else []))
    task._lesson = Lesson(objective, rows(names), compares)
    return task


def scores(prompts: list[Sample], logps: dict[str, list[Any]]) -> Scores:
    """What a model would have read: the leaves for log-probabilities, the same for values, 1 for the entropy."""
    values = [row for sample in prompts for row in logps[sample.id]]
    table = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
    lengths = torch.tensor([float(len(row)) for row in values])
    entropy = (torch.arange(table.shape[1]) < lengths[:, None]).float()
    return Scores({"logp": table, "value": table, "entropy": entropy}, lengths)


def total(task: OnlineTask, size: int, world: int) -> tuple[float, list[float], dict[str, float]]:
    """Sum over all micro-batches of all ranks, the gradient of every token, and the logged means."""
    leaves = {
        prompt: [torch.tensor(numbers(prompt, place, 5), requires_grad=True) for place in range(2)]
        for prompt in LENGTHS
    }
    count = math.ceil(math.ceil(len(BATCH) / world) / size)
    loss, logged = torch.zeros(()), Counter[str]()
    for rank in range(world):
        mine, weight = rank_share(BATCH, Rank(rank, rank, world))
        members = [
            Member(sample, [Group({"input_ids": torch.zeros(1, 2)}, tuple((0,) * n for n in LENGTHS[sample.id]))])
            for sample in mine
        ]
        members = [Member(member.sample, member.groups, (), weight) for member in members]
        for micro in filled_up(cut(members, Execution(micro_batch=size), lambda groups: 0), count):
            samples = [member.sample for member in micro]
            scored = Scored(samples, [member.weight for member in micro], scores(samples, leaves), BATCH)
            share, measured = task.share(scored, {})
            loss = loss + share
            logged.update({name: value.item() for name, value in measured.items()})
    loss.backward()
    gradient = [value for own in leaves.values() for leaf in own for value in leaf.grad.tolist()]
    return loss.item(), gradient, dict(logged)


@pytest.mark.parametrize("objective", [Grpo(samples=2), Ppo(samples=2)], ids=["grpo", "ppo"])
def test_shares_add_up_however_the_batch_is_cut(objective: Any) -> None:
    task = task_of(objective, compares=True)
    loss, gradient, logged = total(task, 5, 1)
    for size, world in [(1, 1), (2, 1), (3, 2), (1, 4), (2, 3), (7, 2)]:
        other, slopes, means = total(task, size, world)
        assert other == pytest.approx(loss, rel=1e-5)
        assert slopes == pytest.approx(gradient, rel=1e-4, abs=1e-7)
        assert means == pytest.approx(logged, rel=1e-4)
    assert logged["entropy"] == pytest.approx(1.0)
    assert max(map(abs, gradient)) > 1e-2


def test_the_loss_is_that_of_the_whole_batch_at_once() -> None:
    """GRPO over all ten responses, each token table laid out by hand."""
    objective = Grpo(samples=2)
    loss, _, logged = total(task_of(objective, compares=True), 2, 1)
    expected, kl, tokens = 0.0, 0.0, sum(map(sum, LENGTHS.values()))
    for prompt, lengths in LENGTHS.items():
        mean = sum(REWARDS[prompt]) / 2
        spread = math.sqrt(sum((reward - mean) ** 2 for reward in REWARDS[prompt]))
        for place, length in enumerate(lengths):
            advantage = (REWARDS[prompt][place] - mean) / (spread + 1e-4)
            now, old, reference = (numbers(prompt, place, kind) for kind in (5, 0, 1))
            for token in range(length):
                ratio = math.exp(now[token] - old[token])
                clipped = min(max(ratio, 0.8), 1.2)
                k3 = math.exp(reference[token] - now[token]) - (reference[token] - now[token]) - 1
                expected += (0.04 * k3 - min(ratio * advantage, clipped * advantage)) / length / 10
                kl += k3 / tokens
    assert loss == pytest.approx(expected, rel=1e-5)
    assert logged["kl"] == pytest.approx(kl, rel=1e-5)


@pytest.mark.parametrize("compares", [False, True])
def test_the_only_step_of_a_phase_has_ratios_of_exactly_1(compares: bool) -> None:
    leaves = {prompt: [torch.tensor(numbers(prompt, place, 5)) for place in range(2)] for prompt in LENGTHS}
    scored = Scored(BATCH, [1.0] * 5, scores(BATCH, leaves), BATCH)
    ratio = task_of(Grpo(samples=2), compares)._actions(scored).ratio
    assert bool((ratio == 1).all()) is not compares


def test_what_is_known_of_the_whole_phase_is_added_to_every_step() -> None:
    means = {"loss": 0.5}
    assert task_of(Grpo(samples=2), compares=True).finish(means, {}) == {}
    rewards = [reward for own in REWARDS.values() for reward in own]
    mean = sum(rewards) / 10
    assert means["reward"] == pytest.approx(mean)
    assert means["reward_std"] == pytest.approx(math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / 10))
    assert means["length"] == pytest.approx(21 / 10)
    assert means["truncated"] == 0.5
    assert means["zero_std_groups"] == pytest.approx(1 / 5)
