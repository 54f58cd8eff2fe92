"""What the beats of all ranks say: who is silent, who lags behind. Bookkeeping only; the caller says the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cwdpo.base.board import Board, Verdict

Beat = Mapping[str, Any]
"""`beat` (a count), `at` (position), `collectives` (how many the rank has begun); empty before the first."""


@dataclass
class Census:
    """All ranks as last seen.

    Attributes:
        hosts: by rank.
    """

    hosts: Sequence[str]
    _beats: Sequence[Beat] = ()
    _since: dict[int, float] = field(default_factory=dict)
    _moved: float = 0.0

    def take(self, beats: Sequence[Beat], now: float) -> None:
        """Note who has beaten and who has begun a collective since the last time."""
        for rank, beat in enumerate(beats):
            if not self._beats or beat != self._beats[rank]:
                self._since[rank] = now
        if not self._beats or self._counts(beats) != self._counts(self._beats):
            self._moved = now
        self._beats = beats

    def silent(self, limit: float, now: float) -> list[int]:
        """Ranks that have not beaten for longer than `limit`."""
        return [rank for rank, since in self._since.items() if now - since > limit]

    def gone(self, ranks: Sequence[int], now: float) -> Verdict:
        """That they are gone, and where they were last seen."""
        texts = [
            f"{self.name(rank)} (last seen {now - self._since[rank]:.0f} s ago{self._position(rank)})" for rank in ranks
        ]
        return Verdict(f"{', '.join(texts)} {'is' if len(ranks) == 1 else 'are'} gone")

    def stalled(self, now: float) -> float:
        """Seconds since any rank began a collective, 0 while all have begun equally many."""
        return now - self._moved if len(set(self._counts(self._beats))) > 1 else 0.0

    def lag(self) -> str:
        """Which ranks have begun fewer collectives than the others."""
        counts = self._counts(self._beats)
        last = [rank for rank, count in enumerate(counts) if count == min(counts)]
        if len(last) == len(counts):
            return f"all ranks are alive{self._position(0)}, but one did not answer in time"
        texts = ", ".join(f"{self.name(rank)}{self._position(rank)}" for rank in last)
        verb = "does" if len(last) == 1 else "do"
        return f"{texts} {verb} not keep up (collectives begun: {min(counts)}, others {max(counts)})"

    def name(self, rank: int) -> str:
        """`rank 3 on node1`."""
        return f"rank {rank} on {self.hosts[rank]}"

    def _position(self, rank: int) -> str:
        at = self._beats[rank].get("at")
        return f" at {at}" if at else ""

    @staticmethod
    def _counts(beats: Sequence[Beat]) -> list[int]:
        return [beat.get("collectives", 0) for beat in beats]


def ended(board: Board, hosts: Sequence[str]) -> Verdict | None:
    """The first rank that says it ended with an error, if any."""
    if not board.has("left"):
        return None
    for rank, host in enumerate(hosts):
        left = board.get(f"left/{rank}")
        if left and left["status"]:
            return Verdict(f"rank {rank} on {host} ended: {left['reason']}", left["status"])
    return None
