"""What stage `llm` leaves for the sources: a row for each record, with what its task made of each reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base.lines import RowsById

REPLIES = "replies.jsonl"
"""Name of the file; a row is `{"id", "replies": [...]}`, null in place of a reply of which nothing could be used."""

Made = Mapping[str, Any]


def row_of(record: str, made: Sequence[Made | None]) -> bytes:
    """Line of a record.

    Args:
        record: its id.
    """
    row = {"id": record, "replies": list(made)}
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def replies_of(folder: Path) -> RowsById[list[Made | None]]:
    """By the id of a record; one of which nothing was asked is not found."""
    return RowsById(folder / REPLIES, lambda row: list(row["replies"]))
