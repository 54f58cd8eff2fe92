"""Alarms: what goes wrong in a training, by the evidence of its probes and its curve. One file and one member each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from cwdpo.base.errors import ConfigError, NotAvailable, name_valid
from cwdpo.dynamics.alarms.constraint_never_active import ConstraintNeverActive
from cwdpo.dynamics.alarms.divergence import Divergence
from cwdpo.dynamics.alarms.evidence import Evidence
from cwdpo.dynamics.alarms.loser_gradient import LoserGradient
from cwdpo.dynamics.alarms.peaking import Peaking
from cwdpo.dynamics.alarms.squeezing import Squeezing
from cwdpo.dynamics.alarms.stale_negatives import StaleNegatives
from cwdpo.dynamics.alarms.verdict import Finding, Fine, Unjudged, Verdict
from cwdpo.dynamics.alarms.watch import Watch


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Alarm = Annotated[
    Squeezing | Peaking | StaleNegatives | ConstraintNeverActive | LoserGradient | Divergence,
    Field(discriminator="name"),
    BeforeValidator(_named),
]
"""In a file its name, as in `alarms: [squeezing, divergence]`, or a mapping where a threshold is another one."""

ALARMS: dict[str, Watch] = {alarm.name: alarm for alarm in (member() for member in get_args(get_args(Alarm)[0]))}
"""Name -> alarm at its own thresholds, in the order in which they are looked for."""


def verdicts(evidence: Evidence, alarms: Iterable[Watch | str] | None = None) -> list[Verdict]:
    """What comes of each alarm, in order; None is all of them, a name one at its own thresholds.

    Raises:
        ConfigError: no alarm has that name.
    """
    wanted = ALARMS if alarms is None else alarms
    return [_verdict(_alarm(entry) if isinstance(entry, str) else entry, evidence) for entry in wanted]


def examine(evidence: Evidence, names: Iterable[Watch | str] | None = None) -> list[Finding]:
    """What is alarming, of the alarms of some names or of all; see `verdicts`."""
    return [found for found in verdicts(evidence, names) if isinstance(found, Finding)]


def _alarm(name: str) -> Watch:
    if name not in ALARMS:
        raise ConfigError(f"unknown alarm {name_valid(name, ALARMS)}")
    return ALARMS[name]


def _verdict(alarm: Watch, evidence: Evidence) -> Verdict:
    try:
        return alarm.judge(evidence)
    except NotAvailable as reason:
        return Unjudged(alarm.name, str(reason))


__all__ = [
    "ALARMS", "Alarm", "ConstraintNeverActive", "Divergence", "Evidence", "Finding", "Fine", "LoserGradient", "Peaking",
    "Squeezing", "StaleNegatives", "Unjudged", "Verdict", "Watch", "examine", "verdicts",
]  # fmt: skip
