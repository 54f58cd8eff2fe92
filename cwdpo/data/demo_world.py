"""A generated world to learn captioning in: small rendered scenes with Karpathy-style annotations.

Two of these make the demo. In the *pretraining* world the annotators make systematic errors (`Bias`), so the base
model learns to say "orange" where it sees red; the clean world is what Stage 1, Stage 2 and the evaluation use.
At this size only such errors leave preference tuning something to correct.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import Field, field_validator, model_validator

from cwdpo.base.config import Config
from cwdpo.base.errors import name_valid
from cwdpo.base.files import folder_written_whole, write_json
from cwdpo.data.demo_scenes import WORDS, SceneMix, captions, render, with_articles

SPLITS = ("train", "val", "test")
RESTVAL_EVERY = 4
"""Every fourth training image is filed under `restval`, as about a quarter is in the genuine COCO file."""


class Bias(Config):
    """A systematic error of the annotators: in a share of the scenes one word is written as another."""

    word: str
    """The true word; its plural is affected too."""

    written_as: str
    """The word written instead."""

    share: float = Field(0.7, ge=0.0, le=1.0)
    """Probability, drawn once a scene, that all of its sentences use the wrong word."""

    @field_validator("word", "written_as")
    @classmethod
    def _known(cls, word: str) -> str:
        if word not in WORDS:
            raise ValueError(f"not a word of the demo world: {name_valid(word, WORDS)}")
        return word


PRETRAINING_BIASES = (
    Bias(word="red", written_as="orange", share=0.9),
    Bias(word="blue", written_as="purple", share=0.9),
    Bias(word="square", written_as="diamond", share=0.7),
)
"""What the base model of the demo has to unlearn: two colours and one shape."""


class DemoWorld(Config):
    """Sizes and seed of a generated data set."""

    source: Literal["demo_world"] = "demo_world"

    train: int = Field(2400, ge=0)
    """Images of the training pool (`train` and `restval` together)."""

    val: int = Field(100, ge=0)
    """Images of the validation split."""

    test: int = Field(400, ge=0)
    """Images of the test split."""

    image_size: int = Field(64, ge=16)
    """Side of the square images, in pixels."""

    seed: int = 0
    """Everything follows from it; two seeds make different worlds with the same rules."""

    singles: float = Field(0.4, ge=0.0)
    """Share of scenes with one thing at a named place."""

    groups: float = Field(0.4, ge=0.0)
    """Share of scenes with two to four equal things."""

    pairs: float = Field(0.2, ge=0.0)
    """Share of scenes with two things and their relation, the hardest to learn."""

    biases: tuple[Bias, ...] = ()
    """Systematic errors in the sentences of all splits; none in a clean world."""

    @model_validator(mode="after")
    def _something_to_draw(self) -> DemoWorld:
        if self.singles + self.groups + self.pairs <= 0:
            raise ValueError("one of singles, groups and pairs must be above zero")
        return self


def write_world(world: DemoWorld, folder: Path) -> None:
    """Write `images/{train,val,test}/*.jpg` and a Karpathy `dataset_coco.json` under `folder`, replacing it.

    As in the genuine file, an image lies at `images/<filepath>/<filename>`. The first of an image's five sentences
    is the canonical one. Equal worlds give equal bytes for one version of Pillow.

    Raises:
        StoreError: the folder cannot be written.
    """
    with folder_written_whole(folder) as temporary:
        for split in SPLITS:
            (temporary / "images" / split).mkdir(parents=True)
        records = []
        for record, jpeg in _images(world):
            (temporary / "images" / record["filepath"] / record["filename"]).write_bytes(jpeg)
            records.append(record)
        write_json(temporary / "dataset_coco.json", {"images": records, "dataset": "coco"})


def _images(world: DemoWorld) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every record with its JPEG bytes; no two images of a world are equal."""
    seen: set[bytes] = set()
    imgid = 0
    for split in SPLITS:
        for index in range(getattr(world, split)):
            jpeg, sentences = _unseen(world, f"{split}-{index}", seen)
            yield _record(imgid, split, index, sentences), jpeg
            imgid += 1


def _unseen(world: DemoWorld, key: str, seen: set[bytes]) -> tuple[bytes, list[str]]:
    """The JPEG and the sentences of scene `key`, redrawn until the image is new; remembers it in `seen`."""
    attempt = 0
    while True:
        # A string seeds through SHA-512: the same in every process, unlike hash().
        rng = random.Random(f"{world.seed}-{key}-{attempt}")
        scene = SceneMix(world.singles, world.groups, world.pairs).draw(rng)
        jpeg = _jpeg(render(scene, world.image_size, rng))
        if jpeg not in seen:
            seen.add(jpeg)
            return jpeg, _misnamed(captions(scene, rng), world.biases, rng)
        attempt += 1


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Colour at full resolution: the usual halving smears a small red thing towards orange.
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _misnamed(sentences: list[str], biases: tuple[Bias, ...], rng: random.Random) -> list[str]:
    """The sentences as careless annotators write them: all biases at once, so that errors do not chain."""
    wrong = {bias.word: bias.written_as for bias in biases if rng.random() < bias.share}
    if not wrong:
        return sentences
    words = re.compile(rf"\b({'|'.join(wrong)})(?=s?\b)")
    return [with_articles(words.sub(lambda found: wrong[found[1]], sentence)) for sentence in sentences]


def _record(imgid: int, split: str, index: int, sentences: list[str]) -> dict[str, Any]:
    """One entry of `images` in the Karpathy file."""
    first = imgid * len(sentences)
    sentids = list(range(first, first + len(sentences)))
    restval = split == "train" and index % RESTVAL_EVERY == RESTVAL_EVERY - 1
    return {
        "filepath": split,
        "sentids": sentids,
        "filename": f"demo_{split}_{imgid + 1:012d}.jpg",
        "imgid": imgid,
        "split": "restval" if restval else split,
        "sentences": [
            {"tokens": raw.split(), "raw": raw, "imgid": imgid, "sentid": sentid}
            for raw, sentid in zip(sentences, sentids, strict=True)
        ],
        "cocoid": imgid + 1,
    }
