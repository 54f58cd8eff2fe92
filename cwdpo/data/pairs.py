"""Stage `pairs`: a data set in any supported format becomes checked records."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Literal

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.data.images import check_images
from cwdpo.data.records import Record, check_ids, write_records
from cwdpo.data.sources import DataSource


class PairsSpec(Config):
    """A data source, and what it is read for."""

    data: DataSource
    """Format and prompt; the folder itself is a place, not part of the identity."""
    purpose: Literal["train", "evaluate"] = "train"
    """Training data needs images for both stages; of evaluation data only the val and test splits are kept."""


def run(context: StageContext) -> None:
    """Read, check every image, write records.jsonl and summary.json; what was left out is counted there and printed.

    Raises:
        DataError: see the readers; a missing, truncated or non-image file; an empty split.
    """
    spec: PairsSpec = context.spec
    folder = context.inputs["data"]
    left_out = Counter[str]()
    records = spec.data.read(folder, left_out)
    records = used(records, spec.purpose, str(folder))
    check_images(folder, (record.image for record in records), spec.data.check_images)
    write_records(context.out / "records.jsonl", records)
    limited = {"limit": spec.data.limit} if spec.data.limit else {}
    counted = {"left_out": dict(left_out)} if left_out else {}
    files.write_json(context.out / "summary.json", {**limited, **_summary(records), **counted})
    for reason, count in left_out.items():
        print(f"left out: {count} {reason}", file=sys.stderr)


def used(records: list[Record], purpose: Literal["train", "evaluate"], where: str) -> list[Record]:
    """What of the records of a data set is used; raises `DataError` when an id occurs twice or a split is empty."""
    check_ids(records, where)
    if purpose == "evaluate":
        return _held_out(records, where)
    _check_portions(records, where)
    return records


def _summary(records: list[Record]) -> dict[str, object]:
    """Counts of records by split and portion, and of images."""
    return {
        "splits": dict(Counter(record.split for record in records)),
        "portions": dict(Counter(record.portion for record in records if record.split == "train")),
        "images": len({record.image_id for record in records}),
    }


def _held_out(records: list[Record], where: str) -> list[Record]:
    kept = [record for record in records if record.split != "train"]
    if not kept:
        raise DataError(f"{where}: nothing to evaluate on: there is no val or test split")
    return kept


def _check_portions(records: list[Record], where: str) -> None:
    splits = Counter(record.split for record in records)
    if not splits["train"]:
        found = ", ".join(f"{name} ({count})" for name, count in splits.items()) or "no records at all"
        raise DataError(f"{where}: the training split is empty; found {found}")
    portions = Counter(record.portion for record in records)
    for portion in ("stage1", "stage2"):
        if not portions[portion]:
            raise DataError(
                f"{where}: no training image falls to {portion} ({splits['train']} records); change data.stage1_share"
            )
