"""What comes of looking for something alarming: a finding, the numbers that speak against one, or why nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """Something alarming.

    Attributes:
        name: of the alarm.
        step: from which on it is so.
        sentence: what was measured, from where to where at which steps, and what may be tried.
        values: the numbers in it, by name.
    """

    name: str
    step: int
    sentence: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Fine:
    """Nothing alarming; `sentence` has the numbers that say so."""

    name: str
    sentence: str


@dataclass(frozen=True)
class Unjudged:
    """Nobody knows, for this `reason`."""

    name: str
    reason: str


Verdict = Finding | Fine | Unjudged
