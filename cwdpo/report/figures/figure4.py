"""Figure 4: how far a stage moves the policy, how peaked and how well calibrated it becomes, and how well it does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cwdpo.dynamics.curves import BINS, calibration_at
from cwdpo.report.figures.drawing import Drawing, Panel
from cwdpo.report.figures.panels import EDGES, draw_bars, draw_lines, draw_reliability
from cwdpo.report.figures.runs import Run, Runs
from cwdpo.report.figures.seeds import Lines, by_case
from cwdpo.report.figures.style import looks

if TYPE_CHECKING:
    import pandas as pd

CURVES = {
    "tv": ("Total variation to the start", "TV"),
    "js": ("JS divergence to the start", "JS (nats)"),
    "entropy": ("Predictive entropy", "nats per token"),
    "top1": ("Mass of the top token", "probability"),
    "top5": ("Mass of the top 5 tokens", "probability"),
    "ece": ("Calibration error", "ECE"),
}
"""Column of the curve -> title and label of y."""


def figure4(runs: Runs) -> list[Drawing]:
    """Nine panels, a line or bar per case."""
    panels = [_curve(runs, name) for name in CURVES]
    panels += [_reliability(runs), _quality(runs, "cider", "CIDEr"), _quality(runs, "spice", "SPICE")]
    return [Drawing("figure4", panels, 3, looks(runs.cases), _caption(runs), counts=True)]


def _caption(runs: Runs) -> list[str]:
    return [
        f"Shift, peakedness, calibration and quality over {runs.stage}.",
        "Total variation and Jensen-Shannon divergence (at most ln 2 nats) are between the distributions of the next"
        " token now and at the start of the stage, under teacher forcing on the true answer, as means over tokens"
        " and then probe samples. Entropy and the probability mass of the likeliest token and of the five likeliest are"
        " means alike.",
        f"ECE compares, in {BINS} bins of equal width, the probability of the likeliest token with how often it is the"
        " true one; the reliability diagram shows these bins at the last probed step of each run, the area of a dot"
        " being its share of the tokens, and the diagonal of perfect calibration in grey.",
        "CIDEr and SPICE are of what the final policies answered, times 100.",
    ]


def _curve(runs: Runs, name: str) -> Panel:
    title, unit = CURVES[name]
    lines = by_case(runs, lambda run: run.column(name))
    return Panel(name, title, unit, lines, draw_lines, "training step", (0, None))


def _reliability(runs: Runs) -> Panel:
    """Accuracy of each bin, over seeds, with its confidence and share of tokens."""
    accuracy = by_case(runs, partial(_bins, name="accuracy"))
    data = accuracy.data.rename(columns={"step": "bin"})
    for name in ("confidence", "share"):
        other = by_case(runs, partial(_bins, name=name)).data
        data = data.merge(
            other.rename(columns={"step": "bin", "mean": name})[["line", "bin", name]], on=["line", "bin"]
        )
    lines = Lines(data, accuracy.missing)
    return Panel("reliability", "Reliability at the end", "accuracy", lines, draw_reliability, "confidence", EDGES)


def _bins(run: Run, name: str) -> pd.Series | str:
    """One attribute of the calibration at the last probed step, by bin, where a bin has tokens."""
    import pandas as pd

    if isinstance(run.probes, str):
        return run.probes
    found = calibration_at(run.probes, int(run.probes.tokens["step"].max()))
    return pd.Series(getattr(found, name))[found.share > 0]


def _quality(runs: Runs, metric: str, title: str) -> Panel:
    lines = by_case(runs, lambda run: _score(run, metric))
    ends = Lines(lines.data.drop(columns="step"), lines.missing)
    return Panel(metric, f"{title} of the final policy", "", ends, draw_bars, f"{title} x100")


def _score(run: Run, metric: str) -> pd.Series | str:
    import pandas as pd

    value = run.scores if isinstance(run.scores, str) else run.scores.value(metric)
    return value if isinstance(value, str) else pd.Series([value])
