"""Real worker processes for tests: build a job file from nodes, run it as ranks, read what came out."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base.runtime import Execution
from cwdpo.base.store import Store
from cwdpo.graph import Node, Outside
from cwdpo.jobs.events import curve
from cwdpo.jobs.job import write_job
from cwdpo.jobs.launch import Launched, launch
from cwdpo.pipeline import STAGES

LIMIT_SECONDS = 1800.0

WORLD = {"train": 60, "val": 4, "test": 13, "seed": 0}
POLICY = {"dtype": "float32"}
PERTURB = {"source": "perturb", "count": 2}


@dataclass(frozen=True)
class Micro:
    """Folders that stages read."""

    images: Path
    pairs: Path
    negatives1: Path
    negatives2: Path
    model: Path

    def inputs(self, **more: Path) -> dict[str, Path]:
        """Inputs by role; every stage of a policy reads model, pairs and images."""
        return {"model": self.model, "pairs": self.pairs, "images": self.images, **more}


def node(
    stage: str, spec: Mapping[str, Any], inputs: Mapping[str, Path | Node], label: str = "", **execution: Any
) -> Node:
    """A node whose inputs are plain folders, or nodes before it.

    `label` tells apart nodes that compute the same thing differently; it is a part of what folders are known by.
    """
    kind = STAGES[stage]
    known = {
        role: entry if isinstance(entry, Node) else Outside(entry, f"{role}{label}") for role, entry in inputs.items()
    }
    return Node(kind, kind.spec.model_validate(spec), known, Execution(**execution))


def start(home: Path, nodes: Sequence[Node], ranks: int = 1) -> Launched:
    """Start one job on `nodes`."""
    path = home / "jobs" / f"{uuid.uuid4().hex[:8]}.json"
    write_job(path, Store(home), nodes, threads=1)
    return launch(path, ranks, 1, [])


def finish(job: Launched, until: Callable[[], bool] = lambda: False) -> int | None:
    """Wait for the job (or for `until`); returns its exit status, None if it still runs."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        status = job.exit_status()
        if status is not None or until():
            return status
        time.sleep(0.02)
    job.end(grace=0)
    raise AssertionError(f"the job did not end within {LIMIT_SECONDS} s")


def compute(home: Path, nodes: Sequence[Node], ranks: int = 1) -> list[Path]:
    """Run a job to its end; returns the files of each node. A failure shows the workers' output."""
    status = finish(start(home, nodes, ranks))
    assert status == 0, f"status {status}\n{output(home, nodes)}"
    return [entry.artefact(Store(home)).files for entry in nodes]


def output(home: Path, nodes: Sequence[Node]) -> str:
    """What the workers of these nodes wrote, shortened."""
    texts = [path.read_text(errors="replace") for path in (home / "jobs").glob("*.log")]
    for entry in nodes:
        folder = entry.artefact(Store(home)).attempts
        texts += [path.read_text(errors="replace") for path in sorted(folder.glob("*/stderr*"))]
    return "\n".join(text[-3000:] for text in texts)


def losses(home: Path, entry: Node) -> list[float]:
    """Training loss by step."""
    return [point["loss"] for point in curve(entry.artefact(Store(home)))]


def make_micro(home: Path) -> None:
    """World, records, negatives and a pretrained tiny model, each computed by its own stage."""
    (images,) = compute(home, [node("world", WORLD, {})])
    pairs_spec = {"data": {"source": "demo_world", "world": WORLD}}
    (pairs,) = compute(home, [node("pairs", pairs_spec, {"data": images})])
    negatives = [
        node("negatives", {"negatives": PERTURB, "portion": portion}, {"pairs": pairs})
        for portion in ("stage1", "stage2")
    ]
    negatives1, negatives2 = compute(home, negatives)
    pretrain = {"architecture": {}, "pretraining": {"steps": 12, "batch_size": 16}, "policy": POLICY}
    (model,) = compute(home, [node("pretrain", pretrain, {"pairs": pairs, "images": images})])
    made = Micro(images, pairs, negatives1, negatives2, model)
    (home / "micro.json").write_text(json.dumps({role: str(path) for role, path in vars(made).items()}))


def read_micro(home: Path) -> Micro:
    """What `make_micro` made."""
    found = json.loads((home / "micro.json").read_text())
    return Micro(**{role: Path(path) for role, path in found.items()})
