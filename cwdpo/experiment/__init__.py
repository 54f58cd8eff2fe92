"""What a user writes in YAML: experiments, grids of them, methods and sizes; and how a grid becomes its cells.

An experiment is one path through the pipeline: data, model, Stage 1, Stage 2, benchmarks, one seed. A grid is many:
a base, named cases, axes (their product), and seeds. A case may name a method, whose stages are a file of their own.
A grid may have a size laid over it, such as `main-demo`, or be made of others.
"""

from __future__ import annotations

from cwdpo.experiment.folders import config_folder, find_config
from cwdpo.experiment.grid import Cell, Grid
from cwdpo.experiment.loading import load_grid
from cwdpo.experiment.schema import Experiment, described, evaluated_on, evaluated_unnamed, probed_in_run

__all__ = [
    "Cell",
    "Experiment",
    "Grid",
    "config_folder",
    "described",
    "evaluated_on",
    "evaluated_unnamed",
    "find_config",
    "load_grid",
    "probed_in_run",
]
