"""Verdicts on the pairs of two cells or cases, by the benchmark's values or by a judge: what they come to, as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.identity import digest
from cwdpo.endpoint.settings import Endpoint
from cwdpo.evaluate.judging.pairs import Judgement, PairJudge, Words, judge_pairs, usable
from cwdpo.evaluate.pairwise import (
    Pair,
    Verdict,
    bias,
    by_category,
    by_value,
    difference,
    in_both_orders,
    most_different,
    row,
    tally,
)
from cwdpo.jobs.plan import Plan
from cwdpo.report.matched import Matched, Run, Seeds, images_of, match, runs_of, seeds_of
from cwdpo.report.render.text import listed

COVERS = "Wilson, 95%, over items of these checkpoints; it says nothing about the variance of training"
"""What the interval of a win rate is."""
SEVERAL = "; it takes the answers of several seeds to one item for independent ones, so that it is rather narrow"
UNUSABLE = "pairs with a judge's reply that could not be used"


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        options: name the grid on a command line.
        seeds: that were compared, and that were not.
        verdicts: one for each pair, None for one that is left out.
        judge: what verdicts depend on, where a judge was asked; else nothing.
    """

    names: tuple[str, str]
    benchmark: str
    options: str
    seeds: Seeds
    matched: Matched
    verdicts: list[Verdict | None]
    judge: PairJudge | None = None
    judgement: Judgement | None = None

    def as_json(self, shown: int) -> dict[str, Any]:
        """Everything but the pairs.

        Args:
            shown: how many pairs that differ most are in it.
        """
        matched, judged = self.matched, self.judge is not None
        items = {pair.id for pair, verdict in zip(matched.pairs, self.verdicts, strict=True) if verdict}
        found = tally(self.verdicts)
        return {
            "a": self.names[0],
            "b": self.names[1],
            "benchmark": self.benchmark,
            "options": self.options,
            "by": "judge" if self.judge else matched.metric.key,
            "judge": self.judge.endpoint.model if self.judge else None,
            "seeds": dict(zip("ab", self.seeds.compared, strict=True)),
            "partial": matched.partial,
            "items": len(items),
            **found.as_json(),
            "interval": COVERS + (SEVERAL if found.n > len(items) else ""),
            "difference": self._difference(),
            "categories": {name: one.as_json() for name, one in by_category(matched.pairs, self.verdicts).items()},
            "position_bias": self._bias(),
            "left_out": self.left_out(),
            "counts": dict(matched.counts),
            "judging": self._judging(),
            "cells": matched.cells,
            "notes": list(matched.notes),
            "differ_most": [row(*one) for one in most_different(matched.pairs, self.verdicts, shown, judged)],
        }

    def left_out(self) -> dict[str, int]:
        """What is in no verdict, by reason."""
        reason = UNUSABLE if self.judge else f"pairs without a value of {self.matched.metric.title}"
        found = {**self._alone(), **self.matched.left_out, reason: self.verdicts.count(None)}
        return {name: count for name, count in found.items() if count}

    def _alone(self) -> dict[str, int]:
        """Seeds without a partner, by whose they are."""
        sides = zip(self.names, self.seeds.alone, strict=True)
        return {f"seeds that only {name} has ({listed(map(str, seeds))})": len(seeds) for name, seeds in sides if seeds}

    def _difference(self) -> dict[str, Any] | None:
        metric, found = self.matched.metric, difference(self.matched.pairs, self.matched.metric.scale)
        about = {"metric": metric.key, "title": metric.title, "scale": metric.scale, "digits": metric.digits}
        return {**about, "judge": self.matched.metric_judge or None, **found._asdict()} if found else None

    def _bias(self) -> dict[str, Any] | None:
        return asdict(bias(list(filter(None, map(usable, self.judgement.words))))) if self.judgement else None

    def _judging(self) -> dict[str, Any] | None:
        if self.judge is None or self.judgement is None:
            return None
        said = self.judgement
        return {**self.judge.settings(), "unusable": said.unusable, "examples": list(said.examples), **said.told}

    def write(self, folder: Path, content: Mapping[str, Any]) -> Path:
        """Write a row for each pair as Parquet, and `content` beside it as JSON; returns the path of that."""
        stem = self._stem()
        _write_rows(folder / f"{stem}.parquet", list(self._rows()))
        files.write_json(folder / f"{stem}.json", content)
        return folder / f"{stem}.json"

    def _stem(self) -> str:
        """`cw_dpo-vs-dpo-captions`; with a digest where that does not tell one comparison from another."""
        judged = f"-judge{'-images' if self.judge.images else ''}" if self.judge else ""
        name = f"{self.names[0]}-vs-{self.names[1]}-{self.benchmark}{judged}"
        stem, changes = re.sub(r"[^\w.=-]+", "_", name), self.options.partition(" --set ")[2]
        divided = any("-vs-" in f"-{one}-" for one in self.names)  # `a-vs-b` against `c`, or `a` against `b-vs-c`
        unlike = stem != name or divided or changes
        return f"{stem}-{digest([*self.names, changes])[:8]}" if unlike else stem

    def _rows(self) -> Iterator[dict[str, Any]]:
        nothing: list[Words | None] = [None] * len(self.verdicts)
        words = self.judgement.words if self.judgement else nothing
        for pair, verdict, said in zip(self.matched.pairs, self.verdicts, words, strict=True):
            first, second = said or (None, None)
            yield {**row(pair, verdict), "said_a_first": first, "said_b_first": second}


def compare(
    plan: Plan, names: tuple[str, str], benchmark: str, context: StageContext | None = None, images: bool = False
) -> Comparison:
    """Compare two cells or cases.

    Args:
        context: where a judge is asked: replies are kept in its cache. None goes by the benchmark's own values.
        images: whether the judge is sent the images.

    Raises:
        ConfigError: there are no such cells, benchmark or judge.
        StoreError: answers or scores are missing or damaged.
        DataError: nothing can be compared.
    """
    runs = runs_of(plan, names, benchmark)
    judge = PairJudge(_judge(plan, runs), images) if context else None
    found = match(plan, runs, benchmark)
    judgement = None
    if context and judge:
        plan.store.check_writable()  # before anything is paid for
        inputs = {"images": images_of(plan, runs[0], benchmark)} if images else {}
        judgement = judge_pairs(replace(context, inputs=inputs), judge, found.pairs)
        verdicts = [_verdict(pair, said) for pair, said in zip(found.pairs, judgement.words, strict=True)]
    else:
        verdicts = [by_value(pair, found.metric.higher) for pair in found.pairs]
    seeds = seeds_of(plan, names)
    made = Comparison(names, benchmark, plan.grid.options, seeds, found, verdicts, judge, judgement)
    if not any(verdicts):
        why = "; ".join([*(f"{count} {name}" for name, count in made.left_out().items()), *found.why])
        raise DataError(f"{names[0]} and {names[1]} on {benchmark}: nothing can be compared: {why}")
    return made


def _judge(plan: Plan, runs: Sequence[Run]) -> Endpoint:
    """The judge that these cells have.

    Raises:
        ConfigError: there is none, or there are several.
    """
    judges = list({cell.experiment.judge for run in runs for cell in run if cell.experiment.judge})
    if not judges:
        raise ConfigError(
            f"--judge: nobody is named who judges; write `judge: {{model: ...}}` in the base of grid {plan.grid.name},"
            " or say --set judge.model=NAME (and --set judge.base_url=ADDRESS where it is not OpenAI)"
        )
    if len(judges) > 1:
        models = ", ".join(sorted(judge.model for judge in judges))
        raise ConfigError(
            f"--judge: the cells have several judges ({models}); give them one with --set judge.model=NAME"
        )
    return judges[0]


def _verdict(pair: Pair, said: Words | None) -> Verdict | None:
    words = usable(said)
    return "tie" if pair.same else in_both_orders(words) if words else None


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"seed": pa.int64(), "value_a": pa.float64(), "value_b": pa.float64()}
    columns = {name: pa.array([one[name] for one in rows], kinds.get(name, pa.string())) for name in rows[0]}
    with files.file_written_whole(path) as file:
        pq.write_table(pa.table(columns), file, compression="zstd")
