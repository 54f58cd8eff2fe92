"""What a data set holds, counted before anything is trained on it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from cwdpo.base.config import Config
from cwdpo.data.records import Record
from cwdpo.negatives.rule import Perturb
from cwdpo.negatives.summary import Spread, Statistics

EDITED = 2000
"""Records that are tried to edit by rule: more take minutes and tell nothing else."""
SHOWN = 5
"""Names of missing images that are told."""


def overview(records: Sequence[Record], folder: Path) -> dict[str, Any]:
    """Counts of the records of a data set, read as training reads them.

    - `records`, `images`, and `parts`: both of stage1, stage2, val and test
    - `missing`: how many image files are not there, and the `first`
    - `chosen`: words of a chosen response (mean, min, max) and the id of the `longest`; `prompts`: distinct ones
    - `repeated`: records that repeat another one's image, prompt and chosen response
    - `in_several_parts`: images by the parts that share them, such as `stage1 and test`
    - `rejected`: statistics of the responses that the data itself rejects, or None; see `Statistics`

    Args:
        folder: what image paths are relative to.
    """
    return {
        "records": len(records),
        "images": len({record.image for record in records}),
        "parts": _parts(records),
        "missing": missing(folder, {record.image for record in records}),
        "chosen": _chosen(records),
        "prompts": len({record.prompt for record in records}),
        "repeated": len(records) - len({(record.image, record.prompt, record.chosen) for record in records}),
        "in_several_parts": _in_several_parts(records),
        "rejected": _rejected(records),
    }


def part_of(record: Record) -> str:
    """Where a record is used: a stage of training, or its split."""
    return record.portion if record.split == "train" else record.split


def _parts(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    counts = Counter(map(part_of, records))
    images = Counter(part for part, _ in {(part_of(record), record.image) for record in records})
    order = ("stage1", "stage2", "val", "test")
    return {part: {"records": counts[part], "images": images[part]} for part in order if counts[part]}


def missing(folder: Path, names: set[str]) -> dict[str, Any]:
    """How many of these files are not in a folder, and the first of them."""
    order = sorted(names)
    with ThreadPoolExecutor(max_workers=8) as pool:  # parallel file systems answer many at once
        there = pool.map(lambda name: (folder / name).is_file(), order)
        gone = [name for name, found in zip(order, there, strict=True) if not found]
    return {"count": len(gone), "first": gone[:SHOWN]}


def _chosen(records: Sequence[Record]) -> dict[str, Any]:
    words, longest = Spread(), ("", -1)
    for record in records:
        length = len(record.chosen.split())
        words.add(length)
        longest = max(longest, (record.id, length), key=lambda item: item[1])
    return {**(words.as_json() or {}), "longest": longest[0]}


def _in_several_parts(records: Sequence[Record]) -> dict[str, int]:
    """An image that is trained on and tested on makes the test worthless."""
    parts: dict[str, set[str]] = {}
    for record in records:
        parts.setdefault(record.image, set()).add(part_of(record))
    return dict(Counter(" and ".join(sorted(found)) for found in parts.values() if len(found) > 1))


def _rejected(records: Sequence[Record]) -> dict[str, Any] | None:
    if not any(record.rejected for record in records):
        return None
    statistics = Statistics()
    for record in records:
        rejected = [{"text": item.text, "source": item.source, "grade": item.grade} for item in record.rejected]
        statistics.add({"chosen": record.chosen, "rejected": rejected})
    return statistics.as_json()


# ---- what rules can edit


def perturbs_in(value: object) -> Iterator[Perturb]:
    """Every source by rule inside a source of rejected responses, itself included."""
    if isinstance(value, Perturb):
        yield value
    for item in _inside(value):
        yield from perturbs_in(item)


def _inside(value: object) -> Iterable[object]:
    """Values of a configuration's fields, or members of what a field may hold."""
    if isinstance(value, Config):
        return [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, tuple) else ()


def edited(records: Sequence[Record], portion: Literal["stage1", "stage2"], source: Perturb) -> Mapping[str, Any]:
    """How many of some records, drawn from a portion, the rules can edit: `looked_at`, `editable`, `share`."""
    candidates = [record for record in records if record.portion == portion]
    drawn = random.Random("edited").sample(candidates, min(EDITED, len(candidates)))
    count = sum(bool(offer.rejected) for offer in source.offers(drawn, {}))
    return {"looked_at": len(drawn), "editable": count, "share": round(count / len(drawn), 4) if drawn else None}
