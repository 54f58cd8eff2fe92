"""The limits to trying again, and how a stage that ran out of memory takes less.

Limits count failed runs that brought no newer saved progress: a training that is cut off every day, and saves every
day, goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from cwdpo.base.runtime import Execution
from cwdpo.jobs.slurm.diagnosis import FailureKind
from cwdpo.jobs.slurm.failures import POLICIES, STOPPED, Action
from cwdpo.objectives import SupervisedObjective

ATTEMPTS = 5
"""Failed runs without newer progress after which a stage is given up, where the cluster profile does not say."""


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
        kind: of the failure, in the light of those before.
        overrides: what the next run changes in `execution`, all rounds together; empty where this one adds nothing.
        why: what is added to the message when a limit is the reason.
    """

    action: Action
    kind: FailureKind
    overrides: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


def decide(
    kind: FailureKind,
    earlier: Sequence[Mapping[str, Any]],
    saved: Sequence[int],
    smaller: Mapping[str, Any] | None,
    attempts: int = ATTEMPTS,
) -> Decision:
    """What to do about a failed run.

    Args:
        earlier: lines of rounds/<i>.jsonl: failed runs of the same stage before this one.
        saved: (stages done, saved progress) now.
        smaller: overrides with which the stage needs less memory, None where there are none.
        attempts: failed runs after which the stage is given up.
    """
    policy = POLICIES[kind]
    if policy.inside == "fail":
        return Decision("fail", kind)
    if policy.shrink:
        return (
            Decision(policy.inside, kind, smaller) if smaller else Decision("fail", kind, why="nothing can be smaller")
        )
    stuck = [row for row in earlier if tuple(row["saved"]) >= tuple(saved) and not row["changes"]]
    alike = 1 + sum(_family(row["class"]) == _family(kind) for row in stuck)
    if alike > policy.limit:
        return _enough(kind, alike)
    if len(stuck) + 1 >= attempts:
        return Decision("fail", kind, why=f"{attempts} runs failed without newer saved progress")
    return Decision(policy.inside, kind)


def _family(kind: str) -> str:
    return "stopped" if kind in STOPPED else kind


def _enough(kind: FailureKind, times: int) -> Decision:
    if kind in STOPPED:
        why = f"{times} times without newer saved progress: give it more time, or a smaller execution.checkpoint_every"
        return Decision("fail", "stalled", why=why)
    return Decision("fail", kind, why=f"{times} times without newer saved progress")


def smaller_execution(stage: Mapping[str, Any], overrides: Mapping[str, Any], ranks: int) -> dict[str, Any] | None:
    """Overrides with which a stage needs less memory, None where there are none.

    The global batch stays what the stage says: half the micro-batch (and half its budget of tokens, where it has one)
    is twice the accumulation. An objective that needs the mean of its batch cannot accumulate, so that only computing
    activations anew is left.

    Args:
        stage: a stage of a job file.
        overrides: what was changed before.
        ranks: processes of the job.
    """
    execution = Execution.model_validate({**stage["execution"], **overrides})
    samples = _samples(stage["spec"])
    if samples is None:
        return None
    micro = min(execution.micro_batch, -(-samples // ranks))  # no rank gets more than its share
    if micro > 1 and not _needs_batch_mean(stage):
        budget = {"micro_tokens": -(-execution.micro_tokens // 2)} if execution.micro_tokens else {}
        return {**overrides, "micro_batch": micro // 2, **budget}
    if _trains(stage["spec"]) and not execution.gradient_checkpointing:
        return {**overrides, "gradient_checkpointing": True}
    return None


def _samples(spec: Mapping[str, Any]) -> int | None:
    """How many samples `micro_batch` cuts up; None for a stage that does not read it."""
    settings = spec.get("optimization") or spec.get("pretraining")
    found: int | None = settings["batch_size"] if settings else spec.get("block")
    return found


def _trains(spec: Mapping[str, Any]) -> bool:
    return "optimization" in spec or "pretraining" in spec


def _needs_batch_mean(stage: Mapping[str, Any]) -> bool:
    if stage["stage"] != "stage1":
        return False
    objective: Any = TypeAdapter(SupervisedObjective).validate_python(stage["spec"]["objective"])
    return bool(objective.needs_batch_mean)
