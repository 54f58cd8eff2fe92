"""Reader of Karpathy's split files: `dataset_coco.json`, `dataset_flickr30k.json`.

    {"images": [{"filepath": "val2014", "filename": "COCO_val2014_000000391895.jpg", "split": "test", "cocoid": 391895,
                 "imgid": 0, "sentences": [{"raw": "A man with a red helmet ..."}]}], "dataset": "coco"}

`restval` images belong to the training pool, as the paper's 85k / 28k split needs. Flickr30k has no filepath or cocoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from cwdpo.base.errors import DataError, name_valid
from cwdpo.data.annotations import list_of, read_annotations, value_of
from cwdpo.data.records import Record, Split, clean_text, portion_of, relative_image

_SPLITS: dict[str, Split] = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def read_karpathy(
    path: Path,
    images: str,
    prompt: str,
    captions_per_image: Literal["first", "draw", "all"],
    stage1_share: float,
) -> list[Record]:
    """All records of the file; `first` keeps one per image, the others one per caption.

    Args:
        images: folder of the images, relative to the data root; put before every image path.

    Raises:
        DataError: not JSON, a missing key, an unknown split, an empty caption; names the image's index.
    """
    records = []
    for index, image in enumerate(_images(path)):
        records += list(
            _records_of(image, f"{path}, images[{index}]", images, prompt, captions_per_image, stage1_share)
        )
    return records


def _images(path: Path) -> list[dict[str, Any]]:
    content = read_annotations(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise DataError(f"{path}: expected a Karpathy split file, an object with a non-empty list 'images'")
    return images


def _records_of(
    image: Any, where: str, images: str, prompt: str, captions_per_image: str, stage1_share: float
) -> Iterator[Record]:
    """The records of one image."""
    split = _split_of(image, where)
    parts = [images, image.get("filepath", ""), value_of(image, "filename", where)]
    path = relative_image("/".join(str(part) for part in parts if part), where)
    sentences = list_of(image, "sentences", where)
    captions = tuple(
        clean_text(value_of(sentence, "raw", f"{where}.sentences[{number}]"), f"{where}.sentences[{number}].raw")
        for number, sentence in enumerate(sentences)
    )
    image_id = str(image.get("cocoid", image.get("imgid", path)))
    portion = portion_of(image_id, split, stage1_share)
    # Evaluation splits need one record an image: its references carry the other captions.
    trained = captions[:1] if captions_per_image == "first" or split != "train" else captions
    for number, caption in enumerate(trained):
        yield Record(f"{image_id}#{number}", image_id, path, prompt, caption, captions, (), split, portion)


def _split_of(image: Any, where: str) -> Split:
    found = value_of(image, "split", where)
    if str(found) not in _SPLITS:
        raise DataError(f"{where}.split: unknown split {name_valid(found, _SPLITS)}")
    return _SPLITS[found]
