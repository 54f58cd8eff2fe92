"""CHAIR's input: instances and captions of COCO's val2014.

Of all words of the world one names an object of COCO: who calls a red circle an orange circle has mentioned an orange,
by the metric's rules. So an orange is annotated where something is orange, and a mention anywhere else is a
hallucination, just the one that the model of the demo has to unlearn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen, coco_images
from cwdpo.data.demo_benchmarks.writing import write_images, write_json

ORANGE = "orange"
CATEGORIES = {55: ORANGE}
EACH = 16
"""At most so many images with an orange, and so many without."""


class ChairFormat(Format):
    """`instances_val2014.json`, `captions_val2014.json` and images of val2014."""

    name: Literal["chair"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        shown = [seen for seen in scenes if _oranges(seen)][:EACH]
        shown += [seen for seen in scenes if not _oranges(seen)][:EACH]
        found = {seen.number: _oranges(seen) for seen in shown}
        sentences = [(seen.number, sentence) for seen in shown for sentence in seen.sentences]
        write(folder, instances(found, CATEGORIES, shown[0].size), sentences, coco_images(shown))


def instances(
    found: Mapping[int, Sequence[str]], categories: Mapping[int, str], size: tuple[int, int]
) -> dict[str, list[dict[str, Any]]]:
    """The content of instances_val2014.json; nobody reads where objects are, so that it is the same for all.

    Args:
        found: objects by image.
        categories: names by id.
        size: of every image, in pixels.
    """
    ids = {name: number for number, name in categories.items()}
    pairs = [(image, ids[name]) for image, names in found.items() for name in names]
    box = {
        "segmentation": [[1.0, 2.0, 3.0, 2.0, 3.0, 4.0]],
        "area": 2.0,
        "iscrowd": 0,
        "bbox": [1.0, 2.0, 2.0, 2.0],
    }
    return {
        "images": [
            {"id": image, "file_name": f"COCO_val2014_{image:012d}.jpg", "width": size[0], "height": size[1]}
            for image in found
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, **box}
            for number, (image, category) in enumerate(pairs)
        ],
        "categories": [{"id": number, "name": name, "supercategory": "thing"} for number, name in categories.items()],
    }


def captions(images: Sequence[dict[str, Any]], texts: Iterable[tuple[int, str]]) -> dict[str, Any]:
    """The content of captions_val2014.json.

    Args:
        texts: pairs of an image's id and a caption of it.
    """
    annotations = [{"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(texts)]
    return {"images": images, "annotations": annotations}


def write(
    folder: Path, content: Mapping[str, Any], texts: Iterable[tuple[int, str]], images: Mapping[str, bytes]
) -> None:
    """Annotations below annotations, images (by their names) below val2014."""
    write_json(folder / "annotations" / "instances_val2014.json", content)
    write_json(folder / "annotations" / "captions_val2014.json", captions(content["images"], texts))
    write_images(folder / "val2014", images)


def _oranges(seen: Seen) -> list[str]:
    return [ORANGE for thing in seen.things if thing.colour == ORANGE]
