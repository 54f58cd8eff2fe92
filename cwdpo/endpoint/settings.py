"""Which endpoint is asked, and how: any that speaks OpenAI's chat completions."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cwdpo.base.config import Config, Neutral, Place


class Prices(Config):
    """What tokens cost, in one currency, for a million of them."""

    input: Annotated[float, Place()] = Field(ge=0)
    """Tokens of requests."""
    output: Annotated[float, Place()] = Field(ge=0)
    """Tokens of replies."""


class Budget(Config):
    """How much one stage may use, the kept replies that it goes on from included.

    Calls under way are finished, so that it can be passed by `concurrency` calls.
    """

    cost: Annotated[float | None, Place()] = Field(default=None, gt=0)
    """In the currency of the prices."""
    tokens: Annotated[int | None, Place()] = Field(default=None, gt=0)
    """Of requests and replies together."""


class Endpoint(Config):
    """A model behind an address. Where it lies and what it costs is no part of what it says."""

    model: str = Field(min_length=1)
    """As the endpoint calls it."""
    temperature: float | None = Field(default=0.0, ge=0)
    """None leaves it to the endpoint: some models take no other."""
    top_p: Annotated[float | None, Neutral(None)] = Field(default=None, gt=0, le=1)
    """None leaves it to the endpoint."""
    max_tokens: int = Field(default=1024, gt=0)
    """Longest reply."""
    seed: int | None = 0
    """Of sampling, where the endpoint heeds it; None sends none."""

    base_url: Annotated[str | None, Place()] = None
    """Such as `http://node7:8000/v1`; None is OpenAI, or what the variable OPENAI_BASE_URL names."""
    key: Annotated[str, Place()] = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; with a `base_url` it may be unset."""
    concurrency: Annotated[int, Place()] = Field(default=8, gt=0)
    """Calls under way at a time."""
    timeout: Annotated[float, Place()] = Field(default=120.0, gt=0)
    """Seconds until a call that brings nothing is given up and made again."""
    patience: Annotated[float, Place()] = Field(default=4 * 3600.0, ge=0)
    """Seconds to go on trying while the endpoint is gone, busy or faulty."""
    prices: Annotated[Prices | None, Place()] = None
    """For the summary and for a budget in money."""
    budget: Annotated[Budget | None, Place()] = None
    """Where asking stops; what was answered is kept. None is no limit."""

    @model_validator(mode="after")
    def _no_secrets(self) -> Endpoint:
        """Refuse what would put a key into files; the messages do not show it."""
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key):
            raise ValueError("key: expected the name of an environment variable, such as OPENAI_API_KEY, not a key")
        if self.base_url is not None:
            check_address(self.base_url, "base_url")
        return self

    @model_validator(mode="after")
    def _priced(self) -> Endpoint:
        if self.budget and self.budget.cost and not self.prices:
            raise ValueError("budget.cost needs prices: {input: ..., output: ...} per million tokens")
        return self


def check_address(address: str, name: str) -> None:
    """Refuse an address that is none, or that holds a secret.

    Args:
        name: of the setting or variable that holds it; the message does not show the address.

    Raises:
        ValueError: it is no address of a server, or has a password, a query or a fragment.
    """
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets or a port that are none; its message shows a part of the address
        usable = False
    if not usable:
        raise ValueError(f"{name}: expected an address such as http://node7:8000/v1") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{name}: an address with a password or a query is written to files; use `key`")
