"""SHR's input: its own annotations, and image data and region descriptions as Visual Genome has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_file, write_json, write_lines

IMAGES = 12


class ShrFormat(Format):
    """The SHR annotations, and what they take of Visual Genome."""

    name: Literal["shr"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        shown = scenes[:IMAGES]
        images = [image_data(seen.number, *seen.size) for seen in shown]
        write_genome(folder / "VG", images, [_regions(seen) for seen in shown], [seen.jpeg for seen in shown])
        facts = {seen.number: seen.sentences for seen in shown}
        write_annotations(folder / "shr", [*facts], facts)


def image_data(number: int, width: int, height: int) -> dict[str, Any]:
    """An element of image_data.json; which of the two folders the image lies in is in the address."""
    part = "VG_100K" if number % 2 else "VG_100K_2"
    url = f"https://cs.example.edu/people/rak248/{part}/{number}.jpg"
    return {"width": width, "url": url, "height": height, "image_id": number, "coco_id": None, "flickr_id": None}


def region(number: int, place: int, box: Sequence[int], phrase: str) -> dict[str, Any]:
    """A region of an image.

    Args:
        place: unique in the image.
        box: left, top, width and height in pixels.
    """
    left, top, width, height = box
    size = {"width": width, "height": height}
    return {"region_id": 10 * number + place, **size, "image_id": number, "phrase": phrase, "y": top, "x": left}


def write_genome(
    folder: Path, images: Sequence[dict[str, Any]], regions: Sequence[dict[str, Any]], contents: Sequence[bytes]
) -> None:
    """Image data, elements of region_descriptions.json, and the bytes of each image."""
    write_json(folder / "image_data.json", images)
    write_json(folder / "region_descriptions.json", regions)
    for image, content in zip(images, contents, strict=True):
        write_file(folder.joinpath(*image["url"].split("/")[-2:]), content)


def write_annotations(folder: Path, wanted: Sequence[int], facts: Mapping[int, Sequence[str]]) -> None:
    """Which images are described, and what people say of them, in two parts."""
    write_json(folder / "val_images_final.json", [{"image_id": number} for number in wanted])
    rows = [{str(number): [*texts]} for number, texts in facts.items()]
    half = (len(rows) + 1) // 2
    for part, own in ((1, rows[:half]), (2, rows[half:])):
        write_lines(folder / f"shr_factual_part{part}.jsonl", own)


def _regions(seen: Seen) -> dict[str, Any]:
    """What is there; where exactly is not in a world's files, so that a region is the whole image."""
    regions = [region(seen.number, place, (0, 0, *seen.size), str(thing)) for place, thing in enumerate(seen.things)]
    return {"regions": regions, "id": seen.number}
