"""A small download of SHR: its own annotations, and what it takes of Visual Genome, with more images than wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import shr as made

WANTED = (521, 2, 811, 1044, 30, 2405)
OTHERS = (1, 7)


def image_data(number: int) -> dict[str, Any]:
    """An element of image_data.json."""
    return made.image_data(number, 800, 600)


def region(number: int, x: int, phrase: str) -> dict[str, Any]:
    return made.region(number, x, (x, 30, 100, 75), phrase)


def regions(number: int) -> dict[str, Any]:
    """An element of region_descriptions.json; a region without words says nothing."""
    own = [region(number, 4, f"a boat with number {number}"), region(number, 8, ""), region(number, 700, "calm water")]
    return {"regions": own, "id": number}


IMAGES = [image_data(number) for number in (*OTHERS, *sorted(WANTED))]
REGIONS = [{"regions": [], "id": 99}, *(regions(number) for number in (*OTHERS, *sorted(WANTED)))]
FACTS = {521: ["Two men stand on the pier.", "It is “noon”."], 30: ["The boat is red."], 811: ["Nobody rows."]}


def write(folder: Path) -> None:
    """Write both downloads side by side."""
    pictures = [picture((one["image_id"] % 250, 90, 200)) for one in IMAGES]
    made.write_genome(folder / "VG", IMAGES, REGIONS, pictures)
    made.write_annotations(folder / "shr", WANTED, FACTS)
