"""Stage `llm`: an endpoint is asked about every record of a portion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.data.records import Record, open_records
from cwdpo.negatives.llm.asking import Asking
from cwdpo.negatives.llm.replies import Replies
from cwdpo.negatives.llm.task import Settled
from cwdpo.negatives.llm.tasks import AnyTask

EXAMPLES = 5
"""Dropped replies that the summary shows."""


class LlmSpec(Config):
    """What is asked; the records are a parent."""

    portion: Literal["stage1", "stage2"]
    part: AnyTask


def run(context: StageContext) -> None:
    """Write replies.jsonl, settings.json (what made them) and summary.json (counts, tokens, cost).

    A row is `{"id", "replies": [...]}`: what the task makes of each reply, null where there is nothing.

    Raises:
        DataError: nothing can be used of any reply.
        ConfigError: the endpoint refuses every request.
        NotAvailable: the endpoint cannot be used, or its budget is used up; replies are kept.
    """
    spec: LlmSpec = context.spec
    records = open_records(context.inputs["pairs"] / "records.jsonl", spec.portion)
    made = {role: folder for role, folder in context.inputs.items() if role not in ("pairs", "images")}
    with Replies(context.cache / "llm") as replies:
        asking = Asking(context, spec.part, replies)
        settled = asking.all(spec.part.questions(records, made), len(records))
    summary = {**_summary(asking, settled), "examples": _examples(records, settled)}
    _check(asking, summary)
    files.write_jsonl(context.out / "replies.jsonl", _rows(records, settled))
    files.write_json(context.out / "settings.json", _settings(spec))
    files.write_json(context.out / "summary.json", {**summary, **_settings(spec)})


def _rows(records: Sequence[Record], settled: Iterable[Sequence[Settled]]) -> Iterable[dict[str, Any]]:
    for record, own in zip(records, settled, strict=True):
        yield {"id": record.id, "replies": [one.made for one in own]}


def _summary(asking: Asking, settled: Sequence[Sequence[Settled]]) -> dict[str, Any]:
    every = [one for own in settled for one in own]
    good = [one for one in every if one.made is not None]
    lacks = [one.made["lacks"] for one in good if one.made and "lacks" in one.made]
    return {
        "records": len(settled),
        "questions": len(every),
        "made": len(good),
        "repaired": sum(one.replies > 1 for one in good),
        "dropped": _counted(one.reason for one in every if one.made is None and one.asked),
        "lacking": _counted(lacks),
        "not_asked": _counted(one.reason for one in every if not one.asked),
        **{name: asking.counts[name] for name in ("asked", "cached", "refused")},
        **asking.spending.as_json(),
    }


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items()))


def _check(asking: Asking, summary: dict[str, Any]) -> None:
    if summary["made"] or not summary["dropped"]:
        return
    reasons = ", ".join(f"{reason} ({count})" for reason, count in summary["dropped"].items())
    if asking.refusal:
        raise ConfigError(f"nothing could be used: {reasons}; the last refusal: {asking.refusal}")
    said = summary["examples"][0]["said"]
    raise DataError(f"nothing could be used of what the endpoint said: {reasons}; such as {said!r}")


def _examples(records: Sequence[Record], settled: Iterable[Sequence[Settled]]) -> list[dict[str, str]]:
    """A few replies that were dropped."""
    dropped = (
        {"id": record.id, "reason": one.reason, "said": one.said}
        for record, own in zip(records, settled, strict=True)
        for one in own
        if one.made is None and one.replies
    )
    return list(islice(dropped, EXAMPLES))


def _settings(spec: LlmSpec) -> dict[str, Any]:
    """What made the replies; the key is not among it, only the name of its variable was known."""
    endpoint = spec.part.endpoint
    return {"task": spec.part.task, "endpoint": {**endpoint.canonical(), "base_url": endpoint.base_url}}
