"""Every rank knows within a minute which other one is gone, whatever it hangs in.

    beat/<rank>      what a living rank says every few seconds (`census.py`)
    left/<rank>      how a rank ended: exit status and reason
    left             how many ranks ended

Rank 0 looks at all beats and publishes a verdict; the others look for the verdict, and at whether rank 0 answers. Time
is counted while this process runs: one that was suspended blames nobody for it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from cwdpo.base.background import Background
from cwdpo.base.board import Board, Verdict, listed
from cwdpo.base.census import Census, ended
from cwdpo.base.rendezvous import Meeting, another

HOOK_SECONDS = 5.0  # a file system that hangs must not keep this process
STALL = 0.8  # of the limit of an exchange


class Watch:
    """Beats for this rank, and ends its process with the verdict's status when another one is gone.

    Two threads: one talks to rank 0 and may hang with it; the other makes no request, and notices.

    Attributes:
        stage, step: where this rank stands, for people.
        on_lost: called with the message before the process ends.
        verdict: why the job stops.
        merciful: True when this process ends by itself and must not be ended before.
        pause: seconds between beats.
        grace: seconds the main thread has to end by itself: it may know more, or be about to save.
    """

    def __init__(self, meeting: Meeting) -> None:
        self.stage, self.step = "", 0
        self.on_lost: Callable[[str], None] | None = None
        self.verdict: Verdict | None = None
        self.merciful = False
        self.pause = min(3.0, meeting.silent / 10)
        self.grace = (3 if meeting.rank.is_first else 2) * self.pause  # the board outlives those who read it
        self._meeting = meeting
        self._census: Census | None = None
        self._background = Background()
        self._clock = self._answered = 0.0
        self._beat = 0
        self._broken = self._warned = False

    def start(self) -> None:
        """Begin, in the background."""
        for run in (self._talk, self._guard):
            self._background.start(run, f"watch {run.__name__}")

    def look_after(self, hosts: list[str]) -> None:
        """Everybody has joined: from now on silence means something."""
        self._census = Census(hosts)

    def stop(self) -> None:
        """Neither beat nor end this process any more."""
        self._background.stop()

    def _talk(self) -> None:
        """Beat and look, until rank 0 hangs or breaks the connection."""
        from torch.distributed import DistError

        try:
            board = another(self._meeting)
            while not self._background.over.wait(self.pause):
                self._exchange(board)
                self._answered = self._clock
        except DistError:
            self._broken = True

    def _exchange(self, board: Board) -> None:
        self._beat += 1
        at = f"{self.stage} step {self.step}" if self.step else self.stage
        beat = {"beat": self._beat, "at": at, "collectives": collectives()}
        board.put(f"beat/{self._meeting.rank.rank}", beat)
        verdict = self.verdict or Verdict.read(board)
        if verdict is None and self._meeting.rank.is_first and self._census:
            verdict = self._judge(board, self._census)
        self.verdict = verdict

    def _judge(self, board: Board, census: Census) -> Verdict | None:
        """Rank 0: look at all others."""
        census.take(board.all("beat", len(census.hosts)), self._clock)
        self._warn_of_stall(census)
        verdict = ended(board, census.hosts)
        if verdict is None:
            silent = _still_here(board, census.silent(self._meeting.silent, self._clock))
            verdict = census.gone(silent, self._clock) if silent else None
        return verdict and verdict.publish(board)

    def _warn_of_stall(self, census: Census) -> None:
        """NCCL ends a process whose exchange takes too long, and does not say whom it waited for."""
        if census.stalled(self._clock) < STALL * self._meeting.collective:
            self._warned = False
        elif not self._warned:
            self._warned = True
            complain(f"for {census.stalled(self._clock):.0f} s {census.lag()}", "WARNING")

    def _guard(self) -> None:
        """End the process a little after there is a verdict."""
        tick = self.pause / 2
        before, found = time.monotonic(), None
        while not self._background.over.wait(tick):
            now = time.monotonic()
            self._clock += min(now - before, 2 * tick)
            before = now
            self.verdict = self.verdict or self._unreachable()
            if self.verdict:
                found = self._clock if found is None else found
                if self._clock - found > self.grace and not self.merciful:
                    self._end(self.verdict)

    def _unreachable(self) -> Verdict | None:
        """That rank 0 is gone, where it does not answer."""
        name = self._census.name(0) if self._census else f"rank 0 at {self._meeting.place}"
        silence = self._clock - self._answered
        if self._broken:
            return Verdict(f"{name} is gone: it closed the connection")
        return Verdict(f"{name} (no answer for {silence:.0f} s) is gone") if silence > self._meeting.silent else None

    def _end(self, verdict: Verdict) -> None:
        """Say why, then end the process, whatever the main thread hangs in."""
        complain(f"{verdict.message}; stopping")
        if self.on_lost:
            hook = threading.Thread(target=self.on_lost, args=(verdict.message,), daemon=True)
            hook.start()
            hook.join(HOOK_SECONDS)
        end_now(verdict.status)

    def explain(self, board: Board, what: str) -> Verdict:
        """Why an exchange failed with the text `what`: who is gone, who ended, else who lags behind."""
        from torch.distributed import DistError

        try:
            return self._explanation(board, what).publish(board)
        except DistError:
            self._broken = True
        return self.verdict or self._unreachable() or Verdict(what)

    def _explanation(self, board: Board, what: str) -> Verdict:
        """A dead rank does not beat over a few pauses of this process; of the living the last is named."""
        if self._census is None:
            return Verdict(what)
        census = Census(self._census.hosts)
        clock, before = 0.0, time.monotonic()
        tick, limit = self.pause / 4, 4 * self.pause
        while clock < limit + self.pause:
            census.take(board.all("beat", len(census.hosts)), clock)
            verdict = self.verdict or ended(board, census.hosts)
            if verdict:
                return verdict
            time.sleep(tick)
            now = time.monotonic()
            clock += min(now - before, 2 * tick)
            before = now
        dead = _still_here(board, census.silent(limit, clock))
        return census.gone(dead, clock) if dead else Verdict(f"{census.lag()}: {what}")

    def missed(self, board: Board) -> Verdict | None:
        """Why nobody should wait any longer: a verdict, or ranks that have ended."""
        if self.verdict or self._census is None or not board.has("left"):
            return self.verdict
        hosts = self._census.hosts
        left = [rank for rank in range(len(hosts)) if board.has(f"left/{rank}")]
        return ended(board, hosts) or Verdict(f"{listed(left)} ended while others wait")


def _still_here(board: Board, ranks: list[int]) -> list[int]:
    """Those that did not say goodbye."""
    return [rank for rank in ranks if not board.has(f"left/{rank}")]


def collectives() -> int:
    """How many collectives this process has begun, in all its groups."""
    torch = sys.modules["torch"]
    with suppress(RuntimeError, AttributeError):  # a group is being made or unmade; another torch
        groups = list(torch.distributed.distributed_c10d._world.pg_map)
        return sum(group._get_sequence_number_for_group() for group in groups)
    return 0


def complain(message: str, level: str = "ERROR") -> None:
    """A line on stderr as the logging of a worker writes it, without its locks, which the main thread may hold."""
    stamp = datetime.now().isoformat(" ", "milliseconds").replace(".", ",")
    os.write(2, f"{stamp} {level} {message}\n".encode())


def end_now(status: int) -> None:
    """End this process without the interpreter's and torch's teardown, which hangs when others are gone."""
    os._exit(status)
