"""How the questions of a stage ended, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cwdpo.endpoint.exchange import Settled

EXAMPLES = 5
"""Dropped replies that the summary shows."""


class Tally:
    """Counts of what is added; nothing of a reply is held but a few beginnings.

    Attributes:
        dropped: questions of which nothing could be used, by reason.
        examples: the first of them.
    """

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._lacking = Counter[str]()
        self._not_asked = Counter[str]()
        self.dropped = Counter[str]()
        self.examples: list[dict[str, str]] = []

    @property
    def made(self) -> int:
        """Questions of which something can be used."""
        return self._counts["made"]

    def add(self, record: str, settled: Sequence[Settled]) -> None:
        """Count in how the questions of a record ended.

        Args:
            record: its id.
        """
        self._counts["records"] += 1
        for one in settled:
            self._counts["questions"] += 1
            if one.made is not None:
                self._add_made(one.made, one.replies)
            elif one.asked:
                self._add_dropped(record, one)
            else:
                self._not_asked[one.reason] += 1

    def _add_made(self, made: Any, replies: int) -> None:
        self._counts["made"] += 1
        self._counts["repaired"] += replies > 1
        if "lacks" in made:
            self._lacking[made["lacks"]] += 1

    def _add_dropped(self, record: str, one: Settled) -> None:
        self.dropped[one.reason] += 1
        if one.replies and len(self.examples) < EXAMPLES:
            self.examples.append({"id": record, "reason": one.reason, "said": one.said})

    def as_json(self) -> dict[str, Any]:
        """For the summary."""
        reasons = {"dropped": self.dropped, "lacking": self._lacking, "not_asked": self._not_asked}
        return {
            **{name: self._counts[name] for name in ("records", "questions", "made", "repaired")},
            **{name: dict(sorted(found.items())) for name, found in reasons.items()},
        }
