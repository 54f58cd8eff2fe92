"""Stage `score`: stored answers against references, on a CPU, without the model."""

from __future__ import annotations

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.data.records import open_records
from cwdpo.evaluate.benchmarks import Benchmark


class ScoreSpec(Config):
    """The answers are a parent."""

    benchmark: Benchmark


def run(context: StageContext) -> None:
    """Write scores.json (corpus values, reasons for what is not available, harness) and items.jsonl (per item)."""
    from cwdpo.metrics.captions import harness

    spec: ScoreSpec = context.spec
    rows = list(files.read_jsonl(context.inputs["generate"] / "generations.jsonl"))
    records = open_records(context.inputs["pairs"] / "records.jsonl")
    scores = spec.benchmark.score({row["id"]: row["text"] for row in rows}, records)
    summary = {
        "benchmark": spec.benchmark.name,
        "metrics": scores.corpus,
        "unavailable": scores.unavailable,
        "items": len(rows),
        "partial": spec.benchmark.limit is not None or _is_cut(context),
        "truncated": sum(row["truncated"] for row in rows),
        "harness": {**harness(), **files.read_json(context.inputs["generate"] / "settings.json")},
    }
    files.write_jsonl(context.out / "items.jsonl", ({"id": name, **item} for name, item in scores.per_item.items()))
    files.write_json(context.out / "scores.json", summary)


def _is_cut(context: StageContext) -> bool:
    """True when the records are only the first of the data set."""
    return files.read_json(context.inputs["pairs"] / "summary.json").get("limit") is not None
