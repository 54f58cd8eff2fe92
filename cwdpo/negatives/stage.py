"""Stage `negatives`: rejected responses for one portion of the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.data.records import Record, Rejected, read_records
from cwdpo.negatives import Negatives


class NegativesSpec(Config):
    """A source, for the images of one stage."""

    negatives: Negatives
    portion: Literal["stage1", "stage2"]


def run(context: StageContext) -> None:
    """Write negatives.jsonl (`{"id", "rejected": [{"text", "source", "grade"}]}`) and summary.json.

    Rejected responses that repeat one another or equal a reference are dropped and counted.

    Raises:
        DataError: the source made nothing at all.
    """
    spec: NegativesSpec = context.spec
    every = read_records(context.inputs["pairs"] / "records.jsonl")
    records = [record for record in every if record.portion == spec.portion]
    rows, dropped = [], Counter[str]()
    for record, items in zip(records, spec.negatives.reject(records), strict=True):
        kept = _wrong(record, items, dropped)
        rows.append({"id": record.id, "rejected": [asdict(item) for item in kept]})
    summary = _summary(rows, dropped)
    if not summary["negatives"]:
        raise DataError(f"negatives '{spec.negatives.source}' found nothing for any of {len(records)} records")
    files.write_jsonl(context.out / "negatives.jsonl", rows)
    files.write_json(context.out / "summary.json", summary)


def _wrong(record: Record, items: Iterable[Rejected], dropped: Counter[str]) -> list[Rejected]:
    """Distinct rejected responses that are not the truth; counts the others in `dropped`."""
    truth = {record.chosen, *record.references}
    kept: dict[str, Rejected] = {}
    for item in items:
        if item.text in truth or item.text in kept:
            dropped["equal_to_truth" if item.text in truth else "repeated"] += 1
        else:
            kept[item.text] = item
    return list(kept.values())


def _summary(rows: list[dict[str, Any]], dropped: Counter[str]) -> dict[str, Any]:
    kept = [item for row in rows for item in row["rejected"]]
    return {
        "records": len(rows),
        "without": sum(1 for row in rows if not row["rejected"]),
        "negatives": len(kept),
        "equal_to_truth": dropped["equal_to_truth"],
        "repeated": dropped["repeated"],
        "sources": dict(Counter(item["source"] for item in kept)),
    }
