"""Reader of preference records, one JSON object a line.

    {"image": "a/1.jpg", "prompt": "Describe the image.", "chosen": "A red ball.", "rejected": "A blue ball."}

`rejected` is one text, a list of texts, or a list of `{"text", "source", "grade"}`; it may be left out when a source of
negatives is configured. Optional: `id`, `image_id`, `split` (train, val, test; default train), `references`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cwdpo.base.errors import DataError, name_valid
from cwdpo.data.records import Record, Rejected, Split, clean_text, portion_of, relative_image

_KEYS = ("image", "prompt", "chosen", "rejected", "id", "image_id", "split", "references")
_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}


def read_preferences(path: Path, prompt: str, stage1_share: float) -> list[Record]:
    """All records of the file.

    Args:
        prompt: used for lines that have none.

    Raises:
        DataError: names file and line: not JSON, unknown or missing key, empty text, chosen equal to rejected, an id
            that occurs twice.
    """
    records = []
    lines: dict[str, int] = {}
    for number, where, row in _rows(path):
        record = _record(row, where, number, prompt, stage1_share)
        if record.id in lines:
            raise DataError(f"{where}, id: '{record.id}' is the id of line {lines[record.id]} too; ids must be unique")
        lines[record.id] = number
        records.append(record)
    return records


def _rows(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would cut texts at U+2028 and the like
    except OSError as error:
        raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, found {type(row).__name__}")
        yield number, where, row


def _record(row: dict[str, Any], where: str, number: int, prompt: str, stage1_share: float) -> Record:
    for key in row:
        if key not in _KEYS:
            raise DataError(f"{where}: unknown key {name_valid(key, _KEYS)}")
    for key in ("image", "chosen"):
        if key not in row:
            raise DataError(f"{where}: key '{key}' is missing; found {', '.join(row) or 'no key'}")
    image = relative_image(row["image"], f"{where}, image")
    chosen = clean_text(row["chosen"], f"{where}, chosen")
    image_id = str(row.get("image_id", image))
    split = _split(row.get("split", "train"), where)
    return Record(
        id=str(row.get("id", f"{image_id}#{number}")),
        image_id=image_id,
        image=image,
        prompt=clean_text(row.get("prompt", prompt), f"{where}, prompt"),
        chosen=chosen,
        references=_references(row, chosen, where),
        rejected=tuple(_rejected(row.get("rejected", []), chosen, where)),
        split=split,
        portion=portion_of(image_id, split, stage1_share),
    )


def _split(found: Any, where: str) -> Split:
    if str(found) not in _SPLITS:
        raise DataError(f"{where}, split: unknown split {name_valid(found, _SPLITS)}")
    return _SPLITS[found]


def _references(row: dict[str, Any], chosen: str, where: str) -> tuple[str, ...]:
    found = row.get("references", [chosen])
    if not isinstance(found, list) or not found:
        raise DataError(f"{where}, references: expected a non-empty list of texts")
    return tuple(clean_text(text, f"{where}, references") for text in found)


def _rejected(found: Any, chosen: str, where: str) -> Iterator[Rejected]:
    for item in found if isinstance(found, list) else [found]:
        entry = item if isinstance(item, dict) else {"text": item}
        unknown = set(entry) - {"text", "source", "grade"}
        if unknown or "text" not in entry:
            raise DataError(f"{where}, rejected: expected the keys text, source, grade; found {sorted(entry)}")
        text = clean_text(entry["text"], f"{where}, rejected")
        if text == chosen:
            raise DataError(f"{where}: chosen and rejected are equal ('{text}')")
        yield Rejected(text, str(entry.get("source", "dataset")), entry.get("grade"))
