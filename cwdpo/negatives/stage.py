"""Stage `negatives`: rejected responses for one portion of the records."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from cwdpo.base import files
from cwdpo.base.config import Config, Neutral
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.base.lines import JsonLines, Rows
from cwdpo.data.records import Record, Rejected, open_records, rejected_row
from cwdpo.negatives import Negatives, makers
from cwdpo.negatives.page import write_page
from cwdpo.negatives.source import REASONS, Offer, usable
from cwdpo.negatives.summary import Statistics
from cwdpo.objectives.supply import SUPPLIES, Supply

FROM = "from "
"""Before a source's name among the counts."""
SERVED = "served by "
"""Before the name that a source has inside another one."""

COUNTED = ("records", "without", "negatives", "equal_to_truth", "repeated", "empty")
"""What the summary always says."""


class NegativesSpec(Config):
    """A source, for the images of one stage."""

    negatives: Negatives
    portion: Literal["stage1", "stage2"]
    requires: Annotated[tuple[Supply, ...], Neutral(())] = ()
    """What every rejected response must come with; others are left out."""


def run(context: StageContext) -> None:
    """Write negatives.jsonl, summary.json and examples.html.

    A row is `{"id", "image", "prompt", "chosen", "rejected": [{"text", "source", "grade", ...}]}`; a rejected response
    has what it comes with (`revised`, `dialogue`, `scores`), how it was made (`how`) and, where a policy made it, its
    `mean_logp`. Those that lack what is required, repeat one another, are empty or equal a reference are dropped and
    counted, with those that the source itself has dropped. What the parts were made with is in the summary, and how
    many records each source inside another one has served (`served`).

    Raises:
        DataError: no rejected response is left; says why where that is known.
    """
    spec: NegativesSpec = context.spec
    records = open_records(context.inputs["pairs"] / "records.jsonl", spec.portion)
    counts, statistics = Counter[str](), Statistics()
    made = {role: folder for role, folder in context.inputs.items() if role not in ("pairs", "images")}
    offers = spec.negatives.offers_for(frozenset(spec.requires), records, made)
    path = context.out / "negatives.jsonl"
    files.write_jsonl(path, _counted(_rows(zip(records, offers, strict=True), spec, counts), statistics))
    summary = {**_summary(counts, spec), **spec.negatives.about(made), "statistics": statistics.as_json()}
    files.write_json(context.out / "summary.json", summary)
    _show(context, statistics, {"source": spec.negatives.source, "stage": spec.portion, **summary})
    if counts["lacking"] > counts["negatives"]:
        print(f"most rejected responses are not used{_lacking(spec.requires, counts['lacking'])}", file=sys.stderr)


def _summary(counts: Counter[str], spec: NegativesSpec) -> dict[str, Any]:
    """What was counted; what is rare only where there is any."""
    rare = [reason for reason in REASONS if reason not in COUNTED and counts[reason]]
    served = _behind(SERVED, counts)
    return {
        **{name: counts[name] for name in (*COUNTED, *rare, *(["lacking"] if spec.requires else []))},
        "sources": _behind(FROM, counts),
        **({"served": served} if served else {}),
    }


def _behind(prefix: str, counts: Counter[str]) -> dict[str, int]:
    return {key.removeprefix(prefix): count for key, count in counts.items() if key.startswith(prefix)}


def _show(context: StageContext, statistics: Statistics, about: Mapping[str, Any]) -> None:
    """A page with some of the pairs."""
    lines = JsonLines(context.out / "negatives.jsonl")
    rows = Rows(lines, array("q", (start for start, _ in lines.scan())), dict[str, Any])
    title = f"Negatives '{about['source']}' of {about['stage']}"
    shown = ("sources", "served")
    counts = {key: value for key, value in about.items() if isinstance(value, int | str) or key in shown}
    write_page(context.out / "examples.html", rows, context.inputs.get("images"), title, statistics, counts)


def _counted(rows: Iterable[dict[str, Any]], statistics: Statistics) -> Iterator[dict[str, Any]]:
    for row in rows:
        statistics.add(row)
        yield row


def _rows(
    offered: Iterable[tuple[Record, Offer]], spec: NegativesSpec, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Rows of negatives.jsonl; what the summary says is added to `counts`.

    Raises:
        DataError: after the last row, when there is no negative in any.
    """
    for record, offer in offered:
        counts.update(offer.dropped)
        kept = usable(record, offer, frozenset(spec.requires), counts)
        _count(kept, counts)
        yield {
            "id": record.id, "image": record.image, "prompt": record.prompt, "chosen": offer.chosen or record.chosen,
            "rejected": [rejected_row(item) for item in kept],
        }  # fmt: skip
    if not counts["negatives"]:
        found = f"negatives '{spec.negatives.source}' found nothing for any of {counts['records']} records"
        why = ", ".join(f"{counts[reason]} times {said}" for reason, said in REASONS.items() if counts[reason])
        lacking = _lacking(spec.requires, counts["lacking"]) if counts["lacking"] else ""
        raise DataError(found + (f": {why}" if why else "") + lacking)


def _count(kept: Sequence[Rejected], counts: Counter[str]) -> None:
    """Add one record with what is kept for it."""
    counts["records"] += 1
    counts["without"] += not kept
    counts["negatives"] += len(kept)
    counts.update(f"{FROM}{item.source}" for item in kept)
    counts.update({f"{SERVED}{item.how['part']}" for item in kept if "part" in item.how})


def _lacking(requires: Iterable[Supply], count: int) -> str:
    needs = [f"{SUPPLIES[supply]} (from {', '.join(makers(supply))})" for supply in requires]
    return f"; {count} rejected responses were left out, for training needs " + " and ".join(needs)
