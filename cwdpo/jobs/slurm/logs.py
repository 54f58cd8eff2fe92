"""What the logs of a failed run say: each error, and where in our code it came from, without the chatter around it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

TAIL_BYTES = 131072


@dataclass(frozen=True)
class Complaint:
    """One error in the log of one process.

    Attributes:
        lines: the error itself.
        name: class of the exception without its module; "" for a line that is no exception.
        frame: where in our code it was raised; "" where it was not, or nobody said.
        cause: text of the exception it was raised from.
        time: as the log says; "" where it does not.
        own: True for a line our own logging wrote as an error.
    """

    lines: tuple[str, ...]
    name: str = ""
    frame: str = ""
    cause: str = ""
    time: str = ""
    own: bool = False

    @property
    def text(self) -> str:
        """Everything that tells what kind of error it is."""
        return "\n".join([self.cause, *self.lines] if self.cause else self.lines)


@dataclass(frozen=True)
class Exit:
    """How srun says that a rank ended: `status` is 128 + number for a signal."""

    node: str
    status: int
    line: str


def tail(path: Path, start: int = 0) -> str:
    """The end of a log, of what was written after byte `start`; "" when it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(start if start <= size else 0, size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RANK = re.compile(r"^(?:\[rank\d+\]: ?|\s?\d{1,5}: )")

_CHATTER = re.compile(
    r"^\s*$|\d+%\||\bit/s\b|\bs/it\b|NCCL (?:INFO|WARN)"
    r"|^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (?:DEBUG|INFO|WARNING) |^\[[\d:, -]+\] \[(?:DEBUG|INFO|WARNING)\]"
    r"|^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d job \S+ on \S+: |^(?:INFO|WARNING): "
    r"|^\[[WI]\d{4} |Warning: (?!CUDA initialization)|^\s*warnings\.warn\("
    # what srun and slurmstepd say of every step that ends early
    r"|^srun: (?:Job step aborted|Force Terminated|launch/slurm|Terminating|error: Timed out waiting for job step)"
    r"|: tasks? [\d,\[\]-]+: Terminated$|\*\*\* STEP \S+ ON \S+ CANCELLED AT \S+ \*\*\*$|MESSAGE_TASK_EXIT"
    # advice, C++ frames, and torch.distributed's own report of its children
    r"|^\s*[\^~]+\s*$|^\s*frame #\d+|^#\d+ |^Exception raised from|^C\+\+ CapturedTraceback|^CUDA kernel errors might"
    r"|^For debugging consider|^Compile with `TORCH_USE|^Search for `cuda|^Device-side assertions|^={8,}|^-{8,}"
    r"|torch[./]distributed[./]elastic|ChildFailedError|^Root Cause|^ +(?:error_file|traceback|exitcode) *: "
)


def tidy(text: str) -> list[str]:
    """The meaningful lines of a log: the last state of what redraws itself, nothing twice in a row, no chatter."""
    lines = [_bare(line) for line in text.split("\n")]
    kept = [line for line in lines if not _CHATTER.search(line)]
    return [line for line, _ in groupby(kept)]


def _bare(line: str) -> str:
    shown = _ESCAPES.sub("", line.rstrip().rpartition("\r")[2])
    return _RANK.sub("", shown)


_TRACEBACK = re.compile(
    r"^(?P<head>.*)Traceback \(most recent call last\):\n"
    r"(?P<frames>(?:[ \t].*\n)*)"
    r"(?P<error>(?P<name>[A-Za-z_][\w.]*)(?::.*)?\n"
    r"(?:(?:[ \t]+\S|nccl|Last error|socket|Cuda failure|Net ?:|Error ).*\n){0,6})",
    re.MULTILINE,
)
_FROM = "The above exception was the direct cause of the following exception:"
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+) ERROR (.*)$")
_FRAME = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+), in (?P<where>\S+)(?:\n +(?!File)(?P<source>\S.*))?')


def complaints(text: str) -> list[Complaint]:
    """Every exception of a log, and every other meaningful line, in order."""
    whole = "\n".join(tidy(text)) + "\n"
    found: list[Complaint] = []
    place = 0
    for match in _TRACEBACK.finditer(whole):
        between = whole[place : match.start()].splitlines()
        exception = _exception(match)
        if between == [_FROM] and found:  # the later one says better what it means
            exception = replace(exception, cause=found.pop().text)
        found += [*_plain(between), exception]
        place = match.end()
    return found + _plain(whole[place:].splitlines())


def _exception(match: re.Match[str]) -> Complaint:
    time = _TIME.match(match["head"])
    return Complaint(
        lines=tuple(match["error"].rstrip("\n").split("\n")),
        name=match["name"].rpartition(".")[2],
        frame=_our_frame(match["frames"]),
        time=time[1] if time else "",
    )


def _our_frame(frames: str) -> str:
    """`cwdpo/train/loop.py:151 in _step: loss.backward()`, the innermost frame in this package."""
    shown = ""
    for frame in _FRAME.finditer(frames):
        inside = frame["path"].rpartition("/cwdpo/")[2]
        if inside != frame["path"] and "site-packages" not in inside:
            source = f": {frame['source']}" if frame["source"] else ""
            shown = f"cwdpo/{inside}:{frame['line']} in {frame['where']}{source}"
    return shown


def _plain(lines: Iterable[str]) -> list[Complaint]:
    found = []
    for line in lines:
        said = _TIME.match(line)
        if said:
            found.append(Complaint((said[2],), time=said[1], own=True))
        elif line != _FROM:
            found.append(Complaint((line,)))
    return found


_ENDED = re.compile(
    r"srun: error: (?P<node>[\w.-]+): tasks? [\d,\[\]-]+:"
    r" (?:Exited with exit code (?P<code>\d+)|(?P<end>[A-Z][\w ]+\w))"
)
_SIGNALS = {
    "Killed": 137, "Out Of Memory": 137, "Bus error": 135, "Segmentation fault": 139, "Aborted": 134,
    "Terminated": 143, "User defined signal 2": 140, "Interrupt": 130, "Hangup": 129,
}  # fmt: skip


def first_exit(job_log: str) -> Exit | None:
    """The rank that ended first: srun's own status is the highest of all, also of those it killed because of one."""
    ends = [match for line in job_log.splitlines() if (match := _ENDED.search(_bare(line)))]
    own = [match for match in ends if match["end"] != "Terminated"] or ends
    if not own:
        return None
    status = int(own[0]["code"]) if own[0]["code"] else _SIGNALS.get(own[0]["end"], 1)
    return Exit(own[0]["node"], status, own[0][0])


_NODE = re.compile(r"(?:Node failure on|failed on node|srun: error: (?=[\w.-]+: tasks?)) ?(?P<node>[\w.-]*\w)")


def failed_node(job_log: str) -> str | None:
    """The node srun names first, None when it names none."""
    found = [match["node"] for line in tidy(job_log) if (match := _NODE.search(line))]
    return found[0] if found else None
