"""Stage `llm`: an endpoint is asked about every record of a portion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.data.records import Record, open_records
from cwdpo.negatives.llm.asking import Asking
from cwdpo.negatives.llm.correct import Correct
from cwdpo.negatives.llm.replies import Replies
from cwdpo.negatives.llm.rewrite import Rewrite
from cwdpo.negatives.llm.revise import Revise
from cwdpo.negatives.llm.task import Settled


class LlmSpec(Config):
    """What is asked; the records are a parent."""

    portion: Literal["stage1", "stage2"]
    part: Annotated[Rewrite | Revise | Correct, Field(discriminator="task")]


def run(context: StageContext) -> None:
    """Write replies.jsonl (`{"id", "replies": [...]}`, one for each question, null for nothing), settings.json, summary.json.

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
    summary = _summary(asking, settled)
    _check(asking, summary)
    files.write_jsonl(context.out / "replies.jsonl", _rows(records, settled))
    files.write_json(context.out / "settings.json", _settings(spec))
    files.write_json(context.out / "summary.json", {**summary, **_settings(spec)})


def _rows(records: Sequence[Record], settled: Iterable[Sequence[Settled]]) -> Iterable[dict[str, Any]]:
    for record, own in zip(records, settled, strict=True):
        yield {"id": record.id, "replies": [one.made for one in own]}


def _summary(asking: Asking, settled: Sequence[Sequence[Settled]]) -> dict[str, Any]:
    every = [one for own in settled for one in own]
    asked = [one for one in every if one.replies or not one.reason]
    reasons = Counter(one.reason for one in every if one.made is None)
    return {
        "records": len(settled),
        "questions": len(every),
        "made": sum(one.made is not None for one in every),
        "repaired": sum(one.made is not None and one.replies > 1 for one in asked),
        "nothing": dict(sorted(reasons.items())),
        "asked": asking.counts["asked"],
        "cached": asking.counts["cached"],
        **asking.spending.as_json(),
    }


def _check(asking: Asking, summary: dict[str, Any]) -> None:
    if summary["made"] or not asking.counts["asked"] + asking.counts["cached"] + asking.counts["refused"]:
        return
    reasons = ", ".join(f"{reason} ({count})" for reason, count in summary["nothing"].items())
    if asking.refusal:
        raise ConfigError(f"nothing could be used: {reasons}; the last refusal: {asking.refusal}")
    raise DataError(f"nothing could be used of what the endpoint said: {reasons}")


def _settings(spec: LlmSpec) -> dict[str, Any]:
    """What made the replies; the key is not among it, only the name of its variable was known."""
    endpoint = spec.part.endpoint
    return {"task": spec.part.task, "endpoint": {**endpoint.canonical(), "base_url": endpoint.base_url}}
