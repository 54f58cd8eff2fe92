"""Micro-batches: every sample once, whatever the ranks, the cut and the lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.encoding import Group
from cwdpo.data.layout import apart_tokens, separate_tokens
from cwdpo.data.samples import Sample
from cwdpo.model.micro import Member, cut, filled_up, rank_share


def samples(count: int) -> list[Sample]:
    return [Sample(str(number), "", "", "", "") for number in range(count)]


def member(length: int, name: str = "", weight: float = 1.0) -> Member:
    """A sample whose prefix takes all but two of its tokens."""
    group = Group({"input_ids": torch.zeros(1, length - 2)}, ((0, 0),))
    return Member(Sample(name, "", "", "", ""), [group], weight=weight)


def tokens(groups: Sequence[Group]) -> int:
    """Of rows as long as the longest."""
    return len(groups) * max(group.length for group in groups)


def cut_by(members: list[Member], most: int, budget: int | None = None) -> list[list[Member]]:
    return cut(members, Execution(micro_batch=most, micro_tokens=budget), tokens)


def lengths(parts: list[list[Member]]) -> list[list[int]]:
    return [[member.length for member in part] for part in parts]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("count", [5, 16])
def test_every_world_size_and_micro_batch_takes_the_same_samples(size: int, world_size: int, count: int) -> None:
    batch = samples(count)
    most = math.ceil(math.ceil(count / world_size) / size)
    taken: Counter[str] = Counter()
    for rank in range(world_size):
        mine, weight = rank_share(batch, Rank(rank, rank, world_size))
        parts = filled_up(cut_by([member(5 + len(sample.id), sample.id, weight) for sample in mine], size), most)
        assert len(parts) == most, "the same number of module calls on every rank"
        assert all(1 <= len(part) <= size for part in parts)
        taken += Counter(each.sample.id for part in parts for each in part if each.weight == 1.0)
    assert taken == Counter(sample.id for sample in batch)


def test_samples_of_one_length_go_together_and_the_longest_first() -> None:
    parts = cut_by([member(length) for length in (10, 30, 12, 29, 11)], most=2)
    assert lengths(parts) == [[30, 29], [12, 11], [10]]


def test_a_budget_counts_the_padding() -> None:
    members = [member(length) for length in (10, 30, 12, 29, 11)]
    assert lengths(cut_by(members, most=8, budget=59)) == [[30], [29, 12], [11, 10]]
    assert lengths(cut_by(members, most=8, budget=60)) == [[30, 29], [12, 11, 10]]
    assert lengths(cut_by(members, most=2, budget=1000)) == [[30, 29], [12, 11], [10]]


def test_a_sample_beyond_the_budget_has_a_pass_of_its_own() -> None:
    assert lengths(cut_by([member(100), member(10), member(90), member(10)], most=8, budget=20)) == [
        [100],
        [90],
        [10, 10],
    ]


def test_a_rank_without_samples_still_takes_part() -> None:
    batch = samples(1)
    assert rank_share(batch, Rank(0, 0, 2)) == (batch, 1.0)
    assert rank_share(batch, Rank(1, 1, 2)) == (batch, 0.0)


def test_ranks_with_fewer_micro_batches_repeat_their_cheapest_sample_at_no_weight() -> None:
    parts = filled_up(cut_by([member(30, "long"), member(10, "short")], 1), 4)
    assert [(part[0].sample.id, part[0].weight) for part in parts] == [
        ("long", 1.0), ("short", 1.0), ("short", 0.0), ("short", 0.0),
    ]  # fmt: skip


def grouped(prefix: int, *responses: int) -> Group:
    return Group({"input_ids": torch.zeros(1, prefix)}, tuple((0,) * length for length in responses))


def test_a_pass_is_as_many_tokens_as_the_rows_that_are_laid_out() -> None:
    groups = [grouped(100, 5, 6), grouped(20, 30, 30)]
    assert apart_tokens(groups) == 2 * (100 + 60)
    assert separate_tokens(groups) == 4 * (100 + 6)
