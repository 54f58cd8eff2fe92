"""The commands of Slurm: the only place that starts them. Trouble with the controller is waited out, then named."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cwdpo.base.errors import CwdpoError

log = logging.getLogger("cwdpo")

TRIES = 5
FIRST_WAIT_SECONDS = 2.0  # doubled at each try: half a minute in all
COMMAND_SECONDS = 120.0

TRANSIENT = re.compile(
    r"unable to contact slurm controller|socket timed out|connection refused|connection timed out"
    r"|communication connection failure|zero bytes were transmitted|slurm_receive_msg|i/o error writing"
    r"|slurmctld.*not responding|resource temporarily unavailable|unable to establish controller machine"
    r"|protocol authentication error|slurm temporarily unable to accept job|transport endpoint is not connected",
    re.IGNORECASE,
)
"""What the commands say when the controller is down, restarting or overloaded."""

FIELDS = ("%F", "%K", "%A", "%T", "%r", "%N", "%S", "%j")
"""squeue: array job id, index, raw id, state, reason, nodes, (expected) start, name."""


class SlurmError(CwdpoError):
    """Slurm refused something, or could not be reached."""

    exit_code = 6


class SlurmDown(SlurmError):
    """The controller did not answer for as long as we were ready to wait."""


@dataclass(frozen=True)
class QueueEntry:
    """One element (or plain job) that Slurm's controller knows.

    Attributes:
        array: job id of the array.
        index: index in the array, -1 for a plain job.
        job: id of this element's own record.
        state: such as PENDING, RUNNING, COMPLETED.
        reason: why it waits, such as Dependency.
        start: when it started or is expected to, as Slurm writes it.
    """

    array: str
    index: int
    job: str
    state: str
    reason: str
    nodes: str
    start: str
    name: str


def run(
    command: Sequence[str],
    settled: Callable[[], str | None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    """Output of a command of Slurm; trouble with the controller is tried again with longer and longer waits.

    Args:
        settled: asked before each new try; what it returns counts as the output (a try that seemed to fail may have
            worked).
        say: told about each wait.

    Raises:
        SlurmDown: the controller stayed away.
        SlurmError: the command was refused; carries Slurm's own words.
    """
    return _patiently(command, settled, say)[0]


def _patiently(
    command: Sequence[str],
    settled: Callable[[], str | None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[str, str]:
    """stdout and stderr of a command, see `run`."""
    wait = FIRST_WAIT_SECONDS
    for attempt in range(TRIES):
        status, output, complaint = _once(command)
        if status == 0:
            return output, complaint
        if not TRANSIENT.search(complaint):
            raise SlurmError(f"{command[0]}: {_sentence(complaint) or f'status {status}'}")
        if attempt + 1 < TRIES:
            say(f"{command[0]}: {_sentence(complaint)}; trying again in {wait:.0f} s")
            time.sleep(wait)
            wait *= 2
            found = settled()
            if found is not None:
                return found, ""
    raise SlurmDown(
        f"{command[0]}: {_sentence(complaint)} ({TRIES} tries). Nothing is lost: when Slurm is back, the same command"
        " goes on."
    )


def _once(command: Sequence[str]) -> tuple[int, str, str]:
    """Exit status, stdout, stderr; a command that hangs counts as a controller that does not answer."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL,
            env=_environment(),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SlurmError(f"{command[0]}: not on the PATH of this machine") from error
    except subprocess.TimeoutExpired:
        return 1, "", f"Socket timed out: no answer within {COMMAND_SECONDS:.0f} s"
    return done.returncode, done.stdout, done.stderr


def _environment() -> dict[str, str]:
    """The environment without what an outer allocation or the user's defaults would add to a job."""
    dropped = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_")
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {key: value for key, value in os.environ.items() if key in kept or not key.startswith(dropped)}


def _sentence(complaint: str) -> str:
    """The last thing a command said, without its prefixes."""
    lines = [re.sub(r"^\w+: (error: )?", "", line).strip() for line in complaint.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-2:]))


def queue() -> list[QueueEntry]:
    """Everything of this user that the controller knows, array elements one by one: one command."""
    text = run([
        "squeue", "--user", str(os.getuid()), "--array", "--noheader", "--states=all", "--format", "|".join(FIELDS),
    ])  # fmt: skip
    return [_entry(line) for line in text.splitlines() if line.count("|") >= len(FIELDS) - 1]


def _entry(line: str) -> QueueEntry:
    array, index, job, state, reason, nodes, start, name = line.split("|", len(FIELDS) - 1)
    return QueueEntry(array, int(index) if index.isdigit() else -1, job, state, reason, nodes, start, name)


def accounting(jobs: Sequence[str], since: str) -> dict[tuple[str, int], tuple[str, str]] | None:
    """(array job id, index) -> (state, nodes) from Slurm's accounting: one command; None where there is none."""
    try:
        text = run([
            "sacct", "--noheader", "--parsable2", "--allocations", "--starttime", since,
            "--format", "JobID,State,NodeList", "--jobs", ",".join(jobs),
        ])  # fmt: skip
    except SlurmError as error:
        if not re.search(r"disabled|not on the PATH", str(error)):
            log.warning("%s; going on without accounting", error)
        return None
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for line in text.splitlines():
        identity, state, nodes = line.split("|", 2)
        array, _, index = identity.partition("_")
        found |= {(array, number): (state.split()[0], _known(nodes)) for number in indices(index)}
    return found


def _known(nodes: str) -> str:
    return "" if nodes.startswith("None") else nodes


def indices(text: str) -> list[int]:
    """[4, 5, 6, 9] for `[4-6,9%2]`, as Slurm names elements that it has not yet told apart; [-1] for a plain job."""
    found: list[int] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        if first.isdigit():
            found += range(int(first), int(last or first) + 1, int(step or 1))
    return found or [-1]


def cancel(targets: Sequence[str]) -> None:
    """Cancel jobs or elements; those that are gone already do not matter."""
    for start in range(0, len(targets), 500):
        run(["scancel", "--quiet", *targets[start : start + 500]])


def depend_on(element: str, dependency: str) -> None:
    """Give a waiting element another dependency; the empty one lets it start."""
    run(["scontrol", "update", f"jobid={element}", f"dependency={dependency}"])


def estimated_start(script: str) -> str:
    """What `sbatch --test-only` expects, in Slurm's words; it submits nothing."""
    return _sentence(_patiently(["sbatch", "--test-only", script])[1])
