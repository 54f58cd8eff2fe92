"""Stage `probe`: a finished training, read at the steps it kept snapshots of, without training again.

A block of samples is read at every step by one replica; what was read at a step is a file of its own, so that a killed
job goes on where it was.

    partial/start/000003.start                    what the policy at the start leaves behind for divergences
    partial/steps/step-000100/000003.json         rows of one block at one step, see `probing.py`
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.errors import Interrupted
from cwdpo.data.encoding import Collator
from cwdpo.dynamics.points import points_of
from cwdpo.dynamics.probing import Prober, findings_of, probes_in_memory, response_rows, scorer_of, token_rows
from cwdpo.dynamics.rows import TOP, write_probes
from cwdpo.dynamics.samples import load_probe_set, load_settings
from cwdpo.dynamics.settings import ProbeSpec, about_probes
from cwdpo.model.inference import Replica, pending_of
from cwdpo.model.load import context_length
from cwdpo.model.looking import Lens
from cwdpo.model.snapshots import Snapshots, name_of

POINTS = "points.jsonl"


def run(context: StageContext) -> None:
    """Write responses.parquet, tokens.parquet and probe.json.

    Raises:
        DataError: the training has not kept the snapshots that are asked for.
    """
    Reading(context).run()


class Reading:
    """One run, read with one probe set."""

    def __init__(self, context: StageContext) -> None:
        self.context = context
        self.spec: ProbeSpec = context.spec
        self.settings = load_settings(context.inputs["probe_set"])
        samples = load_probe_set(context.inputs["probe_set"])
        self.snapshots = Snapshots(context.inputs["run"], context.inputs.get("adapter"))
        self.steps = self.snapshots.every(self.spec.every)
        # How far it is counts a block at each step.
        self.blocks = Blocks(replace(context, event=lambda *_, **__: None), samples, self.settings.block)

    def run(self) -> None:
        """Read what is not there yet, and publish."""
        if pending_of(self.blocks):
            self._read_all()
        self.context.barrier()
        if self.context.share:
            self.blocks.publish(POINTS)
        elif self.context.rank.is_first:
            self._publish()

    def _read_all(self) -> None:
        """Step by step, so that an adapter is loaded once for all blocks."""
        # The trained adapter gives the shape; the weights of each step are put into it.
        shaped = replace(self.context, inputs={**self.context.inputs, "adapter": self.context.inputs["run"]})
        replica = Replica(shaped, self.spec.policy)
        prober = self._prober(replica)
        turns = list(replica.blocks(self.blocks))
        for step in self.steps:
            self.snapshots.put(replica.model, step)
            for index, writes in turns:
                self._read(prober, index, step, writes)
            self.context.barrier()  # who does not write finds what was left of the start
        for index, writes in turns:
            if writes:
                self.blocks.write(index, self._whole(index))

    def _prober(self, replica: Replica) -> Prober:
        collator = Collator(replica.processor, self.context.inputs["images"], context_length(replica.model))
        scorer = scorer_of(self.context, replica.model, collator, self.blocks.items, self.spec.policy.dtype)
        start, longest = self.context.partial / "start", self.blocks.length(0)
        return Prober(self.context, Lens(scorer, TOP), collator, start, replica.lockstep, longest)

    def _read(self, prober: Prober, index: int, step: int, writes: bool) -> None:
        """One block at one step, unless it is there; in lock-step all ranks read."""
        path, context = self._path(step, index), self.context
        if path.exists() and (step or prober.has_start(index)) and not prober.lockstep:
            return
        began = time.perf_counter()
        rows = prober.rows(index, self.blocks.members(index), step, writes)
        if writes:
            context.check()
            files.write_json(path, {"seconds": time.perf_counter() - began, "rows": rows})
            context.event("progress", done=self._done(), total=len(self.steps) * len(self.blocks.own))
        if context.stopping() and context.rank.world_size == 1:
            raise Interrupted(f"stopped by a signal after block {index} at step {step}; what was read is kept")

    def _done(self) -> int:
        """Blocks that were read, each at each step, of all replicas."""
        return sum(1 for _ in (self.context.partial / "steps").glob("step-*/[0-9]*.json"))

    def _path(self, step: int, index: int) -> Path:
        return self.context.partial / "steps" / name_of(step) / f"{index:06d}.json"

    def _whole(self, index: int) -> list[dict[str, Any]]:
        """A row per sample with all its steps, and what they took."""
        found = [files.read_json(self._path(step, index)) for step in self.steps]
        seconds = sum(one["seconds"] for one in found) / self.blocks.length(index)
        by_sample = zip(*(one["rows"] for one in found), strict=True)
        return [{"id": points[0]["id"], "seconds": seconds, "points": list(points)} for points in by_sample]

    def _publish(self) -> None:
        """Rows by step, and what they are about."""
        rows = list(self.blocks.rows())
        points = {step: [row["points"][number] for row in rows] for number, step in enumerate(self.steps)}
        told = about_probes(self.settings, self.spec.stage, self.spec.every, self.spec.beta)
        lines = points_of(probes_in_memory(points, told, self.settings.cooling))
        about = {
            **told,
            "steps": self.steps, "total": self.snapshots.course["total"], "samples": len(rows),
            "seconds": sum(row["seconds"] for row in rows), "where": "snapshots",
            "findings": findings_of(lines, self.spec.stage, self.spec.stage),
        }  # fmt: skip
        write_probes(
            self.context.out, response_rows(points, points[0], self.settings.cooling), token_rows(points), about
        )
