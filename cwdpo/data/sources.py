"""Where records come from: one configuration class per file format, and the digest of data outside the store."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, TypeAdapter, field_validator, model_validator

from cwdpo.base import files
from cwdpo.base.config import Config, Neutral, Place
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.identity import digest
from cwdpo.base.trail import note
from cwdpo.data.demo_world import DemoWorld
from cwdpo.data.karpathy import read_karpathy
from cwdpo.data.llava import LlavaReader
from cwdpo.data.nocaps import read_nocaps
from cwdpo.data.ocrvqa import QUESTION, OcrvqaReader
from cwdpo.data.preferences import read_preferences
from cwdpo.data.records import Record, first_images
from cwdpo.data.textcaps import read_textcaps
from cwdpo.objectives.supply import SUPPLIES, Supply


class Source(Config):
    """What all formats share."""

    may_supply: ClassVar[frozenset[Supply]] = frozenset()
    """What rejected responses in a file of this format may come with."""
    in_evaluation: ClassVar[Mapping[str, Any]] = {}
    """Fields beside `prompt` and `stage1_share` that only training reads, and what they are in evaluation."""

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
        """True when an epoch trains on one record of each image, drawn by seed."""
        return False

    def for_evaluation(self) -> Self:
        """The same data with what only training reads set back, so that it does not change what is evaluated.

        Raises:
            ConfigError: the data has no val or test split.
        """
        fields = type(self).model_fields
        reset = {name: fields[name].default for name in ("prompt", "stage1_share")}
        return self.model_copy(update={**reset, **self.in_evaluation})

    def read(self, folder: Path, left_out: Counter[str] | None = None) -> list[Record]:
        """The records, from the files as they lie in `folder`, the data root; no more than `limit` allows.

        Args:
            left_out: what the files hold but no record can be made of is counted here, by reason.
        """
        records = self.read_all(folder, Counter() if left_out is None else left_out)
        return first_images(records, self.limit) if self.limit else records

    @abstractmethod
    def read_all(self, folder: Path, left_out: Counter[str]) -> list[Record]:
        """Every record of the files."""


class Captions(Source):
    """Data with several captions of an image."""

    in_evaluation: ClassVar[Mapping[str, Any]] = {"captions_per_image": "first"}

    captions_per_image: Literal["first", "draw", "all"] = "draw"
    """Train on the first caption of an image, on one drawn by seed each epoch, or on all; the rest only scores."""

    @property
    def one_per_image(self) -> bool:
        """True when captions are drawn."""
        return self.captions_per_image == "draw"


class Files(Source):
    """Data that lies in a folder of the user's."""

    root: Annotated[Path, Place()]
    """The data folder; image paths are relative to it."""
    annotations: str
    """The annotation file, relative to `root`."""

    @property
    def annotation_files(self) -> tuple[str, ...]:
        """Every file that is read, relative to `root`."""
        return (self.annotations,)

    @property
    def picks(self) -> tuple[object, ...]:
        """Settings beside `limit` that decide which images are used."""
        return ()


class Karpathy(Captions, Files):
    """A Karpathy split file (`dataset_coco.json`, `dataset_flickr30k.json`) and a folder of images."""

    source: Literal["karpathy"]
    annotations: str = "dataset_coco.json"
    """The split file, relative to `root`."""
    images: str = ""
    """Folder under `root` that the file's `filepath` entries are relative to."""

    @property
    def picks(self) -> tuple[object, ...]:
        """The folder of the images."""
        return (self.images,)

    def read_all(self, folder: Path, left_out: Counter[str]) -> list[Record]:
        """See `cwdpo.data.karpathy`."""
        file = folder / self.annotations
        return read_karpathy(file, self.images, self.prompt, self.captions_per_image, self.stage1_share)


class Preferences(Files):
    """A JSONL file of preference records and a folder of images."""

    may_supply: ClassVar[frozenset[Supply]] = frozenset(SUPPLIES)

    source: Literal["preferences"]
    annotations: str = "preferences.jsonl"
    """The records, relative to `root`."""

    def read_all(self, folder: Path, left_out: Counter[str]) -> list[Record]:
        """See `cwdpo.data.preferences`."""
        return read_preferences(folder / self.annotations, self.prompt, self.stage1_share)


class Llava(Files):
    """Conversations in LLaVA's format (`llava_instruct_150k.json`) and a folder of images.

    Entries without an image, or with several, are left out and counted in the summary of the records.
    """

    in_evaluation: ClassVar[Mapping[str, Any]] = {"turns": "first"}

    source: Literal["llava"]
    prompt: str = "Describe the image briefly."
    """The question, where an entry has no words beside the image; all others bring their own."""
    annotations: str = "llava_instruct_150k.json"
    """The conversations, relative to `root`."""
    images: str = ""
    """Folder under `root` that the file's `image` entries are relative to, such as `train2017`."""
    turns: Literal["first", "all"] = "first"
    """Train on the first question and answer of each entry, or on each as a record of its own. A later question then
    stands alone, without the turns before it, which it may speak of."""
    val_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the images that become the val split, by a hash of the image path: the format has no split."""
    test_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the images that become the test split, in the same way."""

    @model_validator(mode="after")
    def _leaves_training(self) -> Llava:
        if self.val_share + self.test_share >= 1:
            raise ValueError(f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on")
        return self

    @property
    def picks(self) -> tuple[object, ...]:
        """The folder of the images, and the shares, which decide what is first in a split."""
        return (self.images, self.val_share, self.test_share)

    def for_evaluation(self) -> Self:
        """See `Source`; data that holds nothing out is refused."""
        if not self.val_share + self.test_share:
            raise ConfigError(
                "data: a LLaVA file has no val or test split to evaluate on; hold some of its images out, such as"
                " test_share: 0.01, or give the benchmark data of its own"
            )
        return super().for_evaluation()

    def read_all(self, folder: Path, left_out: Counter[str]) -> list[Record]:
        """See `cwdpo.data.llava`."""
        reader = LlavaReader(
            self.images, self.prompt, self.turns, self.stage1_share, self.val_share, self.test_share
        )  # fmt: skip
        return reader.read(folder / self.annotations, left_out)


class Ocrvqa(Files):
    """OCR-VQA's questions about book covers (`dataset.json`) and a folder of images."""

    in_evaluation: ClassVar[Mapping[str, Any]] = {"questions_per_image": "all"}

    source: Literal["ocrvqa"]
    prompt: str = "{question}\nAnswer the question using a single word or phrase."
    """The user's turn; `{question}` stands for the question. The default is how LLaVA-1.5 asks for short answers."""
    annotations: str = "dataset.json"
    """The questions, relative to `root`."""
    images: str = "images"
    """Folder under `root` with the images, named by their keys."""
    image_suffix: str | None = None
    """Ending of every image file; None takes that of its URL, as the data set's own loader does. LLaVA's copy of the
    images has `.jpg` for all."""
    questions_per_image: Literal["first", "draw", "all"] = "all"
    """Train on the first question about an image, on one drawn by seed each epoch, or on all."""

    @field_validator("prompt")
    @classmethod
    def _asks(cls, prompt: str) -> str:
        if QUESTION not in prompt:
            raise ValueError(f"must hold {QUESTION}, which stands for the question")
        return prompt

    @property
    def one_per_image(self) -> bool:
        """True when questions are drawn."""
        return self.questions_per_image == "draw"

    @property
    def picks(self) -> tuple[object, ...]:
        """What the paths of the images are made of."""
        return (self.images, self.image_suffix)

    def read_all(self, folder: Path, left_out: Counter[str]) -> list[Record]:
        """See `cwdpo.data.ocrvqa`."""
        reader = OcrvqaReader(
            self.images, self.image_suffix, self.prompt, self.questions_per_image, self.stage1_share
        )  # fmt: skip
        return reader.read(folder / self.annotations)


class Textcaps(Captions, Files):
    """TextCaps (`TextCaps_0.1_train.json`, `TextCaps_0.1_val.json`) and the folder of TextVQA's images."""

    source: Literal["textcaps"]
    annotations: str = "TextCaps_0.1_train.json"
    """The captions of the training split, relative to `root`."""
    val_annotations: str | None = "TextCaps_0.1_val.json"
    """Those of the val split, relative to `root`; None reads none. No test split: benchmarks say `split: val`."""
    images: str = "train_images"
    """Folder under `root` with the images of both splits."""

    @property
    def annotation_files(self) -> tuple[str, ...]:
        """The file of each split."""
        return (self.annotations, *([self.val_annotations] if self.val_annotations else []))

    @property
    def picks(self) -> tuple[object, ...]:
        """The folder of the images."""
        return (self.images,)

    def read_all(self, folder: Path, left_out: Counter[str]) -> list[Record]:
        """See `cwdpo.data.textcaps`."""
        paths = [folder / name for name in self.annotation_files]
        return read_textcaps(paths, self.images, self.prompt, self.captions_per_image, self.stage1_share)


class Nocaps(Files):
    """NoCaps' captions (`nocaps_val_4500_captions.json`) and a folder of images: all of it val, to score only."""

    source: Literal["nocaps"]
    annotations: str = "nocaps_val_4500_captions.json"
    """The captions with the domain of each image, relative to `root`."""
    images: str = ""
    """Folder under `root` with the images, which are fetched one by one and so lie where one put them."""

    @property
    def picks(self) -> tuple[object, ...]:
        """The folder of the images."""
        return (self.images,)

    def read_all(self, folder: Path, left_out: Counter[str]) -> list[Record]:
        """See `cwdpo.data.nocaps`."""
        return read_nocaps(folder / self.annotations, self.images, self.prompt)


class Demo(Captions):
    """A generated world, written in COCO's own format and read by the same reader."""

    source: Literal["demo_world"]
    world: DemoWorld = DemoWorld()
    """What to render."""
    captions_per_image: Literal["first", "draw", "all"] = "first"
    """Five wordings mixed in training stall a model of this size, so the canonical one is trained on."""

    def read_all(self, folder: Path, left_out: Counter[str]) -> list[Record]:
        """See `cwdpo.data.karpathy`."""
        file = folder / "dataset_coco.json"
        return read_karpathy(file, "images", self.prompt, self.captions_per_image, self.stage1_share)


DataSource = Annotated[
    Karpathy | Preferences | Llava | Ocrvqa | Textcaps | Nocaps | Demo, Field(discriminator="source")
]

DATA_SOURCE: TypeAdapter[Any] = TypeAdapter(DataSource)
"""Makes one from what `model_dump` wrote."""


def data_root(source: Files) -> Path:
    """The data folder; raises `ConfigError` when it or an annotation file is not there."""
    root = source.root.expanduser()
    if not root.is_dir():
        raise ConfigError(f"data.root: no such folder '{root}'")
    for name in source.annotation_files:
        if not (root / name).is_file():
            key = "annotations" if name == source.annotations else "val_annotations"
            raise ConfigError(f"data.{key}: no file '{name}' in '{root}'")
    return root


REREAD = 20_000
"""Up to this many images their sizes are read at every plan."""


def data_digest(source: Files, cache: Path) -> str:
    """Digest of the annotation files' bytes and of the path and size of each image that is used.

    The digest of a large set is kept in `cache` (a folder) for as long as the annotation files are unchanged: 123,000
    sizes take a minute on a parallel file system. Touch one after changing an image. Small sets are read anew.

    Raises:
        DataError: an annotated image is missing.
    """
    root = data_root(source)
    annotations = [root / name for name in source.annotation_files]
    stats = [path.stat() for path in annotations]
    stamps = [number for stat in stats for number in (stat.st_size, stat.st_mtime_ns)]
    limit = [source.limit] if source.limit else []
    key = digest([str(root.resolve()), *source.annotation_files, *source.picks, *stamps, *limit])
    kept = cache / f"data-{key[:16]}.json"
    if kept.exists() and files.read_json(kept)["images"] > REREAD:
        return str(files.read_json(kept)["digest"])
    names = sorted({record.image for record in source.read(root)})
    value = digest([*map(files.sha256_file, annotations), [[name, _size(root, name)] for name in names]])
    files.write_json(kept, {"digest": value, "root": str(root), "images": len(names)})
    return value


def _size(root: Path, name: str) -> int:
    note(root / name)
    try:
        return os.stat(root / name).st_size
    except OSError as error:
        raise DataError(f"image {root / name}: {error.strerror}") from error
