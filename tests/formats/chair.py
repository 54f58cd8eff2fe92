"""A small download of COCO's val2014: instances, captions and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import chair as made

CATEGORIES = {1: "person", 3: "car", 6: "bus", 18: "dog", 34: "frisbee", 35: "skis", 46: "wine glass", 77: "cell phone"}
"""Ids have gaps, as the genuine ones."""
INSTANCES: dict[int, list[str]] = {
    42: ["dog", "dog", "frisbee"],
    73: ["bus", "person", "person"],
    133: ["wine glass"],
    139: [],
    9448: ["skis"],
    581929: ["cell phone", "car"],
}
CAPTIONS: dict[int, list[str]] = {
    42: ["A puppy jumps for a frisbee.", "A man throws it."],
    73: ["A bus at the traffic lights.", "Buses and people."],
    133: ["Two glasses on a table.", "Knives beside it."],
    139: ["An empty room.", "Walls"],
    9448: ["Somebody on skis"],
    581929: ["A phone on a car", "A mobile phone."],
}
TEXTS = [(image, text) for image, texts in CAPTIONS.items() for text in texts]


def instances() -> dict[str, list[dict[str, Any]]]:
    """The content of instances_val2014.json; images not in the order of ids, as in the genuine file."""
    content = made.instances(INSTANCES, CATEGORIES, (40, 30))
    return {**content, "images": content["images"][::-1]}


def captions() -> dict[str, Any]:
    """The content of captions_val2014.json."""
    return made.captions(instances()["images"], TEXTS)


def write(folder: Path) -> None:
    """Annotations below annotations, images below val2014."""
    names = [f"COCO_val2014_{image:012d}.jpg" for image in INSTANCES]
    images = {name: picture((40 * number, 120, 40)) for number, name in enumerate(names)}
    made.write(folder, instances(), TEXTS, images)
