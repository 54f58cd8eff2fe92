"""Reader of TextCaps: `TextCaps_0.1_train.json` and `TextCaps_0.1_val.json`, captions of images with text in them.

    {"data": [{"image_id": "f3b5d51b9ef3f5c1", "set_name": "train", "caption_str": "A sign that says ...",
               "reference_strs": ["A sign that says ...", ...], "image_path": "train/f3b5d51b9ef3f5c1.jpg", ...}, ...]}

An entry is one caption; `reference_strs` repeats all of its image (Sidorov et al., "TextCaps: a Dataset for Image
Captioning with Reading Comprehension", ECCV 2020). The images are those of TextVQA, from OpenImages: the archive holds
train and val in one folder, `train_images/<image_id>.jpg`. The captions of the test split are not public.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cwdpo.base.errors import DataError, name_valid
from cwdpo.data.annotations import list_of, read_annotations, value_of
from cwdpo.data.records import Record, Split, clean_text, portion_of, relative_image

_SPLITS: dict[str, Split] = {"train": "train", "val": "val"}


@dataclass
class _Image:
    """An image while its captions are collected; a dict keeps their order."""

    split: Split
    captions: dict[str, None] = field(default_factory=dict)


def read_textcaps(
    paths: Sequence[Path],
    images: str,
    prompt: str,
    captions_per_image: Literal["first", "draw", "all"],
    stage1_share: float,
) -> list[Record]:
    """All records of the files; `first` keeps one per image, the others one per distinct caption.

    Args:
        images: folder of the images, relative to the data root.

    Raises:
        DataError: not JSON, a missing key, an unknown split, an empty caption, an image of two splits; names the file
            and the index of the entry.
    """
    found: dict[str, _Image] = {}
    for path in paths:
        for index, entry in enumerate(_entries(path)):
            _collect(entry, f"{path}, data[{index}]", found)
    return [
        record
        for name, image in found.items()
        for record in _records(name, image, images, prompt, captions_per_image, stage1_share)
    ]


def _entries(path: Path) -> list[Any]:
    content = read_annotations(path)
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a TextCaps file, an object with a non-empty list 'data'")
    return entries


def _collect(entry: Any, where: str, found: dict[str, _Image]) -> None:
    """Add an entry's caption and references to those of its image."""
    name = clean_text(value_of(entry, "image_id", where), f"{where}.image_id")
    split = _split_of(entry, where)
    image = found.setdefault(name, _Image(split))
    if image.split != split:
        raise DataError(f"{where}: image '{name}' is of the {split} split here, of {image.split} before")
    texts: Iterable[tuple[Any, str]] = [(value_of(entry, "caption_str", where), f"{where}.caption_str")]
    if "reference_strs" in entry:
        references = list_of(entry, "reference_strs", where)
        texts = [*texts, *((text, f"{where}.reference_strs[{number}]") for number, text in enumerate(references))]
    image.captions.update(dict.fromkeys(clean_text(text, at) for text, at in texts))


def _split_of(entry: Any, where: str) -> Split:
    found = value_of(entry, "set_name", where)
    if str(found) not in _SPLITS:
        raise DataError(f"{where}.set_name: unknown split {name_valid(found, _SPLITS)}")
    return _SPLITS[found]


def _records(
    name: str, image: _Image, images: str, prompt: str, captions_per_image: str, stage1_share: float
) -> Iterator[Record]:
    """The records of one image: outside the training split one, whose references carry the other captions."""
    path = relative_image(f"{images}/{name}.jpg", name)
    captions = tuple(image.captions)
    portion = portion_of(name, image.split, stage1_share)
    trained = captions[:1] if captions_per_image == "first" or image.split != "train" else captions
    for number, caption in enumerate(trained):
        yield Record(f"{name}#{number}", name, path, prompt, caption, captions, (), image.split, portion)
