"""MMHal-Bench's format: a list of records, eight types of questions in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_images, write_json

TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")
ROUNDS = 2
"""Questions of a type."""


class MmhalFormat(Format):
    """`response_template.json` and its folder of images."""

    name: Literal["mmhal"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        records, images = [], {}
        for number, (seen, fact) in enumerate(picked(scenes, ROUNDS * len(TYPES))):
            image = f"{seen.number}_o.jpg"
            contents = [str(thing) for thing in seen.things]
            records.append(
                record(number, f"https://farm.example.org/{image}", contents, fact.question, f"{fact.value}.")
            )
            images[image] = seen.jpeg
        write(folder, records, images)


def record(number: int, address: str, contents: Sequence[str], question: str, answer: str) -> dict[str, Any]:
    """The record at a place of the list.

    Args:
        address: of the image; its last part is the name of the file.
        contents: what the image shows.
    """
    return {
        "question_type": TYPES[number % len(TYPES)],
        "question_topic": "shapes",
        "image_id": f"{number:04x}",
        "image_src": address,
        "image_content": [*contents],
        "question": question,
        "gt_answer": answer,
        "model_answer": "",
    }


def write(folder: Path, records: Sequence[dict[str, Any]], images: dict[str, bytes]) -> None:
    """Write it as the repository has it."""
    write_json(folder / "response_template.json", records)
    write_images(folder / "images", images)
