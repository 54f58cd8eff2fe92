"""What probing adds to training at default settings: a probe of the default set every so many steps, beside the steps.

A training is probed while it runs, so that steps and probes take turns in one process; how much they add follows from
the seconds of both.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from measure import REPO, publish
from training_sides import BATCH, OPTIMIZATION
from training_world import LORA, Point, World

sys.path.insert(0, str(REPO / "tests"))

import harness

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.dynamics.rows import KINDS
from cwdpo.dynamics.samples import NAME, SETTINGS, ProbeSample
from cwdpo.dynamics.settings import Probe, ProbeSet
from cwdpo.graph import Node
from cwdpo.jobs.events import curve, events

STEPS = 8
POINTS = (Point(256, 16),)
POLICY = {"dtype": "float32"}
DEFAULT = Probe()


def main() -> None:
    """Train, probe, and write results/probing.md."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "world")
        for point in POINTS:
            probe_set = made_up_set(world, point)
            for stage in ("stage1", "stage2"):
                rows.append(row(world, point, stage, probe_set, Path(folder) / "home"))
    columns = ("stage", "point", "step of 8 pairs", f"probe of {DEFAULT.samples} samples", "added at batch 8",
               "added at batch 128")  # fmt: skip
    notes = (
        f"Seconds, medians of {STEPS} steps and of the probes after the first. Added: a probe every {DEFAULT.every}"
        " steps (the default) over the steps between; at batch 128, the default, a step is taken to cost 16 times one"
        f" of batch 8. {len(KINDS)} responses a sample in one row behind a shared prefix, one forward pass each. Points"
        " are named image tokens / response tokens / words; a random Qwen2.5-VL of 20M parameters, LoRA, float32, one"
        " thread. Stage 1 is `sft`, the cheapest training there is; Stage 2 is `dpo`."
    )
    publish(__file__, "What probing adds to training", columns, rows, notes)


def row(world: World, point: Point, stage: str, probe_set: Path, home: Path) -> list[str]:
    """One line of the table."""
    training = trained(world, point, stage, probe_set, home)
    artefact = training.artefact(Store(home))
    step = median(line["seconds"] for line in curve(artefact)[1:])
    found = [line["seconds"] for line in events(artefact.attempts / "1" / "events.jsonl") if line["event"] == "probe"]
    probe = median(found[1:])
    added = probe / (DEFAULT.every * step)
    return [stage, str(point), f"{step:.2f}", f"{probe:.1f}", f"{added:.1%}", f"{added * BATCH / 128:.2%}"]


def trained(world: World, point: Point, stage: str, probe_set: Path, home: Path) -> Node:
    """The node of a training that was probed at its start, in its middle and at its end."""
    pairs = world.data(point, "stage1" if stage == "stage1" else "stage2", STEPS * BATCH, 1)
    inputs: dict[str, Any] = {"model": world.model(point), "pairs": pairs, "images": world.images}
    objective = "sft"
    if stage == "stage2":
        objective, inputs["negatives"] = "dpo", pairs
        reference = harness.node("reference", {"policy": POLICY, "block": BATCH}, inputs, str(point), micro_batch=BATCH)
        (inputs["reference"],) = harness.compute(home, [reference])
    spec = {
        "policy": POLICY, "tuning": LORA.model_dump(), "objective": {"name": objective},
        "optimization": {"batch_size": BATCH, "max_steps": STEPS, **OPTIMIZATION},
    }  # fmt: skip
    watched = {**inputs, "watched": probe_set}
    node = harness.node(stage, spec, watched, str(point), micro_batch=BATCH, probe_every=STEPS // 2, snapshot_every=0)
    harness.compute(home, [node])
    return node


def made_up_set(world: World, point: Point) -> Path:
    """The default probe set in size: as many samples, with a response of every kind."""
    rows = files.read_jsonl(world.data(point, "stage2", DEFAULT.samples, len(KINDS) - 1) / "records.jsonl")
    wrong = files.read_jsonl(world.data(point, "stage2", DEFAULT.samples, len(KINDS) - 1) / "negatives.jsonl")
    folder = world.folder / f"probe-{point.image_tokens}-{point.response_tokens}"
    samples = [
        ProbeSample(
            record["id"], record["image_id"], record["image"], record["prompt"],
            dict(zip(KINDS, [record["chosen"], *(item["text"] for item in other["rejected"])], strict=True)),
        )
        for record, other in zip(rows, wrong, strict=True)
    ]  # fmt: skip
    files.write_jsonl(folder / NAME, (sample.as_json() for sample in samples))
    files.write_json(folder / SETTINGS, ProbeSet().model_dump(mode="json"))
    return folder


if __name__ == "__main__":
    main()
