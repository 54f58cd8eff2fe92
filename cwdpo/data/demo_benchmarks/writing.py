"""Files of a benchmark, written plainly: the store makes a finished stage durable, and drops an unfinished one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cwdpo.base.files import writing


def write_file(path: Path, content: bytes) -> None:
    """A file, and the folders that it lies in; raises `StoreError` where it cannot be written."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """`write_file` for UTF-8 text."""
    write_file(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """A JSON file."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_images(folder: Path, images: Mapping[str, bytes]) -> None:
    """Image files by their names."""
    for name, content in images.items():
        write_file(folder / name, content)
