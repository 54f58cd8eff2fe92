"""MM-Vet's format: one JSON object of open questions, each with the abilities that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_images, write_json

QUESTIONS = 18
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
"""Questions have them in turn: the world has nothing to read or to know, but each is a column."""


class MmVetFormat(Format):
    """`mm-vet.json` and its folder of images."""

    name: Literal["mm_vet"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        entries, images = {}, {}
        for number, (seen, fact) in enumerate(picked(scenes, QUESTIONS)):
            needed = CAPABILITIES[number % len(CAPABILITIES)]
            entries[f"v1_{number}"] = found = entry(number, fact.question, fact.value, needed)
            images[found["imagename"]] = seen.jpeg
        write(folder, entries, images)


def entry(number: int, question: str, answer: str, *capability: str, suffix: str = "jpg") -> dict[str, Any]:
    """An entry of mm-vet.json."""
    name = f"v1_{number}.{suffix}"
    return {
        "imagename": name,
        "question": question,
        "answer": answer,
        "imagesource": "own",
        "capability": [*capability],
    }


def write(folder: Path, entries: Mapping[str, dict[str, Any]], images: dict[str, bytes]) -> None:
    """Write it as mm-vet.zip unpacks."""
    write_json(folder / "mm-vet" / "mm-vet.json", entries)
    write_images(folder / "mm-vet" / "images", images)
