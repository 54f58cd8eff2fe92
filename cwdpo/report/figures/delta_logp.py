"""Which answers a stage makes likelier: change of log-probability since its start, by kind of response."""

from __future__ import annotations

from collections.abc import Mapping

from cwdpo.report.figures.drawing import Drawing, Panel
from cwdpo.report.figures.panels import draw_lines
from cwdpo.report.figures.runs import Run, Runs
from cwdpo.report.figures.seeds import counted, over_seeds
from cwdpo.report.figures.style import KINDS

COLUMNS = 3
"""Panels in a row."""


def delta_logp(runs: Runs) -> list[Drawing]:
    """A panel per case, a line per kind."""
    panels = [_of_case(case, seeds) for case, seeds in runs.cases.items()]
    return [Drawing("delta_logp", panels, min(COLUMNS, len(panels)), KINDS, _caption(runs), same_y=True)]


def _caption(runs: Runs) -> list[str]:
    return [
        f"Change of the log-probability of whole responses, in nats, since the start of {runs.stage}, as means over"
        " probe samples: of the true answer, of negatives by grade, of what the base model answered, and of two"
        " controls (dashed): the true answer's words in another order, and the answer of another image."
    ]


def _of_case(case: str, seeds: Mapping[int, Run]) -> Panel:
    found = {kind: {seed: run.column(f"delta_logp_{kind}") for seed, run in seeds.items()} for kind in KINDS}
    lines = over_seeds(found)
    title = f"{case} ({counted([lines])})" if len(lines.data) else case
    return Panel("delta_logp", title, "change of logp (nats)", lines, draw_lines, "training step", keys={"case": case})
