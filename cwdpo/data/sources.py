"""Where records come from: one configuration class per file format, and the digest of data outside the store."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from cwdpo.base import files
from cwdpo.base.config import Config, Neutral, Place
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.identity import digest
from cwdpo.data.demo_world import DemoWorld
from cwdpo.data.karpathy import read_karpathy
from cwdpo.data.preferences import read_preferences
from cwdpo.data.records import Record, first_images
from cwdpo.objectives.supply import SUPPLIES, Supply


class Source(Config):
    """What all formats share."""

    may_supply: ClassVar[frozenset[Supply]] = frozenset()
    """What rejected responses in a file of this format may come with."""

    prompt: str = "Describe the image briefly."
    """The user's turn, beside the image."""
    stage1_share: float = Field(default=0.75, gt=0, lt=1)
    """Share of the training images that Stage 1 takes; the rest is Stage 2's. By image, independent of seeds."""
    check_images: Annotated[Literal["decode", "exists"], Place()] = "decode"
    """Decode every image before training, or only look whether it is there (faster on slow file systems)."""
    limit: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Use only the first so many images, in the order of the file, of val, of test and of each stage's share of train;
    the others are not even looked at. Scores are marked as partial."""

    @property
    def one_per_image(self) -> bool:
        """True when an epoch trains on one caption of each image, drawn by seed."""
        return getattr(self, "captions_per_image", "all") == "draw"

    def for_evaluation(self) -> Self:
        """The same data with what only training reads set back, so that it does not change what is evaluated."""
        fields = type(self).model_fields
        reset = {"prompt": fields["prompt"].default, "stage1_share": fields["stage1_share"].default}
        if "captions_per_image" in fields:
            reset["captions_per_image"] = "first"
        return self.model_copy(update=reset)

    def read(self, folder: Path) -> list[Record]:
        """The records, from the files as they lie in `folder`, the data root; no more than `limit` allows."""
        records = self.read_all(folder)
        return first_images(records, self.limit) if self.limit else records

    @abstractmethod
    def read_all(self, folder: Path) -> list[Record]:
        """Every record of the files."""


class Karpathy(Source):
    """A Karpathy split file (`dataset_coco.json`, `dataset_flickr30k.json`) and a folder of images."""

    source: Literal["karpathy"]
    root: Annotated[Path, Place()]
    """The data folder; image paths are relative to it."""
    annotations: str = "dataset_coco.json"
    """The split file, relative to `root`."""
    images: str = ""
    """Folder under `root` that the file's `filepath` entries are relative to."""
    captions_per_image: Literal["first", "draw", "all"] = "draw"
    """Train on the first caption of an image, on one drawn by seed each epoch, or on all; the rest only scores."""

    def read_all(self, folder: Path) -> list[Record]:
        """See `cwdpo.data.karpathy`."""
        file = folder / self.annotations
        return read_karpathy(file, self.images, self.prompt, self.captions_per_image, self.stage1_share)


class Preferences(Source):
    """A JSONL file of preference records and a folder of images."""

    may_supply: ClassVar[frozenset[Supply]] = frozenset(SUPPLIES)

    source: Literal["preferences"]
    root: Annotated[Path, Place()]
    """Folder that image paths are relative to."""
    annotations: str = "preferences.jsonl"
    """The records, relative to `root`."""

    def read_all(self, folder: Path) -> list[Record]:
        """See `cwdpo.data.preferences`."""
        return read_preferences(folder / self.annotations, self.prompt, self.stage1_share)


class Demo(Source):
    """A generated world, written in COCO's own format and read by the same reader."""

    source: Literal["demo_world"]
    world: DemoWorld = DemoWorld()
    """What to render."""
    captions_per_image: Literal["first", "draw", "all"] = "first"
    """Five wordings mixed in training stall a model of this size, so the canonical one is trained on."""

    def read_all(self, folder: Path) -> list[Record]:
        """See `cwdpo.data.karpathy`."""
        file = folder / "dataset_coco.json"
        return read_karpathy(file, "images", self.prompt, self.captions_per_image, self.stage1_share)


DataSource = Annotated[Karpathy | Preferences | Demo, Field(discriminator="source")]


def data_root(source: Karpathy | Preferences) -> Path:
    """The data folder, checked to be there."""
    root = source.root.expanduser()
    if not root.is_dir():
        raise ConfigError(f"data.root: no such folder '{root}'")
    if not (root / source.annotations).is_file():
        raise ConfigError(f"data.annotations: no file '{source.annotations}' in '{root}'")
    return root


REREAD = 20_000
"""Up to this many images their sizes are read at every plan."""


def data_digest(source: Karpathy | Preferences, cache: Path) -> str:
    """Digest of the annotation file's bytes and of the path and size of each image that is used.

    The digest of a large set is kept in `cache` (a folder) for as long as the annotation file is unchanged: 123,000
    sizes take a minute on a parallel file system. Touch the file after changing an image. Small sets are read anew.

    Raises:
        DataError: an annotated image is missing.
    """
    root = data_root(source)
    annotations = root / source.annotations
    stat = annotations.stat()
    images = source.images if isinstance(source, Karpathy) else ""
    limit = [source.limit] if source.limit else []
    key = digest([str(root.resolve()), source.annotations, images, stat.st_size, stat.st_mtime_ns, *limit])
    kept = cache / f"data-{key[:16]}.json"
    if kept.exists() and files.read_json(kept)["images"] > REREAD:
        return str(files.read_json(kept)["digest"])
    names = sorted({record.image for record in source.read(root)})
    value = digest([files.sha256_file(annotations), [[name, _size(root, name)] for name in names]])
    files.write_json(kept, {"digest": value, "root": str(root), "images": len(names)})
    return value


def _size(root: Path, name: str) -> int:
    try:
        return os.stat(root / name).st_size
    except OSError as error:
        raise DataError(f"image {root / name}: {error.strerror}") from error
