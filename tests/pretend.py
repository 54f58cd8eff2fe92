"""Grids of thousands of cells, and stores that look as if they had been computed: nothing in them is a real result.

The folders are in the store's own format, with the true digests of small made-up files, so that every command reads
them as it reads real ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cwdpo.base.sources import source_digests
from cwdpo.base.store import Artefact, Store, lineage
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan

GRID = """
description: {cells} cells of made-up settings
base:
  data: {{source: demo_world}}
  model: tiny
  benchmarks: [{{name: captions}}]
  stage1: {{objective: {{name: sft_c}}, negatives: {{source: perturb}}}}
  stage2: {{objective: {{name: cw_dpo}}, negatives: {{source: perturb}}}}
cases:
  hard: {{}}
  soft: {{stage2: {{objective: {{tau: 2.0}}}}}}
axes:
  stage1.optimization.learning_rate: {first}
  stage2.objective.beta: {second}
seeds: {seeds}
"""

FILES = {
    "pretrain": ("config.json", "model.safetensors", "tokenizer.json"),
    "stage1": ("adapter_config.json", "adapter_model.safetensors"),
    "stage2": ("adapter_config.json", "adapter_model.safetensors"),
    "generate": ("generations.jsonl", "settings.json"),
}
"""Stage -> names of the files it leaves; `score` has its own, others get one file here."""

METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")
"""What a made-up score has."""


def write_grid(path: Path, first: int, second: int, seeds: int) -> Path:
    """A grid of 2 x first x second x seeds cells; first x seeds Stage-1 trainings, one Stage 2 per cell."""
    text = GRID.format(
        cells=2 * first * second * seeds,
        first=[round(1e-6 * (1 + index), 9) for index in range(first)],
        second=[round(0.01 * (1 + index), 4) for index in range(second)],
        seeds=list(range(seeds)),
    )
    path.write_text(text)
    return path


def pretend_done(plan: Plan, nodes: Iterable[Node], items: int = 4) -> None:
    """Finished artefacts for `nodes`, parents before children; every score has so many items."""
    lineages: dict[str, str] = {}
    for node in nodes:
        parents = {role: lineages[entry.id] for role, entry in node.inputs.items() if isinstance(entry, Node)}
        made_by = lineage(source_digests(node.stage.module, node.spec), parents)
        lineages[node.id] = made_by["lineage"]
        files = dict(_score_files(node, items) if node.stage.name == "score" else _files(node))
        _write_done(node.artefact(plan.store), node, made_by, files)


def rescore(plan: Plan, node: Node, rows: list[dict[str, Any]] | None = None, **summary: Any) -> None:
    """Another result of a made-up score, as if that had been computed.

    Args:
        rows: of items.parquet; None leaves them.
        summary: keys of scores.json; `metrics` are laid over the old ones.
    """
    artefact = node.artefact(plan.store)
    scores: dict[str, Any] = json.loads((artefact.files / "scores.json").read_text())
    metrics = {**scores["metrics"], **summary.pop("metrics", {})}
    contents = {"scores.json": json.dumps({**scores, **summary, "metrics": metrics}).encode()}
    if rows is not None:
        contents["items.parquet"] = as_parquet(rows)
    rewrite(artefact, contents)


def rewrite(artefact: Artefact, contents: Mapping[str, bytes]) -> None:
    """Other files of a finished stage, as if they had been written by it."""
    done = json.loads((artefact.folder / "DONE").read_text())
    for name, content in contents.items():
        (artefact.files / name).parent.mkdir(parents=True, exist_ok=True)
        (artefact.files / name).write_bytes(content)
        done["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (artefact.folder / "DONE").write_text(json.dumps(done))


def pretend_ended(store: Store, node: Node, failed: bool) -> None:
    """One attempt that failed, or that was cut off."""
    folder = _attempt(node.artefact(store), node)
    if failed:
        result = {"state": "failed", "kind": "ValueError", "message": "made up"}
        (folder / "result.json").write_text(json.dumps(result))


def _files(node: Node) -> Iterator[tuple[str, bytes]]:
    """Names and contents that nothing but the store reads."""
    for name in FILES.get(node.stage.name, ("files.jsonl",)):
        yield name, f"made up: {name} of {node.id}\n".encode()


def _score_files(node: Node, items: int) -> Iterator[tuple[str, bytes]]:
    """What the score stage leaves, as `report` reads it; random numbers, always the same for a node."""
    generator = random.Random(node.id)
    rows = [{"id": f"item {index}", **_item(generator)} for index in range(items)]
    yield "items.parquet", as_parquet(rows)
    metrics = {name: sum(row[name] for row in rows) / items for name in METRICS}
    made_up = dict.fromkeys(("pycocoevalcap", "java", "tokenizer", "meteor", "prompt", "dtype"), "made up")
    summary = {
        "benchmark": node.card["spec"]["benchmark"]["name"], "metrics": {**metrics, "spice": None},
        "unavailable": {"spice": "not available: made up"}, "items": items, "partial": False,
        "counts": {}, "notes": [], "harness": made_up,
    }  # fmt: skip
    yield "scores.json", json.dumps(summary, indent=1).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    """The bytes of a table of rows."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def _item(generator: random.Random) -> dict[str, Any]:
    """Made-up scores of one caption, with as many digits as real ones."""
    counts: dict[str, Any] = {"bleu_correct": [9, 6, 4, 2], "bleu_guess": [11, 10, 9, 8]}
    lengths = {"candidate_length": 11, "reference_length": 10}
    scores = {name: generator.random() for name in METRICS}
    return {**scores, **counts, **lengths, "meteor_statistics": [float(count) for count in range(23)]}


def _write_done(artefact: Artefact, node: Node, made_by: dict[str, Any], contents: dict[str, bytes]) -> None:
    folder = _attempt(artefact, node)
    entries = {}
    for name, content in contents.items():
        (folder / "out" / name).write_bytes(content)
        entries[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    provenance = {
        "version": "0", "commit": "0" * 40, "dirty": False, "host": "nowhere", "python": "3.11.7", "ranks": 1,
        "execution": node.execution.model_dump(mode="json"), "seconds": 1.0, "finished": "2026-01-01T00:00:00Z",
        "packages": {"torch": "2.13.0", "transformers": "5.23.0"}, **made_by,
    }  # fmt: skip
    done = {"attempt": 1, "files": entries, "provenance": provenance}
    (artefact.folder / "DONE").write_text(json.dumps(done, indent=1) + "\n")


def _attempt(artefact: Artefact, node: Node) -> Path:
    """Attempt 1 of a process that is gone."""
    folder = artefact.attempts / "1"
    (folder / "out").mkdir(parents=True)
    claim = {"host": "nowhere", "pid": 1, "process_started": "0", "time": 0.0, "job": "made up"}
    (folder / "claim.json").write_text(json.dumps(claim))
    (folder / "heartbeat").touch()
    os.utime(folder / "heartbeat", (0, 0))
    step = {"time": 0.0, "event": "step", "step": 3, "total": 9}
    (folder / "events.jsonl").write_text(json.dumps(step) + "\n")
    (artefact.folder / "stage.json").write_text(json.dumps({"id": node.id, **node.card}, indent=1))
    return folder
