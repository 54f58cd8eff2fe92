"""What readers of annotation files share: a JSON file and its keys, with errors that say where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cwdpo.base.errors import DataError


def read_annotations(path: Path) -> Any:
    """The content of a JSON file, a byte-order mark or not; raises `DataError` when it cannot be read or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotation file: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error


def value_of(mapping: Any, key: str, where: str) -> Any:
    """The value under a key; raises `DataError` when `mapping` is no object or lacks it."""
    if not isinstance(mapping, dict):
        raise DataError(f"{where}: expected an object, found {type(mapping).__name__}")
    if key not in mapping:
        raise DataError(f"{where}: key '{key}' is missing; found {', '.join(mapping) or 'no key'}")
    return mapping[key]


def list_of(mapping: Any, key: str, where: str) -> list[Any]:
    """The list under a key; raises `DataError` when it is missing, empty or no list."""
    found = value_of(mapping, key, where)
    if not isinstance(found, list) or not found:
        raise DataError(f"{where}.{key}: expected a non-empty list, found {found!r:.40}")
    return found
