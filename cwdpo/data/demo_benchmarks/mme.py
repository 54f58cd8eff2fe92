"""MME's format: a folder a task, with two yes-no questions about each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from cwdpo.data.demo_benchmarks.facts import picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_file, write_text

Pair = tuple[tuple[str, str], tuple[str, str]]
"""Two questions, each with its answer."""
APART = ("posters", "celebrity", "scene", "landmark", "artwork")
"""Tasks whose images lie in images/ and whose texts lie in questions_answers_YN/."""
TASKS = (
    "existence", "count", "position", "color", *APART, "OCR", "commonsense_reasoning", "numerical_calculation",
    "text_translation", "code_reasoning",
)  # fmt: skip
KINDS = ("shape", "count", "place", "colour", "size")
"""What tasks ask about, in turn. The world has no posters and no texts, but without a question of each task there is
no sum."""


class MmeFormat(Format):
    """The release: images and their texts."""

    name: Literal["mme"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        facts = picked(scenes, len(TASKS), KINDS)
        for number, (task, (seen, fact)) in enumerate(zip(TASKS, facts, strict=True)):
            questions = asked(fact.claim(fact.value), "Yes"), asked(fact.claim(fact.false(number)), "No")
            write_task(folder, task, {f"{seen.number:012d}.jpg": (questions, seen.jpeg)})


def asked(question: str, answer: str, gap: str = " ") -> tuple[str, str]:
    """A question with the wish for yes or no, which is part of it, and its answer."""
    return f"{question}{gap}Please answer yes or no.", answer


def write_task(folder: Path, task: str, images: Mapping[str, tuple[Pair, bytes]]) -> None:
    """Images by their names, and a text with the questions about each."""
    home = folder / "MME_Benchmark_release_version" / task
    places = (home / "images", home / "questions_answers_YN") if task in APART else (home, home)
    for name, (questions, content) in images.items():
        write_file(places[0] / name, content)
        lines = "\n".join(f"{question}\t{answer}" for question, answer in questions)  # and no line's end at the end
        write_text(places[1] / Path(name).with_suffix(".txt").name, lines)
