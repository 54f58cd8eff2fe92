"""Tokens and money that replies took, and whether more may be asked."""

from __future__ import annotations

from typing import Any

from cwdpo.endpoint.replies import Reply
from cwdpo.endpoint.settings import Endpoint

MILLION = 1_000_000


class Spending:
    """What the replies of one stage took; those that were kept from before count too: they were paid for once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._prices, self._budget = endpoint.prices, endpoint.budget
        self.input = self.output = self.unknown = 0

    def add(self, reply: Reply) -> None:
        """Count one in."""
        self.input += reply.tokens_in or 0
        self.output += reply.tokens_out or 0
        self.unknown += reply.tokens_in is None

    @property
    def cost(self) -> float | None:
        """In the currency of the prices, None without prices."""
        if self._prices is None:
            return None
        return (self.input * self._prices.input + self.output * self._prices.output) / MILLION

    def over(self) -> bool:
        """Whether the budget is used up."""
        if self._budget is None:
            return False
        spent = ((self._budget.cost, self.cost), (self._budget.tokens, self.input + self.output))
        return any(limit is not None and used is not None and used >= limit for limit, used in spent)

    def __str__(self) -> str:
        """`1,200 tokens in, 300 out, cost 0.0021`."""
        cost = "" if self.cost is None else f", cost {self.cost:.4f}"
        return f"{self.input:,} tokens in, {self.output:,} out{cost}"

    def as_json(self) -> dict[str, Any]:
        """For the summary."""
        unknown = {"replies_without_tokens": self.unknown} if self.unknown else {}
        cost = {} if self.cost is None else {"cost": round(self.cost, 6)}
        return {"tokens": {"in": self.input, "out": self.output}, **unknown, **cost}
