"""JSON files that hold one array, of which some are too large to be in memory whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cwdpo.base.errors import DataError
from cwdpo.evaluate.reading.tables import Row, read_text, with_keys

_BETWEEN = re.compile(r"[\s,]*")


def read_array(path: Path, required: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield (where, object) of each element of a JSON array; only one of them is in memory, beside the text.

    Raises:
        DataError: the file is no array of objects, or one lacks a key of `required`.
    """
    text, decoder, number = read_text(path), json.JSONDecoder(), 0
    place = _start(text, path)
    while text[place : place + 1] != "]":
        number += 1
        where = f"{path}, element {number}"
        try:
            row, place = decoder.raw_decode(text, place)
        except ValueError as error:
            raise DataError(f"{where}: not valid JSON ({error})") from error
        yield where, with_keys(row, required, where)
        place = _next(text, place)


def _start(text: str, path: Path) -> int:
    """Where the first element, or the end of an empty array, is."""
    opening = len(text) - len(text.lstrip())
    if text[opening : opening + 1] != "[":
        raise DataError(f"{path}: expected an array, found {text[opening : opening + 20]!r}")
    return _next(text, opening + 1)


def _next(text: str, place: int) -> int:
    found = _BETWEEN.match(text, place)
    return found.end() if found else place
