"""A worker whose stages each end at a chosen moment, by a real signal.

`python tests/mortal_worker.py JOBFILE`: each stage is a process of its own, forked when everything is imported, so that
many stages die for one start of Python. `JOBFILE.ends` says where, one entry a stage: null, or the signal that the
process sends itself, and after what - an event with these fields, or a rename onto a path:

    {"signal": "SIGKILL", "event": {"event": "checkpoint", "step": 4}}
    {"signal": "SIGTERM", "file": "/step-000002/000001.json"}

`JOBFILE.statuses` says how each of them ended.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base import distributed, files
from cwdpo.base.runtime import Rank
from cwdpo.base.store import Attempt, Store
from cwdpo.graph import Node
from cwdpo.jobs import worker
from cwdpo.jobs.job import StageJob, write_job
from cwdpo.jobs.launch import _environment, free_port

End = Mapping[str, Any]

LOADED = (
    "torch", "setuptools", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_5_vl.processing_qwen2_5_vl", "peft", "pandas", "pyarrow.parquet",
    "deepspeed.module_inject.auto_ep_layer", "deepspeed.ops.op_builder.all_ops", "deepspeed.runtime.zero.muon",
    "cwdpo.train.stage1", "cwdpo.train.stage2", "cwdpo.train.steering.observer", "cwdpo.dynamics.probe",
)  # fmt: skip
"""What stages import when they run, before any of them is forked."""

LIMIT_SECONDS = 1800


def run(home: Path, ends: Sequence[tuple[Node, End | None]]) -> list[int]:
    """Exit status of each stage; a negative one is the signal it died of."""
    path = home / "jobs" / f"mortal-{len(list((home / 'jobs').glob('mortal-*.json')))}.json"
    write_job(path, Store(home), [node for node, _ in ends], threads=1)
    files.write_json(path.with_suffix(".ends"), [end for _, end in ends])
    with open(path.with_suffix(".0.log"), "ab") as log:
        subprocess.run(
            [sys.executable, __file__, str(path)], env=_environment(0, 1, 1, free_port(), []), stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, timeout=LIMIT_SECONDS, check=True,
        )  # fmt: skip
    found: list[int] = files.read_json(path.with_suffix(".statuses"))
    return found


def _arm(end: End) -> None:
    """Have this process send itself the signal once, when its time has come."""
    number, times = signal.Signals[end["signal"]], iter((True,))

    def strike(now: bool) -> None:
        if now and next(times, False):
            os.kill(os.getpid(), number)

    tell, rename = Attempt.event, os.replace

    def event(self: Attempt, kind: str, **fields: Any) -> None:
        tell(self, kind, **fields)
        strike("event" in end and end["event"].items() <= {"event": kind, **fields}.items())

    def replace(source: Any, target: Any, **options: Any) -> None:
        rename(source, target, **options)
        strike("file" in end and str(target).endswith(end["file"]))

    Attempt.event = event  # type: ignore[method-assign]
    os.replace = replace


def _child(job: Mapping[str, Any], end: End | None) -> int:
    """Compute one stage in a process that may die of it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 70
    try:
        if end:
            _arm(end)
        status = worker.main(job, {"job": sys.argv[1]})
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(path: Path) -> None:
    """All stages of a job, one after the other."""
    job, ends = files.read_json(path), files.read_json(path.with_suffix(".ends"))
    distributed._deepspeed()
    for name in LOADED:
        importlib.import_module(name)
    for stage in job["stages"]:  # reads the code that it is made of
        worker.Worker(Store(path), StageJob(**stage), Rank(), {})
    statuses = [_child({**job, "stages": [stage]}, end) for stage, end in zip(job["stages"], ends, strict=True)]
    files.write_json(path.with_suffix(".statuses"), statuses)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
