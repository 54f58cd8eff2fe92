"""What is asked of an alarm."""

from __future__ import annotations

from cwdpo.base.config import Config
from cwdpo.dynamics.alarms.evidence import Evidence
from cwdpo.dynamics.alarms.verdict import Finding, Fine


class Watch(Config):
    """A look at the evidence of one stage for one thing that goes wrong; its thresholds are its fields."""

    name: str

    def judge(self, evidence: Evidence) -> Finding | Fine:
        """What is found: a function of the evidence alone.

        Raises:
            NotAvailable: the evidence does not tell; the message is the reason.
        """
        raise TypeError(f"{type(self).__name__} does not say what it looks for")
