"""`python -m cwdpo.jobs.slurm.verdict ARRAYFOLDER INDEX STATUS ROUND`: why a run failed, and what its job does now.

The host script asks after a failed srun. One word on stdout is the answer: `again`, `requeue`, `fail`, or `done`. What
led to it is kept in the ledger: rounds/<i>.jsonl, exits/<i>.json, and overrides/<i>.json when the next run changes
`execution`.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.jobs.slurm.diagnosis import JOB_LOG, Failure, classify
from cwdpo.jobs.slurm.evidence import Run
from cwdpo.jobs.slurm.failures import POLICIES, Action
from cwdpo.jobs.slurm.logs import failed_node
from cwdpo.jobs.slurm.retry import ATTEMPTS, Decision, decide, smaller_execution


def verdict(array_folder: Path, index: int, status: int, number: int) -> Action:
    """Find out why run `number` of this start of the job ended with `status`, write it down, say what to do."""
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    run = Run.read(array_folder, index, (restart, number))
    failure = classify(status, run.result, run.tails)
    decision = _decide(run, failure, number)
    row = {
        "time": time.time(), "restart": restart, "round": number, "status": status, "action": decision.action,
        **_said(failure, decision), **_facts(run), "changes": dict(decision.overrides),
    }  # fmt: skip
    kept = _keep(run, row, failure.detail)
    if not kept and number + restart + 1 >= _attempts(run):  # what is not written down cannot be counted
        return "fail"
    return decision.action


def _decide(run: Run, failure: Failure, number: int) -> Decision:
    if run.stage is None:  # everything is there, only the end went wrong
        return Decision("done", failure.kind)
    smaller = None
    if POLICIES[failure.kind].shrink:
        smaller = smaller_execution(run.stage, run.overrides, _ranks(run))
    earlier = [row for row in run.earlier if row["id"] == run.stage["id"]]
    return decide(failure.kind, earlier, run.saved, smaller, _attempts(run))


def _said(failure: Failure, decision: Decision) -> dict[str, Any]:
    why = f"; {decision.why}" if decision.why else ""
    return {"class": decision.kind, "message": failure.message + why}


def _facts(run: Run) -> dict[str, Any]:
    stage = run.stage or {"stage": "", "id": ""}
    node = failed_node(run.tails[JOB_LOG]) or os.environ.get("SLURMD_NODENAME") or platform.node()
    return {
        "stage": stage["stage"], "id": stage["id"], "attempt": run.attempt, "saved": list(run.saved), "node": node,
        "log": run.log_bytes,
    }  # fmt: skip


def _intent(run: Run) -> Mapping[str, Any]:
    """The intent; what is damaged says nothing."""
    try:
        return run.record.intent
    except (StoreError, AssertionError):
        return {}


def _attempts(run: Run) -> int:
    return int(_intent(run).get("cluster", {}).get("attempts", ATTEMPTS))


def _ranks(run: Run) -> int:
    resources = _intent(run).get("resources", {})
    return int(resources.get("nodes", 1)) * int(resources.get("tasks_per_node", 1))


def _keep(run: Run, row: dict[str, Any], detail: str) -> bool:
    """Write it down, what the next run needs first; False when that is not possible."""
    try:
        if row["changes"]:
            files.write_json(run.overrides_file, row["changes"])
        files.write_jsonl(run.rounds_file, [*run.earlier, row])
        files.write_json(run.exit_file, {**row, "detail": detail})
    except StoreError as error:
        print(error, file=sys.stderr)
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    """Print one word, whatever happens."""
    try:
        folder, index, status, number = arguments
        action: Action = verdict(Path(folder), int(index), int(status), int(number))
    except Exception:
        traceback.print_exc()
        action = "fail"
    print(action)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
