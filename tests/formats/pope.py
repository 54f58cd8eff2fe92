"""A small download of POPE: three files of one JSON object a line, and images of COCO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formats.pictures import picture

from cwdpo.data.demo_benchmarks.pope import SPLITS, row, write_split
from cwdpo.data.demo_benchmarks.writing import write_images

IMAGES = ("COCO_val2014_000000548882.jpg", "COCO_val2014_000000008211.jpg")
ABSENT = {"random": "zebra", "popular": "car", "adversarial": "fork"}


def rows(split: str) -> list[dict[str, Any]]:
    """Questions of a split: the present object is the same in all, the absent one is not."""
    asked = [(image, thing, label) for image in IMAGES for thing, label in (("oven", "yes"), (ABSENT[split], "no"))]
    return [row(number, *one) for number, one in enumerate(asked)]


def write(folder: Path) -> None:
    """The files below output/coco, the images below val2014."""
    for split in SPLITS:
        write_split(folder, split, rows(split))
    write_images(folder / "val2014", {name: picture((60 * n, 120, 40)) for n, name in enumerate(IMAGES)})
