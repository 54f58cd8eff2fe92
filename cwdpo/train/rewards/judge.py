"""What rewards have in common: responses to records, judged by the records' references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cwdpo.base.lines import RowsById

Judge = Callable[[Sequence[str], Sequence[str]], list[float]]
"""Ids of records and one response to each -> rewards."""


def references_of(inputs: Mapping[str, Path]) -> RowsById[list[str]]:
    """All references of each record's image, by the record's id."""
    return RowsById(inputs["pairs"] / "records.jsonl", lambda row: row["references"])
