"""How much of a grid the pages show at most. What is left out is said on the page, with the command that has it."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds that keep a grid of thousands of cells readable, and quick to write.

    Attributes:
        cases: rows of a table, and pages of provenance.
        lines: cases in a chart: so many looks can be told apart.
        points: of a line.
        metrics: charts of a stage.
        probed: cases in the figures of learning dynamics, which take a second each to draw.
        methods: whose answers stand side by side.
        items: of a benchmark in the gallery.
        images: of one item.
        cells: rows of the state of the grid before it is folded by case.
        told: failures that are told one by one.
    """

    cases: int = 2000
    lines: int = 21
    points: int = 60
    metrics: int = 16
    probed: int = 6
    methods: int = 12
    items: int = 60
    images: int = 4
    cells: int = 100
    told: int = 50


LIMITS = Limits()
