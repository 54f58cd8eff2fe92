"""Reader of preference records, one JSON object a line.

    {"image": "a/1.jpg", "prompt": "Describe the image.", "chosen": "A red ball.", "rejected": "A blue ball."}

`rejected` is one text, a list of texts, or a list of `{"text", "source", "grade"}`; it may be left out when a source of
negatives is configured. Optional: `id`, `image_id`, `split` (train, val, test; default train), `references`.

A rejected response may come with more, for the methods that train on it:

    {"text": "A blue ball.", "revised": "A red ball.", "dialogue": [["Is the ball blue?", "No, it is red."]],
     "scores": [{"score": 1, "image_error": true}]}

`revised` is a minimal correction of the text, `dialogue` questions that correct it (each a pair, or an object with the
keys question and answer), `scores` how right each of its sentences is: 1 (wrong) to 4 (right), and whether the error is
about the image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cwdpo.base.errors import DataError, name_valid
from cwdpo.data.records import Record, Rejected, SentenceScore, Split, Turn, clean_text, portion_of, relative_image
from cwdpo.objectives.supply import SUPPLIES, Supply

_KEYS = ("image", "prompt", "chosen", "rejected", "id", "image_id", "split", "references")
_REJECTED_KEYS = ("text", "source", "grade", "revised", "dialogue", "scores")
_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}


def read_preferences(path: Path, prompt: str, stage1_share: float) -> list[Record]:
    """All records of the file.

    Args:
        prompt: used for lines that have none.

    Raises:
        DataError: names file and line: not JSON, unknown or missing key, empty text, a rejected text equal to the
            chosen one or to its own revised one, an id that occurs twice.
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


def supplies_of(path: Path) -> frozenset[Supply]:
    """What rejected responses of the training split come with, some of them at least."""
    found: set[Supply] = set()
    for _, _, row in _rows(path):
        rejected = row.get("rejected") if row.get("split", "train") == "train" else None
        for item in rejected if isinstance(rejected, list) else ():
            found |= {supply for supply in SUPPLIES if isinstance(item, dict) and item.get(supply)}
        if len(found) == len(SUPPLIES):
            break
    return frozenset(found)


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
    if not isinstance(found, list):
        yield _response(found, chosen, f"{where}, rejected")
        return
    for number, item in enumerate(found):
        yield _response(item, chosen, f"{where}, rejected[{number}]")


def _response(found: Any, chosen: str, where: str) -> Rejected:
    entry = found if isinstance(found, dict) else {"text": found}
    if set(entry) - set(_REJECTED_KEYS) or "text" not in entry:
        raise DataError(f"{where}: expected the keys {', '.join(_REJECTED_KEYS)}; found {sorted(entry)}")
    text = clean_text(entry["text"], where)
    if text == chosen:
        raise DataError(f"{where}: chosen and rejected are equal ('{text}')")
    return Rejected(
        text,
        str(entry.get("source", "dataset")),
        entry.get("grade"),
        revised=_revised(entry["revised"], text, f"{where}.revised") if "revised" in entry else None,
        dialogue=tuple(_turn(item, at) for item, at in _items(entry, "dialogue", where)),
        scores=tuple(_score(item, at) for item, at in _items(entry, "scores", where)),
    )


def _revised(found: Any, text: str, where: str) -> str:
    revised = clean_text(found, where)
    if revised == text:
        raise DataError(f"{where}: revised and rejected are equal ('{text}')")
    return revised


def _items(entry: dict[str, Any], key: str, where: str) -> Iterator[tuple[Any, str]]:
    """Entries of the list under `key`, each with its place; none when there is no such key."""
    if key not in entry:
        return
    if not isinstance(entry[key], list) or not entry[key]:
        raise DataError(f"{where}.{key}: expected a non-empty list, found {entry[key]!r:.40}")
    for number, item in enumerate(entry[key]):
        yield item, f"{where}.{key}[{number}]"


def _turn(found: Any, where: str) -> Turn:
    if isinstance(found, dict) and set(found) == {"question", "answer"}:
        question, answer = found["question"], found["answer"]
    elif isinstance(found, list) and len(found) == 2:
        question, answer = found
    else:
        raise DataError(f"{where}: expected [question, answer] or the keys question, answer; found {found!r:.80}")
    return clean_text(question, f"{where}, question"), clean_text(answer, f"{where}, answer")


def _score(found: Any, where: str) -> SentenceScore:
    if not isinstance(found, dict) or set(found) != {"score", "image_error"}:
        raise DataError(f"{where}: expected the keys score, image_error; found {found!r:.80}")
    score, image_error = found["score"], found["image_error"]
    if score not in (1, 2, 3, 4) or type(score) is not int:
        raise DataError(f"{where}.score: expected 1, 2, 3 or 4; found {score!r:.40}")
    if not isinstance(image_error, bool):
        raise DataError(f"{where}.image_error: expected true or false; found {image_error!r:.40}")
    return SentenceScore(score, image_error)
