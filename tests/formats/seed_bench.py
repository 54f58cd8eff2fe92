"""A small download of SEED-Bench: questions about images and videos in one file, images without a suffix."""

from __future__ import annotations

from pathlib import Path

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import seed_bench as made
from cwdpo.data.demo_benchmarks.seed_bench import TYPES, question

__all__ = ["TYPES"]

QUESTIONS = [
    question(
        "101669", "Instances Counting", "1454426_2591111986", "How many towels?", ["One", "Two", "Three", "Four"], "A"
    ),
    question("104933", "Text Understanding", "svt_14_06.jpg", "What is written?", ["Café", "Bar", "Inn", "Pub"], "C"),
    question("v1738", "Action Recognition", "94328.webm", "What is done?", ["a", "b", "c", "d"], "B", "video"),
    question(
        "v1962",
        "Action Prediction",
        "P03/P03_24.MP4",
        "What comes?",
        ["a", "b", "c", "d"],
        "B",
        "video",
        segment=[648.0, 658.0],
    ),
    question("7", "Scene Understanding", "1454426_2591111986", "Where is it?", ["Home", "Shop", "Park", "Sea"], "D"),
    question("8", "Instance Identity", "1000_1", "Who is it?", ["A man", "A cat", "A dog", "A cow"], "B"),
    question("9", "Spatial Relation", "1000_1", "Where is the cat?", ["Left", "Right", "Above", "Below"], "A"),
    question("10", "Scene Understanding", "2000_2", "What is the weather?", ["Sun", "Rain", "Fog", "Snow"], "C"),
]


def write(folder: Path) -> None:
    """The questions, and the images below `SEED-Bench-image`; videos are not there."""
    names = sorted({row["data_id"] for row in QUESTIONS if row["data_type"] == "image"})
    made.write(folder, QUESTIONS, {name: picture((60 * number, 40, 120)) for number, name in enumerate(names)})
