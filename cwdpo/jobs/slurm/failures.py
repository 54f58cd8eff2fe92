"""What is done about a failed run: one table, and what reconcile asks when a job is gone.

Inside the allocation a run is started `again`, or its job goes back to the queue (`requeue`, which keeps dependencies),
or the job fails. What failed may be submitted anew afterwards, by whoever looks at the ledger next.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cwdpo.base.errors import StoreError
from cwdpo.jobs.slurm.diagnosis import Failure, FailureKind, classify, of_state
from cwdpo.jobs.slurm.evidence import Run

Action = Literal["again", "requeue", "fail", "done"]


@dataclass(frozen=True)
class Policy:
    """What is done about one kind of failure.

    Attributes:
        inside: by the job itself.
        resubmit: afterwards, in a new job.
        limit: how often, each of the two, without newer saved progress in between.
        exclude: the new job avoids the node.
        shrink: the next run needs less memory; where it cannot, it is no use.
    """

    inside: Action
    resubmit: bool = False
    limit: int = 0
    exclude: bool = False
    shrink: bool = False


_AGAIN = Policy("again", resubmit=True, limit=3)
_BACK = Policy("requeue", resubmit=True, limit=2)
_FINAL = Policy("fail")

POLICIES: dict[str, Policy] = {
    "memory": Policy("again", shrink=True),
    "network": _AGAIN,
    "port": _AGAIN,  # every round has its own port
    "node": Policy("requeue", resubmit=True, limit=2, exclude=True),
    "time_limit": _BACK,
    "preempted": _BACK,
    "interrupted": _BACK,
    "lost": _BACK,
    "busy": Policy("requeue", resubmit=True, limit=3),
    "stalled": _FINAL,
    "parent": _FINAL,  # whoever submits sees when the parent is there
    "dependency": _FINAL,
    "breaker": _FINAL,
    "disk": _FINAL,  # somebody has to make room
    "store": _FINAL,
    "code": _FINAL,
    "config": _FINAL,
    "data": _FINAL,
    "training": _FINAL,
    "unavailable": _FINAL,
    "cancelled": _FINAL,
    "superseded": _FINAL,
}
"""Kind of failure -> policy."""

STOPPED: tuple[FailureKind, ...] = ("time_limit", "preempted", "interrupted")
"""One thing for the limits: a run was stopped before it was through."""


def final_failure(array_folder: Path, index: int, slurm_state: str | None) -> Failure:
    """Why an element that Slurm no longer runs did not get done.

    Its own verdict stands where that was the end of it. A job that was killed with its node, or at its time limit
    before it could save, has none, or one of an earlier run: then Slurm's state and the logs tell.
    """
    try:
        run = Run.read(array_folder, index)
    except StoreError as error:
        return Failure("store", str(error))
    said = run.verdict
    if said and (said["action"] == "fail" or not (of_state(slurm_state) or run.attempt)):
        return Failure(said["class"], said["message"], said["detail"])
    return classify(None, run.result, run.tails, slurm_state)
