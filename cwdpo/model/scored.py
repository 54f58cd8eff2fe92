"""Responses of a block of samples, scored without gradient by a replica."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from cwdpo.base.context import StageContext
from cwdpo.model.micro import Member, cut, groups_of_all, in_step
from cwdpo.model.scoring import Scorer

Logps = tuple[float, float]
"""The sum over a response's tokens, nats, and how many they are, end-of-turn included."""


def score_members(
    context: StageContext, lockstep: bool, scorer: Scorer, members: Sequence[Member], longest: int
) -> list[list[Logps]]:
    """Log-probabilities of each member's responses; members may come twice.

    Args:
        lockstep: all ranks make the same module calls; then as many as a block of `longest` samples takes.
    """
    import torch

    execution = context.execution
    if lockstep:
        parts = in_step(members, longest, execution, scorer.tokens, context.rank)
    else:
        parts = cut(members, execution, scorer.tokens)
    found: dict[str, list[Logps]] = {}
    for part in parts:
        with torch.no_grad():
            logps, lengths = scorer.logps(groups_of_all(part))
        values = iter(zip(logps.tolist(), lengths.tolist(), strict=True))
        for member in part:
            own = list(islice(values, sum(len(group.responses) for group in member.groups)))
            found.setdefault(member.sample.id, own)
    return [found[member.sample.id] for member in members]
