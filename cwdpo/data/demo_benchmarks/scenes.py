"""Scenes of a generated world, read back from its files: the canonical sentence of an image says all of its scene."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations, product
from pathlib import Path

from PIL import Image

from cwdpo.base.errors import DataError
from cwdpo.data.demo_scenes import (
    COLOURS,
    COUNTS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    Group,
    Pair,
    Scene,
    Single,
    Thing,
    with_articles,
)
from cwdpo.data.karpathy import read_karpathy
from cwdpo.data.records import Record

SPLIT = "test"
"""The split of a world that is asked about."""


@dataclass(frozen=True)
class Seen:
    """A scene with its image.

    Attributes:
        number: of the image, unique in the world and above zero.
        sentences: true descriptions, the canonical one first.
        jpeg: the bytes of the image.
    """

    number: int
    scene: Scene
    sentences: tuple[str, ...]
    jpeg: bytes

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things in it."""
        if isinstance(self.scene, Pair):
            return self.scene.first, self.scene.second
        return (self.scene.thing,) * (self.scene.count if isinstance(self.scene, Group) else 1)

    @property
    def coco_name(self) -> str:
        """Name of the image file, as in COCO's val2014."""
        return f"COCO_val2014_{self.number:012d}.jpg"

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        with Image.open(io.BytesIO(self.jpeg)) as image:
            return image.size

    @property
    def png(self) -> bytes:
        """The image in another format."""
        stream = io.BytesIO()
        with Image.open(io.BytesIO(self.jpeg)) as image:
            image.save(stream, "PNG")
        return stream.getvalue()


def read_scenes(world: Path) -> list[Seen]:
    """The test scenes of a world, in the order of its file.

    Raises:
        DataError: a first sentence is not the canonical one of any scene.
    """
    path = world / "dataset_coco.json"
    records = read_karpathy(path, "images", "", "first", stage1_share=0.5)
    return [_seen(record, world, path) for record in records if record.split == SPLIT]


def coco_images(scenes: Sequence[Seen]) -> dict[str, bytes]:
    """Image files as in COCO's val2014."""
    return {seen.coco_name: seen.jpeg for seen in scenes}


def _seen(record: Record, world: Path, path: Path) -> Seen:
    scene = _known().get(record.chosen)
    if scene is None:
        raise DataError(
            f"{path}, image {record.image_id}: '{record.chosen}' is no canonical sentence of a generated scene"
        )
    return Seen(int(record.image_id), scene, record.references, (world / record.image).read_bytes())


@cache
def _known() -> dict[str, Scene]:
    """Every scene that there can be, by its canonical sentence."""
    things = [Thing(*looks) for looks in product(COLOURS, SHAPES, SIZES)]
    scenes: list[Scene] = [Single(*parts) for parts in product(things, PLACES)]
    scenes += [Group(*parts) for parts in product(things, COUNTS)]
    scenes += [Pair(*both, relation) for both in permutations(things, 2) for relation in RELATIONS]
    return {with_articles(scene.wordings()[0]): scene for scene in scenes}
