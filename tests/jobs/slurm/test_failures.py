"""What is made of logs: most were written by real failures of torch, the kernel and Slurm 22.05, see `logs/`.

Those of GPUs and NCCL, and `slurm_launch_failed`, `slurm_oom_kill` and `slurm_memory_limit`, are put together from
texts that users reported in public issues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from cwdpo.base.runtime import Execution
from cwdpo.jobs.slurm.breaker import same_failures, signature, tripped
from cwdpo.jobs.slurm.diagnosis import JOB_LOG, FailureKind, classify
from cwdpo.jobs.slurm.failures import POLICIES
from cwdpo.jobs.slurm.logs import failed_node, first_exit, tail, tidy
from cwdpo.jobs.slurm.retry import Decision, decide, smaller_execution
from cwdpo.objectives import SftC

LOGS = Path(__file__).resolve().parent / "logs"


def log(name: str) -> str:
    return (LOGS / f"{name}.txt").read_text(encoding="utf-8")


def tails(**names: str) -> dict[str, str]:
    """`rank0="x", rank1="y", job="z"` -> the tails of a run."""
    files = {"rank0": "stderr", "job": JOB_LOG}
    return {files.get(name, name.replace("rank", "stderr.")): log(value) for name, value in names.items()}


def recorded(kind: str, message: str) -> dict[str, str]:
    return {"state": "failed", "kind": kind, "message": message}


# One log, one kind

RANKS = [
    ("cuda_out_of_memory", "memory", "out of memory: CUDA out of memory. Tried to allocate 2.37 GiB."),
    ("cpu_out_of_memory", "memory", "DefaultCPUAllocator: can't allocate memory"),
    ("memory_error", "memory", "out of memory"),
    ("worker_out_of_memory", "memory", "DefaultCPUAllocator: can't allocate memory"),
    ("worker_lost_a_peer_while_saving", "network", "Connection reset by peer"),
    ("nccl_peer_gone", "network", "remote process exited or there was a network error"),
    ("nccl_system_error", "network", "unhandled system error"),
    ("nccl_shared_memory_full", "disk", "no room where it writes"),
    ("nccl_watchdog", "network", "Watchdog caught collective operation timeout"),
    ("gloo_reset", "network", "Connection reset by peer"),
    ("gloo_closed", "network", "Connection closed by peer"),
    ("gloo_timeout", "network", "Timed out waiting 6000ms for recv operation"),
    ("no_master", "network", "The client socket has timed out after 6000ms"),
    ("port_taken", "port", "EADDRINUSE"),
    ("disk_full_store", "disk", "cannot write /data/home/store/z: no space left on the device"),
    ("disk_full_safetensors", "disk", "No space left on device (os error 28)"),
    ("disk_full_torch", "disk", "basic_ios::clear: iostream error"),
    ("ecc_error", "node", "uncorrectable ECC error encountered"),
    ("no_device", "node", "CUDA unknown error"),
    ("driver_mismatch", "node", "Failed to initialize NVML"),
    ("device_assert", "code", "AcceleratorError: CUDA error: device-side assert triggered (cwdpo/train/engine.py:88)"),
    ("code_error", "code", "TypeError: Object of type object is not JSON serializable (cwdpo/base/files.py:79)"),
]


@pytest.mark.parametrize(("name", "kind", "message"), RANKS, ids=[name for name, _, _ in RANKS])
def test_what_a_rank_says(name: str, kind: str, message: str) -> None:
    found = classify(1, None, tails(rank0=name))
    assert found.kind == kind
    assert message in found.message
    assert "\n" not in found.message
    assert len(found.message) <= 240


JOBS = [
    ("slurm_oom", 1, "memory"),
    ("slurm_oom_kill", 137, "memory"),
    ("slurm_memory_limit", 137, "memory"),
    ("slurm_node", 143, "node"),
    ("slurm_launch_failed", 1, "node"),
    ("slurm_bus_error", 143, "node"),
    ("slurm_kill", 143, "lost"),
    ("slurm_segfault", 143, "code"),
    ("slurm_exit_5", 143, "training"),
    ("slurm_time", 143, "time_limit"),
    ("slurm_preempt", 143, "preempted"),
    ("slurm_requeue", 143, "interrupted"),
    ("slurm_cancel", 143, "cancelled"),
]


@pytest.mark.parametrize(("name", "status", "kind"), JOBS, ids=[name for name, _, _ in JOBS])
def test_what_slurm_says(name: str, status: int, kind: str) -> None:
    """With the status that the real srun had: the highest of all ranks, also of those it ended itself."""
    found = classify(status, None, tails(job=name))
    assert found.kind == kind
    assert "CANCELLED AT 2026" not in found.detail or kind in (
        "node",
        "time_limit",
        "preempted",
        "cancelled",
        "interrupted",
    )


STATUSES = {2: "config", 3: "data", 4: "store", 5: "training", 6: "unavailable", 7: "parent", 75: "interrupted",
            76: "busy", 77: "network", 78: "superseded", 79: "port", 1: "lost", 137: "lost", -9: "lost", 135: "node",
            -7: "node", 143: "interrupted", -12: "interrupted", 139: "code", 255: "lost", None: "lost"}  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_a_status_without_any_log(status: int | None, kind: str) -> None:
    assert classify(status, None, {}).kind == kind


STATES = {"OUT_OF_MEMORY": "memory", "NODE_FAIL": "node", "BOOT_FAIL": "node", "TIMEOUT": "time_limit",
          "PREEMPTED": "preempted", "CANCELLED by 1000": "cancelled", "CANCELLED+": "cancelled",
          "DEADLINE": "cancelled", "FAILED": "lost", "COMPLETED": "lost", "": "lost", None: "lost"}  # fmt: skip


@pytest.mark.parametrize(("state", "kind"), STATES.items())
def test_a_state_of_slurm_without_any_log(state: str | None, kind: str) -> None:
    assert classify(None, None, {}, state).kind == kind


CLASSES = {"ConfigError": "config", "DataError": "data", "ModelError": "data", "StoreError": "store",
           "TrainingError": "training", "NotAvailable": "unavailable", "InputMissing": "parent", "Fenced": "superseded",
           "PeersLost": "network", "PortTaken": "port", "OutOfMemoryError": "memory", "MemoryError": "memory",
           "KeyError": "code", "AssertionError": "code"}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), CLASSES.items())
def test_what_the_worker_recorded(name: str, kind: str) -> None:
    assert classify(143, recorded(name, "something"), {}).kind == kind


def test_the_message_of_our_own_errors_is_theirs() -> None:
    found = classify(3, recorded("DataError", "pairs: train/000123.jpg cannot be read"), tails(rank0="bad_image"))
    assert found.message == "pairs: train/000123.jpg cannot be read: cut off after 300 of 4096 bytes"
    assert classify(3, None, tails(rank0="bad_image")) == found


def test_what_is_behind_a_file_that_could_not_be_written() -> None:
    log = "worker_lost_a_peer_while_saving"
    said = tails(rank0=log)["stderr"].partition(" ERROR ")[2].partition("\n")[0]
    assert said.startswith("cannot write /data/home/store/pretrain-")
    assert classify(4, recorded("StoreError", said), tails(rank0=log)).kind == "network"
    assert classify(4, None, tails(rank0=log)).kind == "network"


def test_a_full_disk_is_told_from_a_damaged_store() -> None:
    assert classify(4, recorded("StoreError", "cannot write /d/x: the disk quota is used up"), {}).kind == "disk"
    assert classify(4, recorded("StoreError", "/d/x is damaged: not JSON"), {}).kind == "store"


# Several ranks: the one that failed, not those that noticed


@pytest.mark.parametrize("noticed", ["nccl_peer_gone", "gloo_closed", "nccl_watchdog", "interrupted"])
@pytest.mark.parametrize(("cause", "kind"), [("cuda_out_of_memory", "memory"), ("code_error", "code")])
def test_the_rank_that_failed_first(noticed: str, cause: str, kind: str) -> None:
    found = classify(143, None, tails(rank0=noticed, rank1=cause, rank2=noticed))
    assert found.kind == kind
    late = recorded("DistBackendError", "NCCL error in: NCCLUtils.hpp:268")
    assert classify(75, late, tails(rank0=noticed, rank1=cause)).kind == kind


def test_of_two_causes_the_earlier() -> None:
    early, late = log("cuda_out_of_memory"), log("code_error").replace("2026-11-21 06:", "2026-11-21 07:")
    assert classify(1, None, {"stderr": late, "stderr.1": early}).kind == "memory"


def test_a_rank_that_was_killed_counts_before_one_that_saved_because_of_it() -> None:
    assert classify(143, None, tails(rank0="interrupted", job="slurm_kill")).kind == "lost"
    assert classify(143, None, tails(rank0="nccl_peer_gone", job="slurm_oom")).kind == "memory"
    assert (
        classify(75, None, tails(rank0="interrupted", rank1="code_error", job="slurm_exit_1_beside_75")).kind == "code"
    )


def test_saving_before_the_time_limit_is_no_failure_of_the_network() -> None:
    found = classify(77, None, tails(rank0="interrupted", rank1="gloo_closed"))
    assert found.kind == "network"  # by the status: nobody else knows which rank was first
    job = "srun: error: node0: task 0: Exited with exit code 75\nsrun: error: node0: task 1: Exited with exit code 77\n"
    found = classify(77, None, {**tails(rank0="interrupted", rank1="gloo_closed"), JOB_LOG: job})
    assert found.kind == "interrupted"
    assert found.message == "stopped by a signal; checkpoint written at step 120"


def test_slurm_knows_best_why_it_ended_a_job() -> None:
    assert classify(None, None, tails(rank0="gloo_closed"), "NODE_FAIL").kind == "node"
    assert classify(None, None, tails(rank0="nccl_peer_gone"), "TIMEOUT").kind == "time_limit"


WATCH = {
    "rank 3 on node1 (last seen 61 s ago at stage1 0123) is gone": "network",
    "ranks 2 on node1 (last seen 61 s ago), rank 3 on node1 (last seen 61 s ago) are gone": "network",
    "rank 0 on node0 is gone: it closed the connection; stopping": "network",
    "rank 1 on node0 at step 3 does not keep up (2 collectives begun, others 3): Timed out waiting 6000ms": "network",
    "rank 0 at node0:20001 went away while the ranks were joining": "network",
    "rank 0 at node0:20001 did not answer within 300 s (Connection refused; asked by rank 1 on node1)": "network",
    "rank 2 ended while others wait for it": "network",
    "rank 1 on node1 ended: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.37 GiB.": "memory",
    "rank 1 on node1 ended: KeyError: 'pixel_values'": "code",
    "rank 1 on node1 ended: cannot write /data/home/x: no space left on the device": "disk",
}


@pytest.mark.parametrize(("message", "kind"), WATCH.items())
def test_what_a_rank_says_of_another(message: str, kind: str) -> None:
    """Also when the other one died before it could write anything where it can be found."""
    line = f"2026-11-21 06:12:44,870 ERROR {message}\n"
    assert classify(1, None, {"stderr": line}).kind == kind
    assert classify(None, recorded("PeersLost", message), {"stderr": line}, "FAILED").kind == kind


# What is shown


def test_detail_is_the_error_and_our_frame() -> None:
    lines = classify(1, None, tails(rank0="cuda_out_of_memory")).detail.splitlines()
    assert lines[0] == "cwdpo/train/engine.py:88 in backward: self.deepspeed.backward(loss)"
    assert lines[1].startswith("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.37 GiB.")
    assert len(lines) == 2


def test_detail_of_nccl_has_the_last_error() -> None:
    lines = classify(77, None, tails(rank0="nccl_peer_gone", rank1="nccl_peer_gone")).detail.splitlines()
    assert lines[0].startswith("cwdpo/train/engine.py:88")
    assert lines[-1] == "socketProgressOpt: Call to recv from 172.16.0.4<33759> failed : Connection reset by peer"


def test_detail_of_a_killed_rank_says_who_and_what_came_last() -> None:
    said = {"stderr": "loading\nstep 3 of 100\n", **tails(job="slurm_kill")}
    found = classify(143, None, said)
    assert found.message == "it ended and nobody said why (node1: task 1: Killed)"
    assert found.detail.splitlines() == ["srun: error: node1: task 1: Killed", "loading", "step 3 of 100"]


def test_an_error_raised_from_another_speaks_for_both() -> None:
    found = classify(4, None, tails(rank0="disk_full_store"))
    assert found.detail.splitlines()[-1].startswith("cwdpo.base.errors.StoreError: cannot write")
    assert found.detail.startswith("cwdpo/base/files.py:38 in writing: raise StoreError")


def test_chatter_goes() -> None:
    kept = tidy(log("cuda_out_of_memory"))
    assert not [
        line for line in kept if "NCCL INFO" in line or "%|" in line or "see_memory_usage" in line or "^^^" in line
    ]
    assert tidy("a\na\na\nb\r\n\x1b[31mc\x1b[0m\n 10%|# | 1/9\rlast\n") == ["a", "b", "c", "last"]
    assert tidy(log("slurm_time"))[0].startswith("slurmstepd: error: *** STEP 11.0 ON node0 CANCELLED")
    assert len(tidy(log("slurm_kill"))) == 2


def test_nodes_and_ranks_that_srun_names() -> None:
    assert failed_node(log("slurm_node")) == "node1"
    assert failed_node(log("slurm_launch_failed")) == "gpu33"
    assert failed_node(log("slurm_kill")) == "node1"
    assert failed_node(log("slurm_time")) is None
    ended = first_exit(log("slurm_exit_5"))
    assert ended is not None
    assert (ended.node, ended.status) == ("node1", 5)
    assert first_exit("srun: error: node0: tasks 0-3: Terminated\n") is not None
    assert first_exit("nothing") is None


def test_the_end_of_a_log_and_what_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "0.out"
    assert tail(path) == ""
    path.write_bytes(b"first run\nsecond\xff run\n")
    assert tail(path, 10) == "second\ufffd run\n"
    assert tail(path, 1000).startswith("first run")  # somebody made it shorter: begin again
    path.write_bytes(b"x" * 1_000_000 + b"\nTraceback\n")
    assert len(tail(path)) < 200_000
    assert (
        classify(1, None, {"stderr": "\0\xff" * 1000, JOB_LOG: "Traceback (most recent call last):\n"}).kind == "lost"
    )


# What is done


def test_every_kind_has_a_policy() -> None:
    assert set(POLICIES) == set(get_args(FailureKind))


def row(kind: str, saved: tuple[int, int] = (0, 0), **changes: Any) -> dict[str, Any]:
    return {"class": kind, "saved": list(saved), "changes": changes}


NOW = (1, 200)
DECISIONS = [
    # kind, earlier rounds, action, kind it is recorded as
    ("network", [], "again", "network"),
    ("network", [row("network", NOW)] * 2, "again", "network"),
    ("network", [row("network", NOW)] * 3, "fail", "network"),
    ("network", [row("network", (1, 100))] * 40, "again", "network"),  # it got on in between
    ("port", [row("network", NOW)] * 3, "again", "port"),
    ("port", [row("network", NOW)] * 4, "fail", "port"),  # five in all
    ("node", [row("node", NOW)], "requeue", "node"),
    ("node", [row("node", NOW)] * 2, "fail", "node"),
    ("lost", [], "requeue", "lost"),
    ("lost", [row("lost", NOW)] * 2, "fail", "lost"),
    ("busy", [row("busy", NOW)] * 2, "requeue", "busy"),
    ("busy", [row("busy", NOW)] * 3, "fail", "busy"),
    ("interrupted", [], "requeue", "interrupted"),
    ("interrupted", [row("interrupted", (1, step)) for step in range(0, 200, 5)], "requeue", "interrupted"),
    ("interrupted", [row("interrupted", NOW), row("preempted", NOW)], "fail", "stalled"),
    ("time_limit", [row("time_limit", (0, 900)), row("time_limit", NOW)], "requeue", "time_limit"),
    ("interrupted", [row("memory", NOW, micro_batch=2)] * 9, "requeue", "interrupted"),
    *((kind, [], "fail", kind) for kind in ("code", "config", "data", "training", "store", "disk", "parent",
                                            "cancelled", "unavailable", "superseded", "dependency")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "earlier", "action", "recorded_as"), DECISIONS)
def test_limits(kind: FailureKind, earlier: list[dict[str, Any]], action: str, recorded_as: str) -> None:
    decision = decide(kind, earlier, NOW, None)
    assert (decision.action, decision.kind) == (action, recorded_as)
    final = POLICIES[kind].inside == "fail"
    assert bool(decision.why) == (action == "fail" and not final)


def test_the_profile_says_how_many_attempts() -> None:
    assert decide("network", [row("port", NOW)], NOW, None, attempts=3).action == "again"
    assert decide("network", [row("port", NOW)] * 2, NOW, None, attempts=3).why.startswith("3 runs failed")


def test_memory_is_tried_with_less_until_nothing_is_left() -> None:
    earlier = [row("memory", NOW, micro_batch=size) for size in (64, 32, 16, 8, 4, 2)]
    assert decide("memory", earlier, NOW, {"micro_batch": 1}) == Decision("again", "memory", {"micro_batch": 1})
    decision = decide("memory", earlier, NOW, None)
    assert (decision.action, decision.why) == ("fail", "nothing can be smaller")


# Less memory


def stage(name: str, spec: dict[str, Any], **execution: Any) -> dict[str, Any]:
    return {"stage": name, "id": "0" * 64, "spec": spec, "execution": Execution(**execution).model_dump(mode="json")}


def training(
    name: str, batch_size: int = 128, objective: dict[str, Any] | None = None, **execution: Any
) -> dict[str, Any]:
    spec = {"optimization": {"batch_size": batch_size}, "objective": objective or {"name": "sft"}}
    return stage(name, spec, **execution)


def shrinks(of: dict[str, Any], ranks: int = 1) -> list[dict[str, Any]]:
    """Overrides, one out-of-memory after the other."""
    found: list[dict[str, Any]] = []
    while (smaller := smaller_execution(of, found[-1] if found else {}, ranks)) is not None:
        found.append(smaller)
    return found


def test_half_the_micro_batch_then_recomputed_activations() -> None:
    assert shrinks(training("stage2", micro_batch=6)) == [
        {"micro_batch": 3},
        {"micro_batch": 1},
        {"micro_batch": 1, "gradient_checkpointing": True},
    ]


def test_a_budget_of_tokens_is_halved_with_the_micro_batch() -> None:
    assert shrinks(training("stage2", micro_batch=4, micro_tokens=1001))[:2] == [
        {"micro_batch": 2, "micro_tokens": 501},
        {"micro_batch": 1, "micro_tokens": 251},
    ]


def test_a_micro_batch_beyond_a_ranks_share_is_halved_from_the_share() -> None:
    assert shrinks(training("stage1", batch_size=16, micro_batch=64), ranks=4)[0] == {"micro_batch": 2}


def test_an_objective_that_needs_the_mean_of_its_batch_only_recomputes() -> None:
    objective = SftC(constraint_estimate="current_batch").model_dump(mode="json")
    assert shrinks(training("stage1", objective=objective)) == [{"gradient_checkpointing": True}]
    assert shrinks(training("stage1", objective=objective, gradient_checkpointing=True)) == []
    other = SftC().model_dump(mode="json")
    assert shrinks(training("stage1", objective=other))[0] == {"micro_batch": 4}


def test_what_other_stages_can_do_with_less() -> None:
    assert shrinks(stage("pretrain", {"pretraining": {"batch_size": 2}}))[-1] == {
        "micro_batch": 1,
        "gradient_checkpointing": True,
    }
    assert shrinks(stage("reference", {"block": 32}, micro_batch=2)) == [{"micro_batch": 1}]
    assert shrinks(stage("generate", {"benchmark": {}})) == []
    assert shrinks(stage("score", {})) == []


# A sweep that only fails


def ended(message: str, kind: str = "code", action: str = "fail", time: float = 0.0) -> dict[str, Any]:
    return {"class": kind, "message": message, "action": action, "time": time}


SAME = [
    ended("KeyError: 'coco_000123' (/data/a/cwdpo/train/loop.py:12)", time=1),
    ended("KeyError: 'coco_000999' (/data/b/cwdpo/train/loop.py:12)", time=2),
    ended("KeyError: 'flickr_7' (/data/b/cwdpo/train/loop.py:12)", time=3),
]


def test_alike_but_for_numbers_paths_and_ids() -> None:
    assert same_failures(SAME) == "code: KeyError: # #"
    assert signature(ended("KeyError: 'x' somewhere")) != signature(ended("TypeError: 'x' somewhere"))
    assert same_failures([*SAME, ended("KeyError: # #", kind="data")]) is None
    assert same_failures([]) is None


def test_a_sweep_is_stopped_when_its_first_jobs_fail_alike() -> None:
    why = tripped(SAME, successes=0)
    assert why is not None
    assert why.startswith("the first 3 jobs failed alike and none succeeded: KeyError: 'coco_000123'")
    later = [ended("TypeError: something else", time=9)]
    assert tripped([*later, *SAME], successes=0) == why
    plain = [{"class": "code", "message": "TypeError: x"}] * 3  # as a ledger keeps them: in order, all final
    assert tripped(plain, 0) is not None


@pytest.mark.parametrize(
    ("exits", "successes"),
    [
        (SAME, 1),
        (SAME[:2], 0),
        ([*SAME[:2], ended("KeyError: 'a_1' (x/y)", action="requeue", time=3)], 0),
        ([ended("TypeError: another", time=0), *SAME], 0),
        ([ended("the node is faulty", "node", time=float(time)) for time in range(3)], 0),
        ([ended("cancelled", "cancelled", time=float(time)) for time in range(3)], 0),
    ],
    ids=["one succeeded", "two", "one is tried again", "the first differs", "nodes", "cancelled"],
)
def test_a_sweep_goes_on(exits: list[dict[str, Any]], successes: int) -> None:
    assert tripped(exits, successes) is None
