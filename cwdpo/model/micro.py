"""What one rank computes of a global batch: its share of the samples, cut into micro-batches of about one length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cwdpo.base import distributed
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.encoding import Group
from cwdpo.data.samples import Sample


@dataclass(frozen=True)
class Member:
    """A sample of this rank's share, encoded; its weight is 0 where it only keeps the ranks in step.

    Attributes:
        groups: scored with gradient.
        still: scored without.
    """

    sample: Sample
    groups: Sequence[Group]
    still: Sequence[Group] = ()
    weight: float = 1.0

    @property
    def length(self) -> int:
        """Tokens that are scored with gradient."""
        return sum(group.length for group in self.groups)


def groups_of_all(members: Sequence[Member]) -> list[Group]:
    """What is scored with gradient of several samples, in order."""
    return [group for member in members for group in member.groups]


def rank_share(batch: Sequence[Sample], rank: Rank) -> tuple[list[Sample], float]:
    """This rank's samples of a global batch and their weight.

    Where there are fewer samples than ranks, one of weight 0: the others must not wait for this rank's module calls.
    """
    mine = list(batch[rank.rank :: rank.world_size])
    return (mine, 1.0) if mine else ([batch[0]], 0.0)


Tokens = Callable[[Sequence[Group]], int]
"""Tokens of a forward pass over some groups, padding included."""


def cut(members: Sequence[Member], execution: Execution, tokens: Tokens) -> list[list[Member]]:
    """Micro-batches of samples of about the same length, the longest of the step first.

    None has more than `micro_batch` samples, or `micro_tokens` tokens unless it is one sample.
    """
    parts: list[list[Member]] = []
    for member in sorted(members, key=lambda member: -member.length):
        if parts and _has_room([*parts[-1], member], execution, tokens):
            parts[-1].append(member)
        else:
            parts.append([member])
    return parts


def _has_room(part: Sequence[Member], execution: Execution, tokens: Tokens) -> bool:
    if len(part) > execution.micro_batch:
        return False
    return execution.micro_tokens is None or tokens(groups_of_all(part)) <= execution.micro_tokens


def in_step(
    members: Sequence[Member], most: int, execution: Execution, tokens: Tokens, rank: Rank
) -> list[list[Member]]:
    """This rank's micro-batches, as many as every other rank has: some make the same module calls on all of them.

    Args:
        members: at most `most`, which is the same number on all ranks. Collective where there is a budget of tokens.
    """
    parts = cut(members, execution, tokens)
    if execution.micro_tokens:  # how many there are depends on lengths that only their own rank knows
        return filled_up(parts, distributed.largest_over_ranks(len(parts), rank))
    return filled_up(parts, math.ceil(most / execution.micro_batch))


def filled_up(parts: Sequence[list[Member]], count: int) -> list[list[Member]]:
    """`count` micro-batches: the shortest sample again, with weight 0, where there are fewer."""
    idle = [replace(parts[-1][-1], weight=0.0)]
    return [*parts, *[idle] * (count - len(parts))]
