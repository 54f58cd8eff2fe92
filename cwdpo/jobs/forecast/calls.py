"""Which endpoints a plan asks, how often, and whether their keys are here."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cwdpo.base.config import Config
from cwdpo.base.errors import NotAvailable
from cwdpo.endpoint.client import address_of
from cwdpo.endpoint.settings import Endpoint
from cwdpo.evaluate.judging.stage import JudgeSpec
from cwdpo.graph import Node
from cwdpo.jobs.forecast.tasks import Asking
from cwdpo.negatives.llm.stage import LlmSpec


@dataclass(frozen=True)
class Calls:
    """What is asked of one endpoint.

    Attributes:
        stages: kind of stage -> calls that are still to be made, if every reply can be used.
    """

    endpoint: Endpoint
    stages: Counter[str]

    @property
    def key_is_set(self) -> bool:
        """Whether the environment holds the key; a server of one's own needs none."""
        return bool(os.environ.get(self.endpoint.key, "").strip())

    def as_json(self) -> dict[str, Any]:
        """For a script; the key itself is never read."""
        return {
            "model": self.endpoint.model, "address": self._address, "key": self.endpoint.key,
            "key_is_set": self.key_is_set, "calls": dict(self.stages),
            "budget": self.endpoint.budget.model_dump(mode="json") if self.endpoint.budget else None,
        }  # fmt: skip

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {count:,}" for name, count in self.stages.items())
        return f"asks {self.endpoint.model} at {self._address} ({self._key}): {stages} calls; {self._spent}"

    @property
    def _address(self) -> str:
        try:
            return address_of(self.endpoint) or "OpenAI"
        except NotAvailable:
            return "an address in OPENAI_BASE_URL that is none"

    @property
    def _key(self) -> str:
        if self.key_is_set:
            return f"key in {self.endpoint.key}"
        if self.endpoint.base_url:
            return "without a key"
        return f"{self.endpoint.key}, which holds its key, is not set here"

    @property
    def _spent(self) -> str:
        budget = self.endpoint.budget
        limits = {name: value for name, value in vars(budget).items() if value} if budget else {}
        if not limits:
            return "tokens and cost are not forecast, and no `budget` of the endpoint ends them"
        said = " or ".join(f"{name} {value:,}" for name, value in limits.items())
        return f"tokens and cost are not forecast, and each stage ends at {said}"


def calls_of(work: Iterable[tuple[Node, Asking]]) -> list[Calls]:
    """Of each endpoint that is asked, in the order of the stages.

    Args:
        work: what is to be asked, by stage.
    """
    found: dict[Endpoint, Counter[str]] = defaultdict(Counter)
    for node, task in work:
        found[_endpoint(node.spec)][task.stage] += round(task.items)
    return [Calls(endpoint, stages) for endpoint, stages in found.items()]


def _endpoint(spec: Config) -> Endpoint:
    if isinstance(spec, LlmSpec):
        return spec.part.endpoint
    assert isinstance(spec, JudgeSpec), "nothing else asks"
    return spec.endpoint
