"""Figure 3: does training squeeze? Loss, predictive entropy, and how good the likeliest answers are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cwdpo.report.figures.drawing import Drawing, Panel
from cwdpo.report.figures.panels import draw_bars, draw_lines
from cwdpo.report.figures.runs import Run, Runs
from cwdpo.report.figures.seeds import by_case
from cwdpo.report.figures.style import looks

if TYPE_CHECKING:
    import pandas as pd

POINTS = 60
"""Most points of the training loss; longer ones are means over windows of steps."""


def figure3(runs: Runs) -> list[Drawing]:
    """Four panels, a line or bar per case."""
    panels = [_loss(runs), _entropy(runs), _top(runs, "cider", "CIDEr"), _top(runs, "spice", "SPICE")]
    return [Drawing("figure3", panels, 2, looks(runs.cases), _caption(runs), counts=True)]


def _caption(runs: Runs) -> list[str]:
    return [
        f"Training loss, predictive entropy and quality of the likeliest answers over {runs.stage}.",
        "The loss is what each objective minimises: losses of different objectives are not on one scale. A point is the"
        f" mean of what was recorded in the steps up to it ({window(runs)}).",
        "Entropy is that of the next token under teacher forcing on the true answer, as a mean over tokens and then"
        " probe samples.",
        "CIDEr and SPICE are means over the likeliest answers of each item, not of the best of them, times 100; bars"
        " where one policy of each run was asked.",
    ]


def window(runs: Runs) -> int:
    """Steps whose losses are one point."""
    return math.ceil(_last(runs) / POINTS) or 1


def _last(runs: Runs) -> int:
    return max((step for run in runs if not isinstance(run.loss, str) for step in run.loss), default=0)


def _loss(runs: Runs) -> Panel:
    width, last = window(runs), _last(runs)

    def read(run: Run) -> pd.Series | str:
        return run.loss if isinstance(run.loss, str) else smoothed(run.loss, width, last)

    return Panel("loss", "Training loss", "loss (nats)", by_case(runs, read), draw_lines, "training step")


def smoothed(losses: Mapping[int, float], width: int, last: int) -> pd.Series:
    """Means over windows of steps, counted back from the last, each named by the step it ends with."""
    import pandas as pd

    ends = [last - (last - step) // width * width for step in losses]
    return pd.Series(list(losses.values()), dtype=float).groupby(ends).mean()


def _entropy(runs: Runs) -> Panel:
    lines = by_case(runs, lambda run: run.column("entropy"))
    return Panel("entropy", "Predictive entropy", "nats per token", lines, draw_lines, "training step")


def _top(runs: Runs, metric: str, title: str) -> Panel:
    lines = by_case(runs, lambda run: _scored(run, metric))
    unit = f"{title} x100"
    over_steps = lines.data.groupby("line").size().max() > 1 if len(lines.data) else False
    draw, y, x = (draw_lines, unit, "training step") if over_steps else (draw_bars, "", unit)
    return Panel(f"top_{metric}", f"{title} of {_answers(runs)}", y, lines, draw, x)


def _scored(run: Run, metric: str) -> pd.Series | str:
    import pandas as pd

    if isinstance(run.top, str):
        return run.top
    found = {step: scores.value(metric) for step, scores in sorted(run.top.items())}
    values = {step: value for step, value in found.items() if not isinstance(value, str)}
    reasons = dict.fromkeys(value for value in found.values() if isinstance(value, str))
    return pd.Series(values, dtype=float) if values else "; ".join(reasons) or "no candidates were scored"


def _answers(runs: Runs) -> str:
    counts = {scores.candidates for run in runs if not isinstance(run.top, str) for scores in run.top.values()}
    return f"the top-{counts.pop()} answers" if len(counts) == 1 else "the likeliest answers"
