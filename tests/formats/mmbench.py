"""A small download of MMBench: one TSV, images inside as base64 or as the index of another row."""

from __future__ import annotations

from pathlib import Path

from formats.pictures import picture

from cwdpo.data.demo_benchmarks.mmbench import FILES, in_base64, row, write_rows

V11, V10 = FILES["1.1"], FILES["1.0"]


def image(shade: int) -> str:
    """A small picture in base64."""
    return in_base64(picture((shade, 90, 200 - shade)))


ROWS = [
    row(7, "Where is the cat?", ["left", "right", "top", "below"], "B", image(10)),
    row(12, 'Is "it" red?', ["yes", "no"], "A", image(20), "Read the hint.\nIt has two lines.",
        **{"category": "attribute_comparison", "l2-category": "finegrained_perception (cross-instance)"}),
    row(15, "How many cats?", ["1", "2", "nan"], "B", "7", hint="nan"),
    row(1000007, "Where is the cat?", ["right", "top", "below", "left"], "A", "7"),
    row(1000012, 'Is "it" red?', ["no", "yes"], "B", "12", "Read the hint.\nIt has two lines."),
    row(1000015, "How many cats?", ["2", "1"], "A", "15"),  # a reference to a reference
    row(2000007, "Where is the cat?", ["top", "below", "left", "right"], "D", "7"),
    row(3000007, "Where is the cat?", ["below", "left", "right", "top"], "C", "7"),
]  # fmt: skip


def write(folder: Path) -> None:
    """Version 1.1."""
    write_rows(folder / V11, ROWS)
