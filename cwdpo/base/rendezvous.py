"""How the ranks of a job find each other: rank 0 serves the board, every rank signs in, then all begin.

token            names the job, so that another job's board on the same port is not joined
beat/<rank>      see `watch.py`
joined/<rank>    the host it runs on
open             hosts by rank: everybody is there
lost             why the job stops
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cwdpo.base.board import Board, Verdict, listed
from cwdpo.base.errors import ConfigError, PeersLost, PortTaken
from cwdpo.base.runtime import Rank

POLL_SECONDS = 0.1
TOKEN_SECONDS = 10.0  # rank 0 writes the token at once
NOTICE_SECONDS = 0.5  # for the others to read why the job stops, before the board goes
TELL_SECONDS = 30.0  # rank 0 says at the latest this long after its patience ended what it found


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of a job meet, and how patient they are.

    Attributes:
        address, port: of rank 0.
        token: names the job.
        node: name of this host.
        hosts: of the job, where the launcher knows them.
        join: seconds until everybody must be there.
        collective: seconds one exchange of tensors may take.
        silent: seconds after which a rank that is not heard of is gone.
    """

    rank: Rank
    address: str
    port: int
    token: str
    node: str
    hosts: tuple[str, ...]
    join: float
    collective: float
    silent: float

    @classmethod
    def from_environment(cls, rank: Rank, environment: Mapping[str, str] = os.environ) -> Meeting:
        """As the launcher set MASTER_ADDR, MASTER_PORT and CWDPO_*."""
        return cls(
            rank=rank,
            address=environment["MASTER_ADDR"],
            port=int(environment["MASTER_PORT"]),
            token=f"{environment.get('CWDPO_JOB_TOKEN', '')}/{rank.world_size}",
            node=environment.get("CWDPO_NODE") or socket.gethostname(),
            hosts=tuple(environment.get("CWDPO_HOSTS", "").split()),
            join=seconds(environment, "CWDPO_JOIN_TIMEOUT", 300),
            collective=collective_seconds(environment),
            silent=seconds(environment, "CWDPO_SILENT_TIMEOUT", 60),
        )

    @property
    def place(self) -> str:
        """address:port."""
        return f"{self.address}:{self.port}"


def collective_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """Seconds one exchange of tensors may take."""
    return seconds(environment, "CWDPO_COLLECTIVE_TIMEOUT", 600)


def seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    """A positive number of seconds from the environment."""
    text = environment.get(name, str(default))
    with suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise ConfigError(f"{name}: '{text}' is not a positive number of seconds")


def serve(meeting: Meeting) -> Board:
    """Rank 0: open the board.

    Raises:
        PortTaken: another program listens on the port.
    """
    from torch.distributed import DistNetworkError

    try:
        board = Board(_store(meeting, "127.0.0.1", meeting.collective, serving=True))
    except DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise PortTaken(f"port {meeting.port} on {meeting.node}: address already in use by another program") from error
    board.put("token", meeting.token)
    return board


def reach(meeting: Meeting) -> Board:
    """Any other rank: find the board of rank 0.

    Raises:
        PeersLost: nobody answers.
        PortTaken: somebody else does.
    """
    deadline = time.monotonic() + meeting.join
    _await_listener(meeting, deadline)
    left = max(deadline - time.monotonic(), TOKEN_SECONDS)
    store = _in_time(lambda: _store(meeting, meeting.address, left), left)
    if store is None:
        raise PortTaken(f"what answers at {meeting.place} is not rank 0 of this job: address already in use")
    store.set_timeout(timedelta(seconds=meeting.collective))
    board = Board(store)
    _check_token(meeting, board)
    return board


def another(meeting: Meeting) -> Board:
    """A further connection, for another thread."""
    return Board(_store(meeting, "127.0.0.1" if meeting.rank.is_first else meeting.address, meeting.collective))


def sign_in(meeting: Meeting, board: Board) -> list[str]:
    """Say that this rank is there, wait for the others; returns hosts by rank.

    Raises:
        PeersLost: somebody did not come.
    """
    from torch.distributed import DistError

    board.put(f"beat/{meeting.rank.rank}", {})
    board.put(f"joined/{meeting.rank.rank}", meeting.node)
    if meeting.rank.is_first:
        return _call_the_roll(meeting, board)
    try:
        return _await_opening(meeting, board)
    except DistError as error:
        raise PeersLost(f"rank 0 at {meeting.place} went away while the ranks were joining") from error


def _store(meeting: Meeting, address: str, patience: float, serving: bool = False) -> Any:
    from torch.distributed import TCPStore

    limit = timedelta(seconds=patience)
    return TCPStore(address, meeting.port, is_master=serving, timeout=limit, wait_for_workers=False)


def _await_listener(meeting: Meeting, deadline: float) -> None:
    """Wait until somebody listens where rank 0 should; torch would fill the log while it tries."""
    while True:
        try:
            socket.create_connection((meeting.address, meeting.port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or str(error)
                raise PeersLost(
                    f"rank 0 at {meeting.place} did not answer within {meeting.join:g} s"
                    f" ({reason}; asked by rank {meeting.rank.rank} on {meeting.node})"
                ) from error
        time.sleep(POLL_SECONDS)


def _in_time(make: Callable[[], Any], limit: float) -> Any:
    """What `make` returns, None if it fails or takes too long: torch's client waits for ever for one that is silent."""
    made: list[Any] = []

    def run() -> None:
        with suppress(RuntimeError):
            made.append(make())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit)
    return made[0] if made else None


def _check_token(meeting: Meeting, board: Board) -> None:
    deadline = time.monotonic() + TOKEN_SECONDS
    while not board.has("token") and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if board.get("token") != meeting.token:
        raise PortTaken(f"the ranks of another job meet at {meeting.place}: address already in use")


def _call_the_roll(meeting: Meeting, board: Board) -> list[str]:
    """Rank 0: wait for everybody, then open."""
    world = meeting.rank.world_size
    deadline = time.monotonic() + meeting.join
    while missing := [rank for rank in range(world) if not board.has(f"joined/{rank}")]:
        if time.monotonic() > deadline:
            verdict = Verdict(_absence(meeting, board, missing)).publish(board)
            time.sleep(NOTICE_SECONDS)
            raise verdict.error()
        time.sleep(POLL_SECONDS)
    hosts: list[str] = board.all("joined", world)
    board.put("open", hosts)
    return hosts


def _absence(meeting: Meeting, board: Board, missing: list[int]) -> str:
    """Who did not come, who did, and from which hosts nobody did."""
    came: dict[str, list[int]] = {}
    for rank in sorted(set(range(meeting.rank.world_size)) - set(missing)):
        came.setdefault(board.get(f"joined/{rank}"), []).append(rank)
    joined = "; ".join(f"{listed(ranks)} on {host}" for host, ranks in came.items())
    empty = [host for host in meeting.hosts if host not in came]
    nobody = f"; nobody from {', '.join(empty)}" if empty else ""
    return f"{listed(missing)} did not join within {meeting.join:g} s (joined: {joined}{nobody})"


def _await_opening(meeting: Meeting, board: Board) -> list[str]:
    """Any other rank: wait until rank 0 says that everybody is there, or who is not."""
    deadline = time.monotonic() + meeting.join + TELL_SECONDS
    while time.monotonic() < deadline:
        verdict = Verdict.read(board)
        if verdict:
            raise verdict.error()
        hosts: list[str] | None = board.get("open")
        if hosts:
            return hosts
        time.sleep(POLL_SECONDS)
    raise PeersLost(f"rank 0 at {meeting.place} did not say within {meeting.join + TELL_SECONDS:g} s who joined")
