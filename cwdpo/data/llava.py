"""Reader of conversations in LLaVA's format: `llava_instruct_150k.json`, `llava_v1_5_mix665k.json`.

    [{"id": "000000033471", "image": "000000033471.jpg",
      "conversations": [{"from": "human", "value": "<image>\\nWhat are the colors of the bus?"},
                        {"from": "gpt", "value": "The bus is white and red."}, {"from": "human", ...}, ...]}]

The format is the one that LLaVA documents for its own data ("Finetune LLaVA on Custom Datasets"). One image may be in
several entries under one id, so images are told apart by their paths. There is no split; some images can be held out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cwdpo.base.errors import DataError
from cwdpo.data.annotations import list_of, read_annotations, value_of
from cwdpo.data.records import Record, Split, Turn, clean_text, portion_of, relative_image

PLACEHOLDER = "<image>"
"""Where the image stands in a question; it is always put first, so the mark is taken out."""
NO_IMAGE = "entries without an image"
SEVERAL_IMAGES = "entries with several images"


@dataclass(frozen=True)
class LlavaReader:
    """How a file is read.

    Attributes:
        images: folder of the images, relative to the data root; put before every image path.
        prompt: the question where there are no words beside the image.
        turns: the first question and answer of each entry, or all; outside the training split always the first.
        val_share, test_share: shares of the images that are held out.
    """

    images: str
    prompt: str
    turns: Literal["first", "all"]
    stage1_share: float
    val_share: float
    test_share: float

    def read(self, path: Path, left_out: Counter[str]) -> list[Record]:
        """A record for each question with its answer; those of one image are numbered through.

        Args:
            left_out: entries without an image or with several are counted here.

        Raises:
            DataError: not JSON, a missing key, questions and answers that do not take turns, an empty answer; names
                the index of the entry.
        """
        entries = read_annotations(path)
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{path}: expected LLaVA conversations, a non-empty list of entries")
        numbers: Counter[str] = Counter()
        records = []
        for index, entry in enumerate(entries):
            fault = _left_out(entry, f"{path}[{index}]")
            if fault:
                left_out[fault] += 1
            else:
                records += list(self._records(entry, f"{path}[{index}]", numbers))
        return records

    def _records(self, entry: Any, where: str, numbers: Counter[str]) -> Iterator[Record]:
        """The records of one entry; `numbers` counts those of each image."""
        name = relative_image(_image_of(entry), f"{where}.image")
        split = split_of(name, self.val_share, self.test_share)
        portion = portion_of(name, split, self.stage1_share)
        path = f"{self.images.rstrip('/')}/{name}" if self.images else name
        turns = list(self._turns(entry, where))
        for question, answer in turns if self.turns == "all" and split == "train" else turns[:1]:
            number = numbers[name]
            numbers[name] += 1
            yield Record(f"{name}#{number}", name, path, question, answer, (answer,), (), split, portion)

    def _turns(self, entry: Any, where: str) -> Iterator[Turn]:
        turns = list_of(entry, "conversations", where)
        if len(turns) % 2:
            raise DataError(f"{where}.conversations: the last question has no answer ({len(turns)} turns)")
        for place in range(0, len(turns), 2):
            question = _said(turns[place], "human", f"{where}.conversations[{place}]")
            answer = _said(turns[place + 1], "gpt", f"{where}.conversations[{place + 1}]")
            asked = question.replace(PLACEHOLDER, " ").strip() or self.prompt
            yield (
                _clean_lines(asked, f"{where}.conversations[{place}].value"),
                clean_text(answer, f"{where}.conversations[{place + 1}].value"),
            )


def _clean_lines(text: str, where: str) -> str:
    """White space collapsed within each line: the lines of a question (options, a hint) say something."""
    return "\n".join(clean_text(line, where) for line in text.split("\n") if line.strip())


def split_of(image_id: str, val_share: float, test_share: float) -> Split:
    """Split of an image by a hash of its id: independent of its stage, of order and of the rest of the data set."""
    fraction = int.from_bytes(hashlib.sha256(f"split {image_id}".encode()).digest()[:8], "big") / 2**64
    if fraction < val_share:
        return "val"
    return "test" if fraction < val_share + test_share else "train"


def _left_out(entry: Any, where: str) -> str | None:
    """Why an entry cannot be trained on, if it cannot: a record has one image."""
    turns = list_of(entry, "conversations", where)
    found = entry.get("image")
    if found is None or found == []:
        return NO_IMAGE
    marks = sum(str(turn.get("value")).count(PLACEHOLDER) for turn in turns if isinstance(turn, dict))
    return SEVERAL_IMAGES if (isinstance(found, list) and len(found) > 1) or marks > 1 else None


def _image_of(entry: dict[str, Any]) -> Any:
    found = entry["image"]
    return found[0] if isinstance(found, list) else found


def _said(turn: Any, speaker: str, where: str) -> str:
    """What a turn says, which must be the speaker's."""
    found = value_of(turn, "from", where)
    if found != speaker:
        raise DataError(f"{where}.from: expected '{speaker}', found {found!r:.40}; questions and answers take turns")
    text = value_of(turn, "value", where)
    if not isinstance(text, str):
        raise DataError(f"{where}.value: expected text, found {type(text).__name__}")
    return text
