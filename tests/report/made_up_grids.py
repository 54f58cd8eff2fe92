"""Small grids whose scores are made up, with values that tests choose: nothing in them is computed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from commands import plan_of
from pretend import pretend_done, rescore

from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan
from cwdpo.report.content import Entry, Table

GRID = """
base:
  data: {{source: demo_world}}
  model: tiny
  benchmarks: {benchmarks}
  stage1: {{objective: {{name: sft}}}}
cases:
  base: {{stage1: null}}
  sft: {{}}
  dpo: {{stage2: {{objective: {{name: dpo}}, negatives: &swap {{source: perturb}}}}}}
  cw_dpo:
    stage1: {{objective: {{name: sft_c}}, negatives: *swap}}
    stage2: {{objective: {{name: cw_dpo}}, negatives: *swap}}
seeds: {seeds}
"""

CAPTIONS = "[{name: captions}]"
TRAINED = ("sft", "dpo", "cw_dpo")


def made_up(folder: Path, seeds: int = 5, items: int = 4, benchmarks: str = CAPTIONS, name: str = "small") -> Plan:
    """A finished grid of base, sft, dpo and cw_dpo."""
    grid = folder / f"{name}.yaml"
    grid.write_text(GRID.format(seeds=list(range(seeds)), benchmarks=benchmarks))
    plan = plan_of(folder / "home", grid=grid)
    pretend_done(plan, plan.nodes, items=items)
    return plan


@contextmanager
def restored(plan: Plan) -> Iterator[Plan]:
    """Put the store of a grid back as it was, whatever was done to it: file by file, for a copy takes longer."""
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in _files(plan)}
    try:
        yield plan
    finally:
        for path in set(_files(plan)) - before.keys():
            path.unlink()
        for path, (content, when) in before.items():
            if not path.exists() or path.stat().st_mtime_ns != when:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                os.utime(path, ns=(when, when))


def _files(plan: Plan) -> list[Path]:
    return [path for path in plan.store.home.rglob("*") if path.is_file()]


def score(plan: Plan, cell: str, benchmark: str = "captions") -> Node:
    """The score of a cell such as `dpo/0`."""
    return plan.wired[cell].scores[benchmark]


def give(plan: Plan, values: Mapping[str, Sequence[float]], metric: str = "cider", benchmark: str = "captions") -> None:
    """Stored values by case, one for each seed; the base model has one score for all."""
    for case, found in values.items():
        for seed, value in enumerate(found):
            rescore(plan, score(plan, f"{case}/{seed}", benchmark), metrics={metric: value})


def entry(table: Table, row: str, column: str = "cider") -> Entry:
    """One cell of a table."""
    return next(one for one in table.rows if one.key == row).entries[column]


def item_rows(values: Sequence[float | None], **more: Any) -> list[dict[str, Any]]:
    """Rows of items.parquet with a CIDEr each."""
    return [{"id": f"item {place}", "cider": value, **more} for place, value in enumerate(values)]
