"""CHAIR: which objects does a detailed description name that are not in the image?

Rohrbach et al. (2018), "Object Hallucination in Image Captioning"; rules of its chair.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from cwdpo.base.errors import DataError
from cwdpo.data.annotations import list_of, read_annotations
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.objects.named import coco_names
from cwdpo.evaluate.benchmarks.shares import mean_of
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import Row, number_of, text_of, with_keys
from cwdpo.model.decoding import Decoding

NOTHING_NAMED = "not available: no object was named"


class Chair(Questions):
    """Random images of COCO's val2014; an object is in one if it was annotated or a human caption names it."""

    name: Literal["chair"]
    images: int = Field(default=500, gt=0)
    """How many images are described; all where there are fewer."""
    seed: int = 0
    """Which ones: a sample of all image ids of `instances_val2014.json`."""
    prompt: str = "Describe this image in detail."
    """The user's turn."""
    decoding: Decoding = Decoding(max_new_tokens=512)

    reads: ClassVar[tuple[str, ...]] = ("images", "seed")
    source: ClassVar[str] = (
        "instances_val2014.json and captions_val2014.json (COCO's annotations_trainval2014) and COCO's val2014 images"
    )
    references_in: ClassVar[tuple[str, ...]] = ("objects",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("chair_i", "CHAIR_i", higher=False),
        Metric("chair_s", "CHAIR_s", higher=False),
        Metric("recall", "recall"),
    )
    compared: ClassVar[Metric] = Metric("correct", "without hallucination")

    def load(self, download: Download) -> Iterator[Question]:
        """One question an image, by image id, in the order of ids."""
        instances = download.file("instances_val2014.json")
        captions = download.file("captions_val2014.json")
        content = read_annotations(instances)
        files = _file_names(content, instances)
        chosen = self._sample(files)
        present = _annotated(content, instances, chosen)
        for image, named in _named(captions, chosen):
            present[image] |= named
        for image in chosen:
            path = download.image(files[image], f"{instances}, image {image}")
            yield Question(str(image), (path,), {}, {"objects": sorted(present[image])})

    def _sample(self, images: Mapping[int, str]) -> list[int]:
        ids = sorted(images)
        return sorted(random.Random(self.seed).sample(ids, min(self.images, len(ids))))

    def ask(self, question: Question) -> str:
        """The same for all images."""
        return self.prompt

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Shares of mentions and of descriptions that are hallucinated, and of the objects that are named."""
        per_item = {one.question.id: _item(one) for one in answered}
        items = list(per_item.values())
        corpus = {
            "chair_i": _share(items, "hallucinated", "mentions"),
            "chair_s": mean_of(1.0 - item["correct"] for item in items),
            "recall": _share(items, "found", "objects"),
        }
        reasons = {"chair_i": NOTHING_NAMED, "recall": "not available: the images have no object"}
        unavailable = {key: reasons[key] for key in reasons if corpus[key] is None}
        silent = sum(not item["mentions"] for item in items)
        return Scores(corpus, per_item, unavailable, {"descriptions that name no object": silent} if silent else {})


def _item(one: Answered) -> dict[str, Any]:
    there = set(one.question.truth["objects"])
    mentions = coco_names().mentioned(one.text)
    wrong = [mention.word for mention in mentions if mention.object not in there]
    named = [mention.object for mention in mentions]
    return {
        "prediction": ", ".join(named) or None,
        "mentions": len(mentions),
        "hallucinated": len(wrong),
        "words": ", ".join(wrong),
        "objects": len(there),
        "found": len(there & set(named)),
        "correct": float(not wrong),
    }


def _share(items: Sequence[Mapping[str, Any]], part: str, whole: str) -> float | None:
    total = sum(item[whole] for item in items)
    return sum(item[part] for item in items) / total if total else None


def _file_names(content: Any, path: Path) -> dict[int, str]:
    """Image id -> name of its file."""
    rows = _rows(content, "images", ("id", "file_name"), path)
    return {number_of(row, "id", where): text_of(row, "file_name", where) for where, row in rows}


def _annotated(content: Any, path: Path, chosen: Sequence[int]) -> dict[int, set[str]]:
    """Image id -> objects that were annotated in it."""
    known = coco_names().objects
    rows = _rows(content, "categories", ("id", "name"), path)
    names = {number_of(row, "id", where): text_of(row, "name", where) for where, row in rows}
    present: dict[int, set[str]] = {image: set() for image in chosen}
    for where, row in _rows(content, "annotations", ("image_id", "category_id"), path):
        image, category = number_of(row, "image_id", where), number_of(row, "category_id", where)
        if image in present:
            name = str(names.get(category))
            if name not in known:
                raise DataError(f"{where}: category_id {category} is '{name}', which is no object of COCO")
            present[image].add(known[name])
    return present


def _named(path: Path, chosen: Sequence[int]) -> Iterator[tuple[int, set[str]]]:
    """Image id and objects that a caption of it names, for all captions of these images."""
    names, wanted, seen = coco_names(), set(chosen), set[int]()
    for where, row in _rows(read_annotations(path), "annotations", ("image_id", "caption"), path):
        image = number_of(row, "image_id", where)
        if image in wanted:
            seen.add(image)
            caption = text_of(row, "caption", where, empty=True)
            yield image, {mention.object for mention in names.mentioned(caption)}
    if missing := sorted(wanted - seen):
        raise DataError(f"{path}: no caption of {len(missing)} of the images, such as {missing[0]}")


def _rows(content: Any, key: str, required: Sequence[str], path: Path) -> Iterator[tuple[str, Row]]:
    for index, entry in enumerate(list_of(content, key, str(path))):
        where = f"{path}, {key}[{index}]"
        yield where, with_keys(entry, required, where)
