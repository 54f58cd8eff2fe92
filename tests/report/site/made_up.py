"""A finished grid that nobody computed, with images, captions, curves and probes: what a report is made of."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynamics.synthetic import synthetic
from pretend import as_parquet, pretend_done

from cwdpo.base.store import Artefact, Store
from cwdpo.data.demo_scenes import SceneMix, captions, render
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, make_plan
from cwdpo.report.content import Column, Difference, Entry, Gap, Result, Row, Table

GRID = """
description: a small world, five methods
base:
  data: {{source: demo_world}}
  model: tiny
  benchmarks: [{{name: captions}}]
  execution: {{snapshot_every: 20}}{probe}
cases:
  base: {{}}
  sft: {{stage1: &sft {{objective: {{name: sft}}}}}}
  sft_c: {{stage1: &sft_c {{objective: {{name: sft_c}}, negatives: {{source: perturb}}}}}}
  dpo: {{stage1: *sft, stage2: {{objective: {{name: dpo}}, negatives: {{source: perturb}}}}}}
  cw_dpo: {{stage1: *sft_c, stage2: {{objective: {{name: cw_dpo}}, negatives: {{source: perturb}}}}}}
seeds: {seeds}
"""
PROBED = "\n  probe: {samples: 8, every: 20}"

SKILL = {"base": 0.35, "sft": 0.6, "sft_c": 0.62, "dpo": 0.66, "cw_dpo": 0.85}
"""Case -> share of the words of its captions that are right."""

METRICS = {"bleu_4": 0.8, "meteor": 0.5, "rouge_l": 0.9, "cider": 5.0}
"""Metric -> what a perfect caption gets."""

WRONG = ("orange", "purple", "diamond", "small", "three", "left")


def write_grid(path: Path, seeds: Sequence[int] = (0, 1, 2), probed: bool = False) -> Path:
    """A grid file of five methods."""
    path.write_text(GRID.format(seeds=list(seeds), probe=PROBED if probed else ""))
    return path


def make_up(folder: Path, seeds: Sequence[int] = (0, 1, 2), items: int = 12, probed: bool = False) -> Plan:
    """A home with everything of the grid done."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = write_grid(folder / "made-up.yaml", seeds, probed)
    plan = make_plan(load_grid(str(grid)), Store(folder / "home"))
    pretend_done(plan, plan.nodes)
    world = dict(scenes(items))
    for cell in plan.grid.cells:
        for node in plan.wired[cell.name].nodes():
            _fill(plan, node, cell.case, cell.seed, world)
    return plan


def scenes(items: int) -> Iterator[tuple[str, tuple[bytes, list[str]]]]:
    """Item -> a JPEG file and its references."""
    for number in range(1, items + 1):
        rng = random.Random(number)
        scene = SceneMix(0.3, 0.2, 0.5).draw(rng)
        file = io.BytesIO()
        render(scene, 160, rng).save(file, "JPEG")
        yield str(number), (file.getvalue(), captions(scene, rng))


def _fill(plan: Plan, node: Node, case: str, seed: int, world: Mapping[str, tuple[bytes, list[str]]]) -> None:
    """Contents that pages read, in place of those that nothing reads."""
    artefact = node.artefact(plan.store)
    stage = node.stage.name
    if stage == "world":
        rewrite(artefact, {f"images/{name}.jpg": image for name, (image, _) in world.items()})
    elif stage == "pairs":
        rewrite(artefact, {"records.jsonl": lines(_record(name, truths) for name, (_, truths) in world.items())})
    elif stage == "generate":
        rewrite(artefact, {"generations.jsonl": lines(answers(case, seed, world))})
    elif stage == "score":
        rewrite(artefact, score(case, seed, world))
    elif stage in ("stage1", "stage2"):
        events = artefact.attempts / "1" / "events.jsonl"
        events.write_bytes(lines(curve(stage, case, seed)))
    elif stage == "probe":
        peaking = 2.0 if case == "dpo" else 0.5
        synthetic(artefact.files, (0, 20, 40, 60), ("1", "2", "3"), seed, total=60, peaking=peaking, stage=stage)
        rewrite(artefact, {path.name: path.read_bytes() for path in artefact.files.iterdir()})


def _record(name: str, truths: Sequence[str]) -> dict[str, Any]:
    return {
        "id": f"{name}#0", "image_id": name, "image": f"images/{name}.jpg", "prompt": "Describe the image briefly.",
        "chosen": truths[0], "references": truths, "rejected": [], "split": "test", "portion": "none",
    }  # fmt: skip


def caption_of(case: str, seed: int, name: str, truth: str) -> str:
    """The truth with some words wrong, fewer the better the method."""
    rng = random.Random(f"{case} {seed if case != 'base' else 0} {name}")
    skill = SKILL[case]
    return " ".join(word if rng.random() < skill or len(word) < 3 else rng.choice(WRONG) for word in truth.split())


def answers(case: str, seed: int, world: Mapping[str, tuple[bytes, list[str]]]) -> Iterator[dict[str, Any]]:
    """Rows of generations.jsonl."""
    for name, (_, truths) in world.items():
        text = caption_of(case, seed, name, truths[0])
        yield {"id": name, "image": f"images/{name}.jpg", "text": text, "tokens": len(text.split()), "truncated": False}


def score(case: str, seed: int, world: Mapping[str, tuple[bytes, list[str]]]) -> dict[str, bytes]:
    """Files of a score: the share of right words, times what a perfect caption gets."""
    right = {name: _right(caption_of(case, seed, name, truths[0]), truths[0]) for name, (_, truths) in world.items()}
    rows = [{"id": name, **{key: top * share for key, top in METRICS.items()}} for name, share in right.items()]
    summary = {
        "benchmark": "captions", "metrics": {key: statistics.fmean(row[key] for row in rows) for key in METRICS},
        "unavailable": {}, "items": len(rows), "partial": False, "counts": {}, "notes": [], "harness": {},
    }  # fmt: skip
    return {"items.parquet": as_parquet(rows), "scores.json": json.dumps(summary).encode()}


def _right(text: str, truth: str) -> float:
    return statistics.fmean(one == other for one, other in zip(text.split(), truth.split(), strict=True))


def curve(stage: str, case: str, seed: int, steps: int = 60) -> Iterator[dict[str, Any]]:
    """Rows of events.jsonl of a training."""
    rng = random.Random(f"{stage} {case} {seed}")
    for step in range(1, steps + 1):
        row = {"time": float(step), "event": "step", "step": step, "total": steps, "seconds": 0.1}
        fall = math.exp(-step / 20)
        row |= {"learning_rate": 2e-4 * (1 - step / steps), "grad_norm": 0.5 + fall * rng.uniform(0.5, 1)}
        if stage == "stage1":
            row |= {"loss": 0.4 + 2 * fall + rng.gauss(0, 0.05), "nll_chosen": 0.4 + 2 * fall}
        else:
            grown = (1 - fall) * (3 if case == "cw_dpo" else 2) + rng.gauss(0, 0.1)
            row |= {"loss": math.log1p(math.exp(-grown)), "margin": grown, "accuracy": min(1.0, 0.5 + grown / 5)}
            row |= {"w_c": 0.3 * fall} if case == "cw_dpo" else {}
        yield row


def lines(rows: Iterator[Any] | Sequence[Any]) -> bytes:
    """JSON, one object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def rewrite(artefact: Artefact, contents: Mapping[str, bytes]) -> None:
    """Other files for a finished artefact, as if they had been computed."""
    folder, path = artefact.files, artefact.folder / "DONE"
    done = json.loads(path.read_text())
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    done["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    path.write_text(json.dumps(done))


def change_answers(plan: Plan, cell: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Other answers of a cell, as if they had been generated."""
    (node,) = (node for node in plan.wired[cell].nodes() if node.stage.name == "generate")
    artefact = node.artefact(plan.store)
    rows = [json.loads(line) for line in (artefact.files / "generations.jsonl").read_text().splitlines()]
    rewrite(artefact, {"generations.jsonl": lines([change(row) for row in rows])})


# ---- tables


def table_of(plan: Plan, **more: Any) -> Table:
    """The table of the captions, read from what the store has, without any of the code that makes tables."""
    (about,) = plan.grid.cells[0].experiment.benchmarks
    columns = tuple(
        Column(f"captions_{metric.key}", metric.title, "captions", "captions", metric)
        for metric in about.metrics
        if metric.key in METRICS
    )
    rows = [Row(case, case, _stands_on(case), dict(_entries(plan, case, columns))) for case in plan.grid.cases]
    table = Table("captions", "Captions", plan.grid.name, plan.grid.options, "", columns, tuple(rows), "base")
    return replace(table, **more)


def _stands_on(case: str) -> str:
    return {"dpo": "sft", "cw_dpo": "sft_c"}.get(case, "none")


def _entries(plan: Plan, case: str, columns: Sequence[Column]) -> Iterator[tuple[str, Entry]]:
    found: dict[str, tuple[list[int], dict[str, float]]] = {}
    for cell in plan.grid.cells:
        if cell.case == case:
            artefact = plan.wired[cell.name].scores["captions"].artefact(plan.store)
            content = json.loads((artefact.files / "scores.json").read_text())
            found.setdefault(artefact.folder.name, ([], content["metrics"]))[0].append(cell.seed)
    for column in columns:
        values = [(100 * metrics[column.metric.key], tuple(seeds), at) for at, (seeds, metrics) in found.items()]
        yield column.key, entry_of([Result(seeds, value, at) for value, seeds, at in values])


def entry_of(results: Sequence[Result], **more: Any) -> Entry:
    """An entry of some results, with a made-up interval."""
    values = [result.value for result in results]
    mean = statistics.fmean(values)
    std = statistics.stdev(values) if len(values) > 1 else None
    reach = None if std is None else 2.5 * std
    ends = (None, None) if reach is None else (mean - reach, mean + reach)
    return Entry(tuple(results), (), mean, std, *ends, **more)


def difference(value: float, p: float | None = 0.012) -> Difference:
    """A difference with a made-up interval."""
    return Difference(value, value - 2, value + 2, p, p, "Welch's t over seeds", "new trainings")


def gap(kind: Any, reason: str = "", seeds: Sequence[int] = (0,)) -> Gap:
    """A gap."""
    return Gap(kind, reason, tuple(seeds))
