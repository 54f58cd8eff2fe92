"""How the probe's job stands. Slurm is asked more and more seldom, and one answer without the job ends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cwdpo.jobs.doctor.slurm_site import Job
from cwdpo.jobs.slurm.standing import ENDED

FIRST_PAUSE_SECONDS = 1.0
GROWTH = 1.5
LONGEST_PAUSE_SECONDS = 15.0
LATE_SECONDS = 20.0
"""What a job wrote last may be seen so much later; a job may take so long to end."""

THROUGH = ENDED | {"COMPLETING"}
"""States in which ranks write nothing any more."""


@dataclass
class Watch:
    """One job in Slurm's queue.

    Attributes:
        ask: the job as Slurm shows it; None where it shows none.
        say: told about each new state.
        now: seconds of a clock that never goes back.
        state: the last answer, in words.
    """

    ask: Callable[[], Job | None]
    say: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    state: str = "not in the queue"
    _seen: Job | None = field(default=None, init=False)
    _through_since: float | None = field(default=None, init=False)
    _pause: float = field(default=FIRST_PAUSE_SECONDS, init=False)
    _due: float = field(default=0.0, init=False)

    def look(self) -> None:
        """Ask if it is time to."""
        if self.now() < self._due:
            return
        job = self.ask()
        self._seen = job or self._seen
        self._note(f"{job.state} ({job.reason})" if job else "not in the queue")
        self._due = self.now() + self._pause
        if not self._is_through(job):
            self._through_since = None
        elif self._through_since is None:
            self._through_since = self.now()

    def _note(self, state: str) -> None:
        self._pause = min(GROWTH * self._pause, LONGEST_PAUSE_SECONDS)
        if state != self.state:
            self._pause, self.state = FIRST_PAUSE_SECONDS, state
            self.say(state)

    def _is_through(self, job: Job | None) -> bool:
        """A job that was never there may still come: just after sbatch, or from a controller that took over."""
        return self._seen is not None if job is None else job.state in THROUGH

    @property
    def waits(self) -> bool:
        """True until the job runs, whose time limit ends it; also while it is suspended."""
        return self._seen is None or self._seen.state not in {"RUNNING", *THROUGH}

    @property
    def ended(self) -> bool:
        """True when it has been through for so long that nothing more is to come."""
        return self._through_since is not None and self.now() - self._through_since > LATE_SECONDS
