"""What finished stages of a store took: the best there is to forecast by.

Of a training the pace of its steps counts, of what works in blocks that of its blocks, and for both what came on top of
them; stages on CPUs count as a whole, where they were about the same data.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import CwdpoError
from cwdpo.base.store import Artefact, Store
from cwdpo.jobs.events import ends
from cwdpo.jobs.forecast.ranges import Range
from cwdpo.jobs.forecast.reading import PROBE_BLOCK, answered
from cwdpo.jobs.forecast.tasks import Generating, Scoring, Task, Training
from cwdpo.pipeline import STAGES

LOOKED_AT = 256
"""Folders of a kind whose age is looked at."""
READ = 24
"""Stages of a kind that are read, the newest ones."""

ALIKE, OTHER = 1.25, 2.0
"""Times (and part of) what was measured that the bounds are: with equal settings, and with another method."""


@dataclass(frozen=True)
class Past:
    """A finished stage.

    Attributes:
        method: as in `Task`.
        models: ids and digests of what it read, the model's among them.
        data: ids of the records or questions it read.
        seconds: of the whole attempt.
        pace: seconds of a step, or of a block; 0 where it had none.
        done: steps or blocks of that attempt.
        size: samples of a step, items of a block.
        gpu: whether a GPU was used.
        scheduled: whether Slurm started it.
        peak: bytes of memory it took at most: of its GPU, else of its process.
        bytes: of its files.
    """

    stage: str
    method: str
    models: frozenset[str]
    data: frozenset[str]
    ranks: int
    seconds: float
    pace: float
    done: int
    size: float
    gpu: bool
    scheduled: bool
    peak: float
    bytes: int

    @property
    def of_a_rank(self) -> int:
        """Samples of a step that the busiest rank had."""
        return math.ceil(self.size / self.ranks)

    @property
    def each(self) -> float:
        """Seconds of one rank for one sample or item."""
        return self.pace * self.ranks / self.size

    @property
    def beside(self) -> float:
        """Seconds that were no steps and no blocks."""
        return max(0.0, self.seconds - self.pace * self.done)


class History:
    """The finished stages of a store, kind by kind as they are asked for.

    Args:
        gpu: whether jobs of the forecast use GPUs.
        scheduled: whether Slurm starts them. What ran on neither the same hardware nor in the same way is left out.
    """

    def __init__(self, store: Store, gpu: bool, scheduled: bool) -> None:
        self._store, self._gpu, self._scheduled = store, gpu, scheduled
        self._read: dict[str, list[Past]] = {}

    @cached_property
    def _names(self) -> Mapping[str, list[str]]:
        """Folders of the store by stage."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._store.names()):
            found[name.rpartition("-")[0]].append(name)
        return found

    def of(self, stage: str) -> list[Past]:
        """The newest finished stages of a kind, as far as they can be read."""
        if stage not in self._read:
            found = (past_of(Artefact(self._store.folder / name, "")) for name in self._newest(stage))
            self._read[stage] = [past for past in found if past and self._counts(past)]
        return self._read[stage]

    def _counts(self, past: Past) -> bool:
        both = past.scheduled and self._scheduled
        return both or (past.gpu == self._gpu if STAGES[past.stage].ranks else past.scheduled == self._scheduled)

    def _newest(self, stage: str) -> list[str]:
        """Names of the newest; of very many, evenly drawn ones are looked at."""
        names = self._names.get(stage, [])
        drawn = names[:: max(1, len(names) // LOOKED_AT)]
        ages = {name: _changed(self._store.folder / name / "DONE") for name in drawn}
        return sorted((name for name in drawn if ages[name]), key=lambda name: -ages[name])[:READ]

    def like(self, task: Task) -> tuple[list[Past], bool]:
        """Past stages that a task can be measured by, and whether they had the same method."""
        same_model = [past for past in self.of(task.stage) if _is_about(past, task)]
        alike = [past for past in same_model if past.method == task.method]
        return (alike, True) if alike else (same_model, False)


def _changed(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _is_about(past: Past, task: Task) -> bool:
    """Whether a stage tells something about a task: the same model, or on CPUs the same data."""
    if isinstance(task, Training | Generating | Scoring):
        return task.subject.key in past.models and past.pace > 0
    return task.data in past.data and bool(task.data)


def measured(task: Task, pasts: Sequence[Past], alike: bool, ranks: int) -> Range:
    """Seconds of a task by what past stages took: their median, and beyond the quickest and the slowest."""
    found = sorted(_scaled(task, past, ranks) for past in pasts)
    wider = ALIKE if alike else OTHER
    return Range(found[0] / wider, median(found), found[-1] * wider)


def _scaled(task: Task, past: Past, ranks: int) -> float:
    """Seconds of a task at the pace of one past stage."""
    if isinstance(task, Training) and task.sampled:  # sampling is no part of a step's pace
        return past.seconds / past.done * task.steps * _of_a_rank(task, ranks) / past.of_a_rank
    if isinstance(task, Training):
        return past.beside + task.steps * past.pace * _of_a_rank(task, ranks) / past.of_a_rank
    if isinstance(task, Generating | Scoring):
        return past.beside + task.items * past.each / ranks
    return past.seconds


def _of_a_rank(task: Training, ranks: int) -> int:
    """Samples of a step that the busiest rank has."""
    return math.ceil(task.batch / ranks)


def past_of(artefact: Artefact) -> Past | None:
    """What a finished stage tells; None where its files cannot be read or are of another kind."""
    try:
        done = artefact.done()
        card = files.read_json(artefact.folder / "stage.json")
        return _past(artefact, done, card) if done else None
    except (CwdpoError, ArithmeticError, KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _past(artefact: Artefact, done: Mapping[str, Any], card: Mapping[str, Any]) -> Past:
    provenance, spec, parents = done["provenance"], card["spec"], card["parents"]
    pace, count = _pace(ends(artefact.attempts / str(done["attempt"]) / "events.jsonl"))
    peaks = provenance.get("peak_bytes", {})
    return Past(
        stage=card["stage"],
        method=_method(card["stage"], spec, parents),
        models=frozenset([*parents.values(), *card["digests"].values()]),
        data=frozenset(parents[role] for role in ("pairs", "questions") if role in parents),
        ranks=int(provenance["ranks"]),
        seconds=float(provenance["seconds"]),
        pace=pace,
        done=count,
        size=_size(card["stage"], spec),
        gpu="gpu_memory" in peaks,
        scheduled="element" in provenance.get("job", {}),
        peak=float(peaks.get("gpu_memory", peaks.get("memory", 0))),
        bytes=sum(int(entry["bytes"]) for entry in done["files"].values()),
    )


def _method(stage: str, spec: Mapping[str, Any], parents: Mapping[str, Any]) -> str:
    """As `Task.method` says it of a node."""
    if stage == "score":
        return "captions" if "pairs" in parents else "questions"
    if "objective" in spec:
        return str(spec["objective"]["name"])
    if "benchmark" in spec and stage == "generate":
        return str(spec["benchmark"]["name"])
    if stage == "answers":
        found = spec["part"]["decoding"]
        return answered(found["strategy"], max(found.get("beams", 1), found.get("candidates", 1)))
    return "sft" if stage == "pretrain" else ""


def _size(stage: str, spec: Mapping[str, Any]) -> float:
    """Samples of a step, or items of a block, as `Task` counts them."""
    if stage == "influence":
        return float(spec["updates"] * (1 + spec["observations"]))
    if stage == "probe":
        return PROBE_BLOCK
    inner = [spec.get(name) or {} for name in ("optimization", "pretraining", "benchmark", "part", "set")]
    decodings = [one["decoding"] for one in (spec, *inner) if isinstance(one.get("decoding"), dict)]
    for one in (*inner[:2], *decodings, *inner[2:], spec):
        for key in ("batch_size", "block"):
            if key in one:
                return float(one[key])
    return 1.0


def _pace(rows: Iterable[Mapping[str, Any]]) -> tuple[float, int]:
    """Seconds of a step or block, and how many of them this attempt has made; (0, 0) where it tells of none."""
    told = [row for row in rows if row.get("event") in ("step", "progress")]
    steps = [row for row in told if row["event"] == "step" and "seconds" in row]
    if steps:
        first, last = steps[0]["step"], steps[-1]["step"]
        # The first step allocates what the others find.
        return median(float(row["seconds"]) for row in steps[1:] or steps), int(last - first + 1)
    told = [row for row in told if "done" in row]
    if not told:
        return 0.0, 0
    first, last = told[0], told[-1]
    moved = last["done"] - first["done"]
    began = next((row["time"] for row in rows if row.get("event") in ("scoring", "generation")), first["time"])
    return ((last["time"] - first["time"]) / moved, moved + 1) if moved else (max(0.0, first["time"] - began), 1)
