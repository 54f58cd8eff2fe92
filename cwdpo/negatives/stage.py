"""Stage `negatives`: rejected responses for one portion of the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.data.records import Record, Rejected, open_records
from cwdpo.negatives import Negatives

FROM = "from "
"""Before a source's name among the counts."""


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
    records = open_records(context.inputs["pairs"] / "records.jsonl", spec.portion)
    counts = Counter[str]()
    files.write_jsonl(context.out / "negatives.jsonl", _rows(records, spec.negatives, counts))
    sources = {key.removeprefix(FROM): count for key, count in counts.items() if key.startswith(FROM)}
    names = ("without", "negatives", "equal_to_truth", "repeated")
    summary = {"records": len(records), **{name: counts[name] for name in names}, "sources": sources}
    files.write_json(context.out / "summary.json", summary)


def _rows(records: Sequence[Record], negatives: Negatives, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Rows of negatives.jsonl; what the summary says is added to `counts`.

    Raises:
        DataError: after the last row, when there is no negative in any.
    """
    for record, items in zip(records, negatives.reject(records), strict=True):
        kept = _wrong(record, items, counts)
        counts["without"] += not kept
        counts["negatives"] += len(kept)
        counts.update(f"{FROM}{item.source}" for item in kept)
        yield {"id": record.id, "rejected": [asdict(item) for item in kept]}
    if not counts["negatives"]:
        raise DataError(f"negatives '{negatives.source}' found nothing for any of {len(records)} records")


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
