"""TextVQA's format: questions with the answers of ten people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_images, write_json

QUESTIONS = 24


class TextvqaFormat(Format):
    """`TextVQA_0.5.1_val.json` and `train_images`.

    There is no text to read in the world: it asks for colours, shapes and the like.
    """

    name: Literal["textvqa"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        asked = picked(scenes, QUESTIONS)
        entries = [
            entry(number, _image(seen), fact.question.lower(), [fact.value] * 10, seen.size)
            for number, (seen, fact) in enumerate(asked, 1)
        ]
        write(folder, entries, {_image(seen): seen.jpeg for seen, _ in asked})


def entry(
    number: int, image: str, question: str, answers: Sequence[str], size: tuple[int, int] = (40, 30)
) -> dict[str, Any]:
    """An entry of `data` with all keys of the genuine one."""
    return {
        "question": question,
        "image_id": image,
        "image_classes": [],
        "flickr_original_url": "",
        "flickr_300k_url": "",
        "image_width": size[0],
        "image_height": size[1],
        "answers": [*answers],
        "question_tokens": question.rstrip("?").split(),
        "question_id": number,
        "set_name": "val",
    }


def write(folder: Path, data: Sequence[dict[str, Any]], images: Mapping[str, bytes]) -> None:
    """The questions, and the images (by their ids), which the archive calls those of the training split."""
    content = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": data}
    write_json(folder / "TextVQA_0.5.1_val.json", content)
    write_images(folder / "train_images", {f"{name}.jpg": image for name, image in images.items()})


def _image(seen: Seen) -> str:
    return f"{seen.number:016x}"
