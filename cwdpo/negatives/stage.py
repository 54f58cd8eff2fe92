"""Stage `negatives`: rejected responses for one portion of the records."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from cwdpo.base import files
from cwdpo.base.config import Config, Neutral
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.data.records import Record, Rejected, open_records, rejected_row
from cwdpo.negatives import Negatives, makers
from cwdpo.objectives.supply import SUPPLIES, Supply

FROM = "from "
"""Before a source's name among the counts."""


class NegativesSpec(Config):
    """A source, for the images of one stage."""

    negatives: Negatives
    portion: Literal["stage1", "stage2"]
    requires: Annotated[tuple[Supply, ...], Neutral(())] = ()
    """What every rejected response must come with; others are left out."""


def run(context: StageContext) -> None:
    """Write negatives.jsonl (`{"id", "rejected": [{"text", "source", "grade"}]}`) and summary.json.

    Rejected responses are written with what they come with: `revised`, `dialogue`, `scores`. Those that lack what is
    required, repeat one another or equal a reference are dropped and counted.

    Raises:
        DataError: no rejected response is left.
    """
    spec: NegativesSpec = context.spec
    records = open_records(context.inputs["pairs"] / "records.jsonl", spec.portion)
    counts = Counter[str]()
    files.write_jsonl(context.out / "negatives.jsonl", _rows(records, spec, counts))
    sources = {key.removeprefix(FROM): count for key, count in counts.items() if key.startswith(FROM)}
    names = ("without", "negatives", "equal_to_truth", "repeated", *(["lacking"] if spec.requires else []))
    summary = {"records": len(records), **{name: counts[name] for name in names}, "sources": sources}
    files.write_json(context.out / "summary.json", summary)
    if counts["lacking"] > counts["negatives"]:
        print(f"most rejected responses are not used{_lacking(spec.requires, counts['lacking'])}", file=sys.stderr)


def _rows(records: Sequence[Record], spec: NegativesSpec, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Rows of negatives.jsonl; what the summary says is added to `counts`.

    Raises:
        DataError: after the last row, when there is no negative in any.
    """
    for record, items in zip(records, spec.negatives.reject(records), strict=True):
        complete = [item for item in items if item.supplies.issuperset(spec.requires)]
        counts["lacking"] += len(items) - len(complete)
        kept = _wrong(record, complete, counts)
        counts["without"] += not kept
        counts["negatives"] += len(kept)
        counts.update(f"{FROM}{item.source}" for item in kept)
        yield {"id": record.id, "rejected": [rejected_row(item) for item in kept]}
    if not counts["negatives"]:
        found = f"negatives '{spec.negatives.source}' found nothing for any of {len(records)} records"
        raise DataError(found + (_lacking(spec.requires, counts["lacking"]) if counts["lacking"] else ""))


def _lacking(requires: Iterable[Supply], count: int) -> str:
    needs = [f"{SUPPLIES[supply]} (from {', '.join(makers(supply))})" for supply in requires]
    return f"; {count} rejected responses were left out, for training needs " + " and ".join(needs)


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
