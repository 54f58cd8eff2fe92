"""A rule as it is written on a command line: `name=margin,patience=3`."""

from __future__ import annotations

from cwdpo.base.config import Config, validate
from cwdpo.base.errors import ConfigError
from cwdpo.dynamics.early_stop import EarlyStop


class _Option(Config):
    early_stop: EarlyStop


def parse_rule(text: str) -> EarlyStop:
    """The rule; without a name it is `margin`.

    Raises:
        ConfigError: it is no list of settings, or one of them is wrong; the message names the valid ones.
    """
    entries = [entry.partition("=") for entry in text.split(",")]
    if not all(key.strip() and separator for key, separator, _ in entries):
        raise ConfigError(f"--early-stop {text}: expected KEY=VALUE,..., such as name=margin,patience=3")
    settings = {key.strip(): value.strip() for key, _, value in entries}
    return validate(_Option, {"early_stop": {"name": "margin", **settings}}, f"--early-stop {text}").early_stop
