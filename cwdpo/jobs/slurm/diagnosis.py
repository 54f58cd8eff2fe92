"""What became of a failed run: one kind of failure, one sentence, and the lines that show it.

A cause beats a symptom: ranks that only notice that another one is gone, or that are asked to stop because of it, never
say what happened. Of several causes the earliest counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any, Literal

from cwdpo.jobs.slurm.logs import Complaint, Exit, complaints, first_exit, tidy

FailureKind = Literal[
    "memory", "network", "port", "node", "disk", "data", "config", "code", "training", "store", "parent", "time_limit",
    "preempted", "interrupted", "stalled", "busy", "cancelled", "unavailable", "superseded", "dependency", "breaker",
    "lost",
]  # fmt: skip

JOB_LOG = "job"
"""Name of the tail of what the host script and srun printed."""

MESSAGE_LENGTH = 240
DETAIL_LINES = 12


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        message: one sentence.
        detail: the error itself and the frame in our code, or the last meaningful lines.
    """

    kind: FailureKind
    message: str
    detail: str = ""


_STATES: dict[str, FailureKind] = {
    "OUT_OF_MEMORY": "memory", "NODE_FAIL": "node", "BOOT_FAIL": "node", "LAUNCH_FAILED": "node",
    "TIMEOUT": "time_limit", "DEADLINE": "cancelled", "PREEMPTED": "preempted", "CANCELLED": "cancelled",
    "REVOKED": "cancelled", "DEPENDENCYNEVERSATISFIED": "dependency",
}  # fmt: skip
"""What Slurm's states say; FAILED and COMPLETED say nothing."""

_CLASSES: dict[str, FailureKind] = {
    "ConfigError": "config", "DataError": "data", "ModelError": "data", "StoreError": "store", "Fenced": "superseded",
    "Busy": "busy", "InputMissing": "parent", "Interrupted": "interrupted", "KeyboardInterrupt": "interrupted",
    "TrainingError": "training", "NotAvailable": "unavailable", "PeersLost": "network", "PortTaken": "port",
    "OutOfMemoryError": "memory", "MemoryError": "memory", "ConnectionResetError": "network",
    "ConnectionRefusedError": "network", "BrokenPipeError": "network", "DistNetworkError": "network",
    "DistBackendError": "network", "DistStoreError": "network",
}  # fmt: skip

_STATUSES: dict[int, FailureKind] = {
    2: "config", 3: "data", 4: "store", 5: "training", 6: "unavailable", 7: "parent", 75: "interrupted", 76: "busy",
    77: "network", 78: "superseded", 79: "port", 126: "config", 127: "config", 130: "interrupted", 134: "code",
    135: "node", 137: "lost", 139: "code", 140: "interrupted", 143: "interrupted",
}  # fmt: skip
"""Statuses of a worker (see `cwdpo.base.errors`), and 128 + number of the signal that ended it."""

_WEAK = (4, 130, 140, 143)
"""Less telling than a symptom: a checkpoint could not be written (because a rank is gone?), or a signal asked to stop,
which srun also sends to the other ranks when one has failed."""

_BEHIND: tuple[FailureKind, ...] = ("disk", "memory", "network", "node")
"""What can be behind a file that could not be written."""

_PATTERNS: tuple[tuple[FailureKind, str], ...] = (
    ("time_limit", r"CANCELLED AT \S+ DUE TO TIME LIMIT"),
    ("preempted", r"CANCELLED AT \S+ DUE TO PREEMPTION"),
    ("interrupted", r"CANCELLED AT \S+ DUE TO JOB REQUEUE|^stopped by a signal"),
    ("node", r"DUE TO NODE FAILURE|Node failure on|[Tt]ask launch for \S+ failed on node|Application launch failed"
             r"|srun: error: Unable to (?:create|confirm)"),
    ("cancelled", r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+ \*\*\*"),
    # NCCL repeats a CUDA error or a full /dev/shm of its own process: the fault behind it is what counts
    ("code", r"device-side assert|illegal memory access|misaligned address|ncclInvalid(?:Usage|Argument)"),
    ("memory", r"CUDA out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation|Cuda failure.*out of memory"
               r"|CUBLAS_STATUS_ALLOC_FAILED|DefaultCPUAllocator: (?:can't allocate|not enough) memory"
               r"|std::bad_alloc|[Cc]annot allocate memory|\bMemoryError\b|[Oo][Oo][Mm][-_ ][Kk]ill"
               r"|: tasks? \S+: Out Of Memory|[Ee]xceeded (?:job|step) memory limit"),
    ("disk", r"[Nn]o space left on (?:the )?device|[Dd]isk quota exceeded|disk quota is used up"
             r"|basic_ios::clear: iostream error|PytorchStreamWriter failed writing"),
    ("node", r"uncorrectable (?:ECC|NVLink)|\bXid\b|fallen off the bus|GPU is lost|no CUDA-capable device"
             r"|No CUDA GPUs are available|CUDA (?:error: )?unknown error|CUDA driver initialization failed"
             r"|devices are busy or unavailable|[Ff]ailed to initialize NVML|nvmlInit|CUDA error: initialization"
             r"|driver version is insufficient|Bus error|Stale file handle|Transport endpoint is not connected"
             r"|Input/output error|FATAL: +container creation failed"),
    ("config", r"FATAL: +(?:could not open image|image .* not found)|Failed to create user namespace"
               r"|FATAL: +.*(?:setuid|user namespace)"),
    ("port", r"EADDRINUSE|[Aa]ddress already in use"),
    ("network", r"NCCL error|nccl(?:System|Remote|Internal|UnhandledCuda)Error|Watchdog caught collective operation"
                r"|Some NCCL operations have failed|Connection (?:reset|closed) by|gloo.*(?:Timed out|[Ee]rror)"
                r"|[Cc]onnection was likely closed|client socket has (?:timed out|failed)|Connection refused"
                r"|Broken pipe|wait timeout after \d+ms|Socket Timeout|one did not answer in time"
                r"|^ranks? \d.* (?:gone|keep up|went away|did not|ended while others wait)\b"),
    ("store", r"^cannot (?:write|read) /"),
    ("code", r"^Fatal Python error: "),
)  # fmt: skip
"""Texts of torch, NCCL, CUDA, Slurm and the kernel; the first that matches counts."""

_TEXTS = [(kind, re.compile(pattern, re.MULTILINE)) for kind, pattern in _PATTERNS]

_ADVICE = re.compile(r" (?:If reserved but unallocated|This is typically caused by|Check the logs of the remote).*")

_SYMPTOMS: tuple[FailureKind, ...] = ("interrupted", "network")
"""What other ranks say when one has failed, the more telling first."""

_HEADLINES: dict[FailureKind, str] = {
    "memory": "out of memory",
    "network": "the ranks lost each other",
    "port": "the port the ranks meet on was taken",
    "node": "the node is faulty",
    "disk": "no room where it writes",
    "data": "the data or the model is wrong",
    "config": "the configuration is wrong",
    "code": "the program failed",
    "training": "training cannot go on",
    "store": "the store cannot be read or written",
    "parent": "what it reads is not finished",
    "time_limit": "cut off by the time limit",
    "preempted": "preempted by another job",
    "interrupted": "stopped by a signal",
    "stalled": "stopped again and again without newer saved progress",
    "busy": "another process is computing it",
    "cancelled": "cancelled",
    "unavailable": "something it needs is not installed",
    "superseded": "a newer attempt took over",
    "dependency": "a job it waits for failed",
    "breaker": "its sweep was stopped",
    "lost": "it ended and nobody said why",
}

_SENTENCES = {"ConfigError", "DataError", "ModelError", "StoreError", "Fenced", "Busy", "InputMissing", "Interrupted",
              "TrainingError", "NotAvailable", "PeersLost", "PortTaken"}  # fmt: skip
"""Our own errors: what they say is a sentence already."""


@dataclass(frozen=True)
class _Evidence:
    kind: FailureKind
    complaint: Complaint
    vague: bool = False
    """Something that was said as an error, and nothing known."""


def classify(
    status: int | None, result: Mapping[str, Any] | None, tails: Mapping[str, str], slurm_state: str | None = None
) -> Failure:
    """What happened, from everything that is known.

    Args:
        status: of srun, or of a rank; negative or 128 + n for signal n; None when the job could not say.
        result: result.json of the newest attempt of this run.
        tails: name of a log -> its end; `JOB_LOG` is what the host script and srun printed, the others are ranks'.
        slurm_state: such as NODE_FAIL or `CANCELLED by 1000`.
    """
    ended = first_exit(tails.get(JOB_LOG, ""))
    status = ended.status if ended else _unsigned(status)
    evidence = sorted(_evidence(status, result, tails), key=_rank)
    kind = of_state(slurm_state) or _kind(status, evidence)
    shown = next((item.complaint for item in evidence if item.kind == kind), None)
    return Failure(kind, _message(kind, shown, status, ended), _detail(shown, tails, ended))


def _unsigned(status: int | None) -> int | None:
    return 128 - status if status is not None and status < 0 else status


def of_state(state: str | None) -> FailureKind | None:
    """What a state of Slurm says by itself."""
    return _STATES.get(state.split()[0].rstrip("+").upper()) if state and state.strip() else None


def _evidence(status: int | None, result: Mapping[str, Any] | None, tails: Mapping[str, str]) -> Iterator[_Evidence]:
    """What the worker recorded, then what the logs say, rank by rank."""
    found = [complaint for name in sorted(tails, key=_rank_first) for complaint in complaints(tails[name])]
    if result:
        recorded = _recorded(result, found)
        yield _Evidence(_of_complaint(recorded) or "code", recorded)
    for complaint in found:
        kind = _of_complaint(complaint)
        if kind:
            yield _Evidence(kind, complaint)
        elif complaint.own:
            yield _Evidence(_STATUSES.get(status or 0, "code"), complaint, vague=True)


def _rank_first(name: str) -> tuple[bool, int, str]:
    number = name.rpartition(".")[2]
    return name == JOB_LOG, int(number) if number.isdigit() else 0, name


def _recorded(result: Mapping[str, Any], found: list[Complaint]) -> Complaint:
    """The error in result.json, as the log shows it where it does; of equal ones this was the first."""
    name, message = str(result.get("kind", "")), str(result.get("message", ""))
    lines = message.strip().split("\n")
    for complaint in found:
        alike = complaint.name == name or (complaint.own and lines[0])
        if alike and lines[0][:80] in complaint.text:
            return replace(complaint, name=name)
    return Complaint(tuple(lines), name=name, time="0")


def _of_complaint(complaint: Complaint) -> FailureKind | None:
    """None for a line that says nothing about a failure."""
    by_text = next((kind for kind, pattern in _TEXTS if pattern.search(complaint.text)), None)
    known = _CLASSES.get(complaint.name)
    if complaint.name == "PeersLost" and by_text not in _SYMPTOMS:  # it may quote the rank that failed
        return by_text or known
    if complaint.name == "StoreError" and by_text in _BEHIND:
        return by_text
    if complaint.name in _SENTENCES:  # what it says is for people
        return known
    return by_text or known or ("code" if complaint.name else None)


def _rank(item: _Evidence) -> tuple[int, str]:
    """Causes first, then by time; what has no time keeps its place after what has."""
    symptom = 2 + _SYMPTOMS.index(item.kind) if item.kind in _SYMPTOMS else int(item.vague)
    return symptom, item.complaint.time or "~"


def _kind(status: int | None, evidence: list[_Evidence]) -> FailureKind:
    """A cause in the logs, else what the status says, else a symptom."""
    strongest = evidence[0].kind if evidence else None
    if strongest and (strongest not in _SYMPTOMS or status in _WEAK):
        return strongest
    return _STATUSES.get(status or 0) or strongest or "lost"


def _message(kind: FailureKind, shown: Complaint | None, status: int | None, ended: Exit | None) -> str:
    if shown is None:
        text = f"{_HEADLINES[kind]} ({_ending(status, ended)})"
    elif shown.own or shown.name in _SENTENCES:
        text = _said(shown)
    elif kind == "code" and shown.name:
        place = shown.frame.partition(" in ")[0]
        text = ": ".join(filter(None, [shown.name, _said(shown)])) + (f" ({place})" if place else "")
    else:
        text = ": ".join(filter(None, [_HEADLINES[kind], _said(shown)]))
    return shorten(text, MESSAGE_LENGTH, placeholder=" ...")


def _said(shown: Complaint) -> str:
    """What an error says, without the name of its class and without advice."""
    first = _ADVICE.sub("", shown.lines[0])
    if not shown.name:
        return first
    _, found, message = first.partition(f"{shown.name}:")
    if found:
        return message.strip()
    return "" if first.endswith(shown.name) else first


def _ending(status: int | None, ended: Exit | None) -> str:
    if ended:
        return ended.line.removeprefix("srun: error: ")
    if status is None:
        return "no exit status is known"
    return f"killed by signal {status - 128}" if status > 128 and status != 255 else f"exit status {status}"


def _detail(shown: Complaint | None, tails: Mapping[str, str], ended: Exit | None) -> str:
    """The frame and the error; where that is no exception, also what came last."""
    lines = [shown.frame, *shown.lines] if shown else []
    if ended and ended.line not in lines:
        lines.append(ended.line)
    if shown is None or not (shown.name or shown.own):
        lines += _last_lines(tails)
    return "\n".join(list(dict.fromkeys(line for line in lines if line))[:DETAIL_LINES])


def _last_lines(tails: Mapping[str, str]) -> list[str]:
    """The last meaningful lines of the first rank that has any, else of the job."""
    for name in sorted(tails, key=_rank_first):
        lines = tidy(tails[name])
        if lines:
            return lines[-6:]
    return []
