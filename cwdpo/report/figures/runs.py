"""What figures are drawn from: one training stage of each case and seed, told apart from where it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cwdpo.dynamics.curves import curve
from cwdpo.dynamics.rows import Probes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Scores:
    """Scores of what a policy answered.

    Attributes:
        values: by metric, as in scores.json: CIDEr in [0, 10], all others in [0, 1].
        unavailable: metric -> why it has no value.
        candidates: answers per item that the values are means over.
    """

    values: Mapping[str, float]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    candidates: int = 1

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Scores:
        """From the content of scores.json."""
        values = {metric: value for metric, value in summary["metrics"].items() if value is not None}
        return cls(values, cls.reasons(summary["unavailable"]))

    @staticmethod
    def reasons(unavailable: Mapping[str, str]) -> dict[str, str]:
        """Reasons as scores have them, without the words that panels put before each and the full stop."""
        return {metric: text.removeprefix("not available: ").rstrip(".") for metric, text in unavailable.items()}

    def value(self, metric: str) -> float | str:
        """Times 100, or why there is none."""
        if metric not in self.values:
            return self.unavailable.get(metric, f"{metric} was not scored")
        return 100 * self.values[metric]


@dataclass(frozen=True)
class Run:
    """One training stage of one seed. Where something is not there, the text in its place says why.

    Attributes:
        loss: of training, by step (1-based).
        probes: what was recorded while it trained.
        influence: rows of influence.parquet.
        scores: of what the policy it ended with answered, as a benchmark asks.
        top: step -> scores of the likeliest answers of the policy at that step.
    """

    loss: Mapping[int, float] | str = "no training curve"
    probes: Probes | str = "not probed"
    influence: pd.DataFrame | str = "influence was not measured"
    scores: Scores | str = "not scored"
    top: Mapping[int, Scores] | str = "one answer was generated per item"

    @cached_property
    def curve(self) -> pd.DataFrame | str:
        """See `cwdpo.dynamics.curves.curve`."""
        return self.probes if isinstance(self.probes, str) else curve(self.probes)

    def column(self, name: str) -> pd.Series | str:
        """A column of the curve by step."""
        if isinstance(self.curve, str):
            return self.curve
        return self.curve.get(name, f"{name} was not recorded")


@dataclass(frozen=True)
class Runs:
    """All of one stage that is to be compared.

    Attributes:
        stage: its name, for captions.
        cases: case -> seed -> run. A case keeps its colour by its place here, also where it has no runs.
        samples: probe samples shown singly, id -> what stands above the panel; empty takes the first.
    """

    stage: str
    cases: Mapping[str, Mapping[int, Run]]
    samples: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Run]:
        return (run for seeds in self.cases.values() for run in seeds.values())
