"""A small download of TextVQA: the validation questions and `train_images`."""

from __future__ import annotations

from pathlib import Path

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import textvqa as made
from cwdpo.data.demo_benchmarks.textvqa import entry

DATA = [
    entry(34602, "003a8ae2ef43b901", "what is the brand of this camera?", ["dakota"] * 8 + ["dakota digital"] * 2),
    entry(34603, "003a8ae2ef43b901", "what does the small white text spell?", ["copenhagen"] * 10),
    entry(34604, "00a2a1d0cbd6d2e0", "what year is it? NOT the one below", ["1998", "1998", "98"] * 3 + ["ninety"]),
    entry(34605, "00a2a1d0cbd6d2e0", "what kind of beer is this?", ["ale"] * 2 + ["unanswerable"] * 8),
    entry(
        34606,
        "fe9e0b7d1b8e5c3a",
        "where's the \u201cexit\u201d?",
        ["left", "Left.", "the left", "on the left", "left!"] * 2,
    ),
    entry(34607, "fe9e0b7d1b8e5c3a", "how many are there?", ["2", "two"] * 5),
]


def write(folder: Path) -> None:
    """The questions, and the images, which the archive calls those of the training split."""
    names = sorted({row["image_id"] for row in DATA})
    made.write(folder, DATA, {name: picture((60 * number, 40, 120)) for number, name in enumerate(names)})
