"""Stage `llm`: an endpoint is asked about every record of a portion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.data.records import open_records
from cwdpo.endpoint.asking import FOLDER, Asking
from cwdpo.endpoint.exchange import Settled
from cwdpo.endpoint.replies import Replies
from cwdpo.endpoint.tally import Tally
from cwdpo.negatives.llm.rows import REPLIES, row_of
from cwdpo.negatives.llm.tasks import AnyTask


class LlmSpec(Config):
    """What is asked; the records are a parent."""

    portion: Literal["stage1", "stage2"]
    part: AnyTask


def run(context: StageContext) -> None:
    """Write replies.jsonl (see `rows`), settings.json (what made them) and summary.json (counts, tokens, cost).

    Raises:
        DataError: nothing can be used of any reply.
        ConfigError: the endpoint refuses every request.
        NotAvailable: the endpoint cannot be used, or its budget is used up; replies are kept.
    """
    spec: LlmSpec = context.spec
    with Replies(context.cache / FOLDER) as replies:
        asking, tally = Asking(context, spec.part, replies), Tally()
        _write_rows(context, asking, tally)
    counts = {name: asking.counts[name] for name in ("asked", "cached", "refused")}
    summary = {**tally.as_json(), **counts, **asking.spending.as_json(), "examples": tally.examples}
    files.write_json(context.out / "settings.json", _settings(spec))
    files.write_json(context.out / "summary.json", {**summary, **_settings(spec)})


def _write_rows(context: StageContext, asking: Asking, tally: Tally) -> None:
    """One at a time, as they are settled; there is no file where nothing can be used."""
    spec: LlmSpec = context.spec
    records = open_records(context.inputs["pairs"] / "records.jsonl", spec.portion)
    made = {role: folder for role, folder in context.inputs.items() if role not in ("pairs", "images")}
    with files.file_written_whole(context.out / REPLIES) as file:

        def take(index: int, settled: Sequence[Settled]) -> None:
            name = records[index].id
            tally.add(name, settled)
            file.write(row_of(name, [one.made for one in settled]))

        asking.all(spec.part.questions(records, made), len(records), take)
        if tally.dropped and not tally.made:
            raise asking.nothing_usable(tally.dropped, tally.examples[0]["said"] if tally.examples else "")


def _settings(spec: LlmSpec) -> dict[str, Any]:
    """What made the replies; the key is not among it, only the name of its variable was known."""
    endpoint = spec.part.endpoint
    return {"task": spec.part.task, "endpoint": {**endpoint.canonical(), "base_url": endpoint.base_url}}
