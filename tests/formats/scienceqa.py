"""A small download of ScienceQA: both JSON files and `images/<split>/<problem>/image.png`."""

from __future__ import annotations

from pathlib import Path

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import scienceqa as made
from cwdpo.data.demo_benchmarks.scienceqa import problem

PROBLEMS = {
    "1": problem("train", "Which is a solid?", ["ice", "steam"], 0),
    "4": problem("test", "Which word rhymes with cat?", ["hat", "dog"], 0, image=None, subject="language science"),
    "5": problem(
        "test",
        "What did  the test show?",
        ["if it was damaged", "how steady it was", "whether it would swing "],
        1,
        hint=" Engineers test parachutes.\nThe figure shows one. ",
    ),
    "11": problem(
        "test", "Which colony is shown?", ["Maryland", "Virginia", "Ohio", "Vermont"], 3, subject="social science"
    ),
    "27": problem("test", "What is in the box?", ["a", "b", "c", "d", "e"], 4, hint="Look at {question}."),
    "30": problem("test", "Which is warmer?", ["the left", "the right"], 0),
    "42": problem("test", "Do the magnets attract?", ["attract", "repel"], 1),
    "43": problem("test", "Which animal is it?", ["a frog", "a newt", "a fish"], 2),
    "50": problem("val", "Is it a gas?", ["yes", "no"], 1),
}
SPLITS = {
    "train": ["1"],
    "val": ["50"],
    "test": ["5", "4", "11", "27", "30", "43", "42"],
    "trainval": ["1", "50"],
    "minitrain": ["1"],
    "minival": ["50"],
    "minitest": ["5", "4"],
}


def write(folder: Path) -> None:
    """The files, and an image for each problem that has one."""
    shown = [pid for pid, row in PROBLEMS.items() if row["image"]]
    images = {pid: picture((20 * number, 90, 160), "image.png") for number, pid in enumerate(shown)}
    made.write(folder, PROBLEMS, SPLITS, images)
