"""Reader of OCR-VQA: `dataset.json`, questions about book covers.

    {"0743296494": {"imageURL": "http://.../51PmXH1P3kL.jpg", "title": ..., "authorName": ..., "genre": ..., "split": 1,
                    "questions": ["Who wrote this book?", ...], "answers": ["Justin Isis", ...]}}

The format is the one that the data set's own loader reads (Mishra et al., "OCR-VQA: Visual Question Answering by
Reading Text in Images", ICDAR 2019): split 1 is train, 2 val, 3 test; an image is `images/<key>` with the ending of its
URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from cwdpo.base.errors import DataError, name_valid
from cwdpo.data.annotations import list_of, read_annotations, value_of
from cwdpo.data.records import Record, Split, clean_text, portion_of, relative_image

_SPLITS: dict[str, Split] = {"1": "train", "2": "val", "3": "test"}

QUESTION = "{question}"
"""Stands for the question in a prompt."""


@dataclass(frozen=True)
class OcrvqaReader:
    """How the file is read.

    Attributes:
        images: folder of the images, relative to the data root.
        image_suffix: ending of every image file; None takes that of its URL.
        prompt: the user's turn, with `{question}` in it.
        questions_per_image: `first` trains on one question an image, the others on all; val and test have all.
    """

    images: str
    image_suffix: str | None
    prompt: str
    questions_per_image: Literal["first", "draw", "all"]
    stage1_share: float

    def read(self, path: Path) -> list[Record]:
        """A record for each question.

        Raises:
            DataError: not JSON, a missing key, an unknown split, not as many answers as questions, an empty text;
                names the key of the image.
        """
        covers = read_annotations(path)
        if not isinstance(covers, dict) or not covers:
            raise DataError(f"{path}: expected OCR-VQA's dataset.json, a non-empty object of images")
        return [record for key, cover in covers.items() for record in self._records(key, cover, f"{path}, '{key}'")]

    def _records(self, key: str, cover: Any, where: str) -> Iterator[Record]:
        """The records of one image."""
        split = _split_of(cover, where)
        portion = portion_of(key, split, self.stage1_share)
        path = relative_image(f"{self.images}/{key}{self._suffix(cover, where)}", where)
        questions, answers = list_of(cover, "questions", where), list_of(cover, "answers", where)
        if len(questions) != len(answers):
            raise DataError(f"{where}: {len(questions)} questions, but {len(answers)} answers")
        asked = 1 if self.questions_per_image == "first" and split == "train" else len(questions)
        for number in range(asked):
            question = clean_text(questions[number], f"{where}, questions[{number}]")
            answer = clean_text(answers[number], f"{where}, answers[{number}]")
            prompt = self.prompt.replace(QUESTION, question)
            yield Record(f"{key}#{number}", key, path, prompt, answer, (answer,), (), split, portion)

    def _suffix(self, cover: Any, where: str) -> str:
        if self.image_suffix is not None:
            return self.image_suffix
        url = clean_text(value_of(cover, "imageURL", where), f"{where}, imageURL")
        suffix = PurePosixPath(urlsplit(url).path).suffix
        if not suffix:
            raise DataError(f"{where}, imageURL: '{url}' has no ending such as .jpg; say data.image_suffix")
        return suffix


def _split_of(cover: Any, where: str) -> Split:
    found = value_of(cover, "split", where)
    if str(found) not in _SPLITS:
        raise DataError(f"{where}, split: unknown split {name_valid(found, _SPLITS)}")
    return _SPLITS[str(found)]
