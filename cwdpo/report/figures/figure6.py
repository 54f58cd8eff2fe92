"""Figure 6: the curriculum that emerges, cooling weights of easy, medium and hard negatives falling one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cwdpo.dynamics.rows import GRADES, Kind, Probes
from cwdpo.report.figures.drawing import Drawing, Panel, named
from cwdpo.report.figures.panels import draw_lines
from cwdpo.report.figures.runs import Run, Runs
from cwdpo.report.figures.seeds import Lines, counted, over_seeds
from cwdpo.report.figures.style import KINDS, Look

if TYPE_CHECKING:
    import pandas as pd

SINGLE = 3
"""Samples shown where none are named."""

COLUMNS = 4
"""Panels in a row."""

_LOOKS: Mapping[str, Look] = {kind: KINDS[kind] for kind in GRADES}


def figure6(runs: Runs) -> list[Drawing]:
    """A figure per case: single samples, then the mean over all."""
    return [_of_case(runs, case, seeds) for case, seeds in runs.cases.items()]


def _of_case(runs: Runs, case: str, seeds: Mapping[int, Run]) -> Drawing:
    samples = runs.samples or {sample: f"sample {sample}" for sample in _first_samples(seeds)}
    panels = [_sample(seeds, sample, title) for sample, title in samples.items()]
    panels.append(_panel("mean", "mean over samples", _lines(seeds, lambda run, kind: run.column(f"w_c_{kind}"))))
    caption = _caption(runs, case, seeds)
    title, x = f"{case} ({counted(panel.lines for panel in panels)})", "training step"
    return Drawing(named("figure6", case), panels, min(COLUMNS, len(panels)), _LOOKS, caption, title, x, same_y=True)


def _caption(runs: Runs, case: str, seeds: Mapping[int, Run]) -> list[str]:
    return [
        f"Cooling weight w_c (Eq. 6) of graded negatives over {runs.stage} of {case}{_scale(seeds)}: single probe"
        " samples, then the mean over all of them."
    ]


def _scale(seeds: Mapping[int, Run]) -> str:
    """The scale of w_c, as probe.json has it."""
    probes = _any_probes(seeds)
    return f" (l_floor {probes.about['l_floor']:g}, tau {probes.about['tau']:g} nats per token)" if probes else ""


def _any_probes(seeds: Mapping[int, Run]) -> Probes | None:
    return next((run.probes for run in seeds.values() if isinstance(run.probes, Probes)), None)


def _first_samples(seeds: Mapping[int, Run]) -> list[str]:
    """The first of those with most grades, in the order of the probe set."""
    probes = _any_probes(seeds)
    if probes is None:
        return []
    graded = probes.responses[probes.responses.w_c.notna()]
    counts = graded.groupby("id", sort=False)["kind"].nunique()
    return list(counts[counts == counts.max()].index[:SINGLE])


def _sample(seeds: Mapping[int, Run], sample: str, title: str) -> Panel:
    return _panel(sample, title, _lines(seeds, lambda run, kind: _weights(run, sample, kind)))


def _panel(sample: str, title: str, lines: Lines) -> Panel:
    return Panel("w_c", title, "$w_c$", lines, draw_lines, limits=(0, 1), keys={"sample": sample})


def _lines(seeds: Mapping[int, Run], read: Callable[[Run, Kind], pd.Series | str]) -> Lines:
    return over_seeds({kind: {seed: read(run, kind) for seed, run in seeds.items()} for kind in GRADES})


def _weights(run: Run, sample: str, kind: Kind) -> pd.Series | str:
    """w_c of one negative by step."""
    if isinstance(run.probes, str):
        return run.probes
    rows = run.probes.responses
    found = rows[(rows["id"] == sample) & (rows["kind"] == kind)]
    return found.set_index("step")["w_c"] if len(found) else f"sample {sample} has no {kind} negative"
