"""The board that all ranks of a job write to and read from: torch's key-value store, served by rank 0.

A request waits for ever when rank 0 hangs, and one connection serves one thread at a time: each thread has its own, and
somebody who makes no requests watches (`watch.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cwdpo.base.errors import CwdpoError, Interrupted, PeersLost

if TYPE_CHECKING:
    from torch.distributed import Store

OURS = "cwdpo/"


class Board:
    """One connection; values are JSON. Lost connections raise torch's `DistError`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, key: str, value: Any) -> None:
        """Write."""
        self.store.set(OURS + key, json.dumps(value))

    def get(self, key: str) -> Any:
        """Read; None where nothing is written."""
        return json.loads(self.store.get(OURS + key)) if self.has(key) else None

    def has(self, key: str) -> bool:
        """True when something is written there."""
        return bool(self.store.check([OURS + key]))

    def all(self, key: str, ranks: int) -> list[Any]:
        """`key`/<rank> of every rank, all of which must be there."""
        return [json.loads(text) for text in self.store.multi_get([f"{OURS}{key}/{rank}" for rank in range(ranks)])]

    def put_first(self, key: str, value: Any) -> Any:
        """Write unless something is written; returns what stands there then."""
        return json.loads(self.store.compare_set(OURS + key, "", json.dumps(value)))

    def count(self, key: str, amount: int = 1) -> int:
        """Add to a counter; returns the sum."""
        return int(self.store.add(OURS + key, amount))

    def remove(self, *keys: str) -> None:
        """Wipe."""
        for key in keys:
            self.store.delete_key(OURS + key)


@dataclass(frozen=True)
class Verdict:
    """Why the job stops, the same for all ranks: the first one written stands.

    Attributes:
        status: exit status of the ranks that only noticed.
    """

    message: str
    status: int = PeersLost.exit_code

    @classmethod
    def read(cls, board: Board) -> Verdict | None:
        """The one that stands, if any."""
        found = board.get("lost")
        return cls(**found) if found else None

    def publish(self, board: Board) -> Verdict:
        """Write it; returns the one that stands."""
        return Verdict(**board.put_first("lost", asdict(self)))

    def error(self) -> CwdpoError:
        """As an exception; a peer that was asked to stop stops this rank too."""
        return (
            Interrupted(self.message) if self.status == Interrupted.exit_code else PeersLost(self.message, self.status)
        )


def listed(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 0-2, 5`."""
    parts: list[list[int]] = []
    for rank in sorted(ranks):
        if parts and rank == parts[-1][1] + 1:
            parts[-1][1] = rank
        else:
            parts.append([rank, rank])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in parts]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(texts)}"
