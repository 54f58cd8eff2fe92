"""Questions of one's own: a JSONL file, with some conversations of two turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import Fact, picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_images, write_lines
from cwdpo.data.records import relative_image

QUESTIONS = 24
TALKS = 3
"""One of so many is a conversation."""


class OwnFormat(Format):
    """A JSONL file of questions and a folder of pictures."""

    name: Literal["own"]
    file: str = "questions.jsonl"

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        asked = picked(scenes, QUESTIONS)
        rows = [_row(number, seen, fact) for number, (seen, fact) in enumerate(asked)]
        write(folder / relative_image(self.file, "file"), rows, {_image(seen): seen.jpeg for seen, _ in asked})


def write(path: Path, rows: Sequence[dict[str, Any]], pictures: dict[str, bytes]) -> None:
    """The questions, and pictures beside them."""
    write_lines(path, rows)
    write_images(path.parent / "pictures", pictures)


def _image(seen: Seen) -> str:
    return f"{seen.number}.jpg"


def _row(number: int, seen: Seen, fact: Fact) -> dict[str, Any]:
    turns = {"question": fact.question} if number % TALKS else {"turns": ["Describe the image.", fact.question]}
    return {"id": str(number), "image": _image(seen), **turns, "answer": fact.value, "category": fact.kind}
