"""Stage `score`: stored answers by a benchmark's rules, on a CPU, without the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.base.identity import digest
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.evaluate.benchmarks.benchmark import was_asked
from cwdpo.evaluate.benchmarks.captions import PreparedCaptions
from cwdpo.evaluate.items import write_items
from cwdpo.evaluate.prepared import settings_of

Row = dict[str, Any]


class ScoreSpec(Config):
    """The answers, and what a judge said of them, are parents."""

    benchmark: AnyBenchmark


def run(context: StageContext) -> None:
    """Write scores.json (corpus values, reasons for what is not available, counts, harness) and items.parquet."""
    spec: ScoreSpec = context.spec
    rows = _answers(context)
    scores = spec.benchmark.scored(context.inputs, rows)
    harness = {**spec.benchmark.harness(), **_settings(context, "generate"), **_judge(context)}
    cut = sum(row["truncated"] for row in rows.values())
    counts = {"answers cut at max_new_tokens": cut, **_missing(rows, scores.left_out), **scores.counts}
    partial = spec.benchmark.limit is not None or _is_cut(context) or scores.left_out > 0
    summary = {
        "benchmark": spec.benchmark.name,
        "metrics": scores.corpus,
        "unavailable": scores.unavailable,
        "items": len(rows) - scores.left_out,
        "partial": partial,
        "counts": {name: count for name, count in counts.items() if count},
        "notes": _unlike_published(context, None if partial else len(rows)),
        "harness": harness,
        "fingerprint": digest(harness)[:16],
    }
    write_items(context.out, scores.per_item)
    files.write_json(context.out / "scores.json", summary)


def _answers(context: StageContext) -> dict[str, Row]:
    """Rows of generations.jsonl by id, with the judgements of a judge if there is one."""
    path = context.inputs["generate"] / "generations.jsonl"
    rows: dict[str, Row] = {}
    for row in files.read_jsonl(path):
        if row["id"] in rows:
            raise DataError(f"{path}: two answers to '{row['id']}'")
        rows[row["id"]] = row
    if "judge" in context.inputs:
        for judged in files.read_jsonl(context.inputs["judge"] / "judgements.jsonl"):
            rows[judged["id"]]["judgements"] = judged["judgements"]
    return rows


def _missing(rows: Mapping[str, Row], left_out: int) -> dict[str, int]:
    """Answers that say nothing, and items that could not be asked."""
    asked = [row for row in rows.values() if was_asked(row)]
    faults = len(rows) - len(asked)
    return {
        "items that did not fit into the model's context, and are left out": faults,
        "items left out because those they are scored with did not fit": left_out - faults,
        "empty answers": sum(not row["text"].strip() for row in asked),
    }


def _settings(context: StageContext, role: str) -> dict[str, Any]:
    found: dict[str, Any] = files.read_json(context.inputs[role] / "settings.json")
    return found


def _judge(context: StageContext) -> dict[str, Any]:
    """Who judged, and how; where the endpoint lay says nothing about the scores."""
    if "judge" not in context.inputs:
        return {}
    found = _settings(context, "judge")
    endpoint = {key: value for key, value in found["endpoint"].items() if key != "base_url"}
    return {"judge": {**found, "endpoint": endpoint}}


def _unlike_published(context: StageContext, images: int | None) -> list[str]:
    """A sentence for everything in which the files are not those that were published.

    Args:
        images: how many are described, if all that there are.
    """
    if "questions" in context.inputs:
        found: list[str] = files.read_json(context.inputs["questions"] / "summary.json")["unlike_published"]
        return [f"not as published: {note}" for note in found]
    benchmark = context.spec.benchmark
    if images is None or not isinstance(benchmark, PreparedCaptions) or settings_of(benchmark):
        return []
    known = sum(benchmark.published.values())
    return [f"not as published: {images:,} images, published are {known:,}"] if images != known else []


def _is_cut(context: StageContext) -> bool:
    """True when the records are only the first of the data set."""
    pairs = context.inputs.get("pairs")
    return pairs is not None and files.read_json(pairs / "summary.json").get("limit") is not None
