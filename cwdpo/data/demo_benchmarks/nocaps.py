"""NoCaps' format: captions with a domain of each image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_images, write_json
from cwdpo.data.demo_scenes import Group, Pair, Single
from cwdpo.data.nocaps import FILE

DOMAINS = {Single: "in-domain", Group: "near-domain", Pair: "out-domain"}
"""The harder a kind of scene is, the further away is its domain."""


class NocapsFormat(Format):
    """`nocaps_val_4500_captions.json` and images, all test scenes of the world."""

    name: Literal["nocaps"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        images = {seen.number: (_image(seen), DOMAINS[type(seen.scene)]) for seen in scenes}
        captions = [(seen.number, sentence) for seen in scenes for sentence in seen.sentences]
        write(folder, content(images, captions, scenes[0].size), {_image(seen): seen.jpeg for seen in scenes})


def content(
    images: Mapping[int, tuple[str, str]], captions: Iterable[tuple[int, str]], size: tuple[int, int] = (40, 30)
) -> dict[str, Any]:
    """The file with all keys of the genuine one.

    Args:
        images: id -> OpenImages' id and domain.
        captions: pairs of an image's id and a caption of it.
        size: of every image, in pixels.
    """
    entries = [
        {
            "id": number,
            "open_images_id": name,
            "height": size[1],
            "width": size[0],
            "coco_url": f"https://example.org/val/{name}.jpg",
            "file_name": f"{name}.jpg",
            "license": 0,
            "date_captured": "2018-11-06 11:04:33",
            "domain": domain,
        }
        for number, (name, domain) in images.items()
    ]
    annotations = [{"image_id": number, "id": place, "caption": text} for place, (number, text) in enumerate(captions)]
    info = {"version": "0.1", "description": "nocaps validation dataset", "year": 2018, "contributor": "nocaps team"}
    return {"licenses": [], "info": info, "images": entries, "annotations": annotations}


def write(folder: Path, entries: Mapping[str, Any], images: Mapping[str, bytes], place: str = "") -> None:
    """The captions, and the images (by OpenImages' ids) beside them or in a folder of that name."""
    write_json(folder / FILE, entries)
    write_images(folder / place, {f"{name}.jpg": image for name, image in images.items()})


def _image(seen: Seen) -> str:
    return f"{seen.number:016x}"
