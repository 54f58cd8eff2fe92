"""SEED-Bench's format: one JSON file of questions with four choices, images without a suffix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import Fact, picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_images, write_json

TYPES = {
    "Scene Understanding": 1,
    "Instance Identity": 2,
    "Instance Attributes": 3,
    "Instance Location": 4,
    "Instances Counting": 5,
    "Spatial Relation": 6,
    "Instance Interaction": 7,
    "Visual Reasoning": 8,
    "Text Understanding": 9,
    "Action Recognition": 10,
    "Action Prediction": 11,
    "Procedure Understanding": 12,
}
"""Dimensions; the last three are those of videos."""
OF_IMAGES = list(TYPES)[:9]
EACH = 3
"""Questions of a dimension."""
KINDS = ("colour", "shape", "count", "place")
"""Those with four values or more."""


class SeedBenchFormat(Format):
    """`SEED-Bench.json` and `SEED-Bench-image`."""

    name: Literal["seed_bench"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        asked = picked(scenes, EACH * len(OF_IMAGES), KINDS)
        questions = [_question(number, seen, fact) for number, (seen, fact) in enumerate(asked)]
        write(folder, questions, {_image(seen): seen.jpeg for seen, _ in asked})


def question(
    number: str,
    dimension: str,
    data: str,
    text: str,
    choices: Sequence[str],
    answer: str,
    kind: str = "image",
    **more: Any,
) -> dict[str, Any]:
    """An entry of `questions` with all keys of the genuine one."""
    lettered = {f"choice_{letter}": choice for letter, choice in zip("abcd", choices, strict=True)}
    asked = {"question": text, "question_id": number, "question_type_id": TYPES[dimension]}
    return {"answer": answer, **lettered, "data_id": data, "data_type": kind, **asked, **more}


def write(folder: Path, questions: Sequence[dict[str, Any]], images: Mapping[str, bytes]) -> None:
    """The questions, and the images by their names."""
    write_json(folder / "SEED-Bench.json", {"questions": questions, "question_type": TYPES})
    write_images(folder / "SEED-Bench-image", images)


def _question(number: int, seen: Seen, fact: Fact) -> dict[str, Any]:
    choices, place = fact.choices(number)
    dimension = OF_IMAGES[number % len(OF_IMAGES)]
    return question(str(number), dimension, _image(seen), fact.question, choices, "ABCD"[place])


def _image(seen: Seen) -> str:
    return f"{seen.number}_0"
