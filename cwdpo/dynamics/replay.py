"""What a rule of early stopping would have done to a training that has been probed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cwdpo.base.errors import NotAvailable
from cwdpo.dynamics.early_stop.rule import Measured, Rule, Stop, best
from cwdpo.dynamics.points import Point, jsonable


@dataclass(frozen=True)
class Replay:
    """A rule and a training.

    Attributes:
        probes: what the rule goes by, at every probe of the training.
        stop: None where the rule lets it go on to its end.
        total: steps that the training takes without the rule.
    """

    rule: Rule
    probes: Sequence[Measured]
    stop: Stop | None
    total: int

    @property
    def end(self) -> Measured:
        """The last probe."""
        return self.probes[-1]

    @property
    def stopped(self) -> Measured | None:
        """The probe after which the rule stops."""
        return self._at(self.stop.step) if self.stop else None

    @property
    def best(self) -> Measured:
        """The best probe up to the stop."""
        return self._at(self.stop.best) if self.stop else self.best_of_all

    @property
    def best_of_all(self) -> Measured:
        """The best probe, those included that the rule never sees."""
        return best(self.probes)

    @property
    def kept(self) -> Measured:
        """The probe whose policy is the result."""
        return self.best if self.rule.keep == "best" else self.stopped or self.end

    @property
    def saved(self) -> int:
        """Steps that are not taken."""
        return self.total - self.stop.step if self.stop else 0

    def _at(self, step: int) -> Measured:
        return next(probe for probe in self.probes if probe.step == step)

    def text(self) -> str:
        """For a terminal."""
        settings = ", ".join(f"{key}={value}" for key, value in self.rule.model_dump().items())
        lines = [f"{settings}: {self._outcome()}", *self._measures()]
        missed = self.best_of_all
        if missed.value > self.best.value:
            lines.append(f"  it misses {self.rule.metric} {missed.value:.4g} at step {missed.step}: try more patience")
        return "\n".join(lines)

    def _outcome(self) -> str:
        if self.stop is None:
            return f"never stops it in {len(self.probes)} probes, up to step {self.end.step} of {self.total}"
        share = self.saved / self.total
        return f"stops at step {self.stop.step} of {self.total}, {self.saved} steps less ({share:.0%}): {self.stop.why}"

    def _measures(self) -> list[str]:
        """The metric where it matters, a line each."""
        places = {"best": self.best, "stop": self.stopped, "end": self.end}
        return [
            f"  {name:4}  step {probe.step:>6}  {self.rule.metric} {probe.value:.4g}{self._mark(name)}"
            for name, probe in places.items()
            if probe
        ]

    def _mark(self, name: str) -> str:
        kept = "best" if self.rule.keep == "best" else "stop" if self.stop else "end"
        return "  <- the policy that is kept" if name == kept else ""

    def as_json(self) -> dict[str, Any]:
        """The same for a script."""
        places = {"best": self.best, "stop": self.stopped, "end": self.end, "best_of_all": self.best_of_all}
        return {
            "rule": self.rule.model_dump(),
            "metric": self.rule.metric,
            "stop": asdict(self.stop) if self.stop else None,
            "total": self.total,
            "saved": self.saved,
            "kept": self.kept.step,
            "at": {name: jsonable(probe._asdict()) for name, probe in places.items() if probe},
        }


def replay(rule: Rule, points: Sequence[Point], total: int | None = None) -> Replay:
    """What the rule would have done.

    Args:
        points: every probe of the training, in order, with the columns of `curves.curve`.
        total: steps that the training takes; None is up to its last probe.

    Raises:
        NotAvailable: nothing was probed.
        DataError: the probes do not have what the rule reads.
    """
    if not points:
        raise NotAvailable("nothing was probed")
    probes = rule.measured(points)
    return Replay(rule, probes, rule.stop(points), total or probes[-1].step)
