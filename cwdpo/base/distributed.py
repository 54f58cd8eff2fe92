"""The ranks of one job working together: start, wait, sums, broadcast, end. Torch is imported inside.

Ranks wait for each other in two ways. Exchanges of tensors (torch's collectives) are quick, so a rank that misses one
is noticed after minutes. Waiting for rank 0, which may write and hash 145 GB, has no limit while everybody is alive: it
goes through the board that rank 0 serves (`rendezvous.py`), and `watch.py` sees who is alive.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from cwdpo.base import rendezvous
from cwdpo.base.board import Board
from cwdpo.base.errors import CwdpoError
from cwdpo.base.rendezvous import Meeting
from cwdpo.base.runtime import Rank
from cwdpo.base.watch import Watch, end_now

if TYPE_CHECKING:
    import torch

LONGEST_POLL = 1.0
REASON_LENGTH = 300

OWN_FAULTS = ("out of memory", "ncclInvalid", "Unable to find address")
"""What NCCL and gloo (of a network interface that is not there) say of a fault that is this rank's own."""

_group: _Group | None = None


class _Group:
    """This rank among several."""

    def __init__(self, meeting: Meeting, board: Board, watch: Watch) -> None:
        self.meeting, self.board, self.watch = meeting, board, watch
        self.turn = 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        with self.explaining():
            self._take_turn()

    def _take_turn(self) -> None:
        """The last to arrive wipes what belongs to the turn before: everybody has read it, for everybody is here."""
        self.turn += 1
        last = f"turn/{self.turn - 1}"
        if self.board.count(f"turn/{self.turn}/arrived") == self.meeting.rank.world_size:
            self.board.remove(f"{last}/arrived", f"{last}/go", f"{last}/value")
            self.board.put(f"turn/{self.turn}/go", True)
        self._wait(f"turn/{self.turn}/go")

    def from_first(self, value: Any) -> Any:
        """What rank 0 passed."""
        with self.explaining():
            if self.meeting.rank.is_first:
                self.board.put(f"turn/{self.turn + 1}/value", value)
            self._take_turn()
            return value if self.meeting.rank.is_first else self.board.get(f"turn/{self.turn}/value")

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Context in which an exchange that fails becomes an error that names who is gone or lags behind."""
        try:
            yield
        except RuntimeError as error:
            if not _is_exchange(error):
                raise
            raise self.watch.explain(self.board, _shortened(str(error))).error() from error

    def _wait(self, key: str) -> None:
        """Ask more rarely the longer it takes."""
        began = time.monotonic()
        while not self.board.has(key):
            verdict = self.watch.missed(self.board)
            if verdict and not self.board.has(key):
                raise verdict.publish(self.board).error()
            time.sleep(min(LONGEST_POLL, 0.0005 + (time.monotonic() - began) / 10))

    def leave(self, status: int, reason: str) -> None:
        """Say how this rank ended; rank 0 stays until the others have read it."""
        self.board.put(f"left/{self.meeting.rank.rank}", {"status": status, "reason": _shortened(reason)})
        self.board.count("left")
        if self.meeting.rank.is_first:
            self.watch.merciful = True
            self._see_off(self.watch.grace + 2 * self.watch.pause if status else self.meeting.silent)
        self.watch.stop()

    def _see_off(self, limit: float) -> None:
        until = time.monotonic() + limit
        while self.board.count("left", 0) < self.meeting.rank.world_size and time.monotonic() < until:
            time.sleep(0.02)


def device_of(rank: Rank) -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    import torch

    return torch.device("cuda", rank.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def start(rank: Rank) -> None:
    """Join the process group of the job; one process is a group too. Idempotent.

    Raises:
        PeersLost: a rank did not come, or rank 0 does not answer.
        PortTaken: another program uses MASTER_PORT.
    """
    import torch

    if torch.distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(rank.local_rank)
    store = torch.distributed.HashStore() if rank.world_size == 1 else _join(rank)
    with naming_missing():
        _start_torch(rank, store)


def _join(rank: Rank) -> Any:
    """Meet the other ranks; returns the store of the process group."""
    import torch

    global _group
    meeting = Meeting.from_environment(rank)
    board = rendezvous.serve(meeting) if rank.is_first else rendezvous.reach(meeting)
    watch = Watch(meeting)
    watch.start()
    try:
        watch.look_after(rendezvous.sign_in(meeting, board))
    except CwdpoError:
        watch.stop()
        raise
    _group = _Group(meeting, board, watch)
    return torch.distributed.PrefixStore("torch", board.store)


def _start_torch(rank: Rank, store: Any) -> None:
    """The process group, which DeepSpeed takes over."""
    import torch

    deepspeed = _deepspeed()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    limit = timedelta(seconds=rendezvous.collective_seconds())
    # Groups that DeepSpeed and transformers make later ask torch for its defaults.
    torch.distributed.distributed_c10d.default_pg_timeout = limit
    torch.distributed.distributed_c10d.default_pg_nccl_timeout = limit
    # Compiling the shared-memory helper takes a minute and saves nothing at these message sizes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    device = device_of(rank) if backend == "nccl" and rank.world_size > 1 else None
    torch.distributed.init_process_group(
        backend, store=store, rank=rank.rank, world_size=rank.world_size, timeout=limit, device_id=device
    )
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, timeout=limit, verbose=False)


def _deepspeed() -> Any:
    """The package without MLflow, which its tuner imports: a second of every rank for what jobs never use."""
    unseen = "mlflow" not in sys.modules
    if unseen:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        import deepspeed
    finally:
        if unseen:
            del sys.modules["mlflow"]
    return deepspeed


def barrier() -> None:
    """Wait for all ranks, as long as they live."""
    if _group:
        _group.barrier()


def from_first_rank(value: Any, rank: Rank) -> Any:
    """The value rank 0 passed, which JSON can hold, on every rank; rank 0 waits for the others, too."""
    return _group.from_first(value) if _group else value


def sum_over_ranks(values: torch.Tensor, rank: Rank) -> list[float]:
    """Element-wise float64 sums of a vector, equal on every rank; the one host synchronisation of a step."""
    import torch

    wide = values.detach().double()
    if rank.world_size > 1:
        torch.distributed.all_reduce(wide)
    return [float(value) for value in wide.tolist()]


def largest_over_ranks(value: int, rank: Rank) -> int:
    """The largest value that any rank passed, on every rank."""
    import torch

    if rank.world_size == 1:
        return value
    largest = torch.tensor(value, device=device_of(rank))
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)


def position(stage: str) -> None:
    """Where this rank stands, for the message that the others give when it is gone."""
    if _group:
        _group.watch.stage, _group.watch.step = stage, 0


def at_step(number: int) -> None:
    """At which step of the stage."""
    if _group:
        _group.watch.step = number


@contextmanager
def naming_missing(on_lost: Callable[[str], None] | None = None) -> Iterator[None]:
    """Context in which an exchange of tensors that fails becomes a `PeersLost` that names who is gone or lags behind.

    Args:
        on_lost: called with the message when this process has to end because its main thread hangs.
    """
    if _group is None:
        yield
        return
    watch = _group.watch
    watch.on_lost = on_lost
    try:
        with _group.explaining():
            yield
    finally:
        watch.on_lost = None


def _is_exchange(error: RuntimeError) -> bool:
    """True for what gloo, NCCL and the board raise when another rank does not answer."""
    from torch.distributed import DistError

    text = str(error)
    if any(word in text for word in OWN_FAULTS):
        return False
    return isinstance(error, DistError) or any(word in text for word in ("gloo", "NCCL", "Connection closed"))


def _shortened(text: str) -> str:
    return shorten(text, REASON_LENGTH, placeholder=" ...")


@contextmanager
def leaving() -> Iterator[None]:
    """Context of everything a rank does: at its end the others are told how it ended."""
    try:
        yield
    except BaseException as error:
        _leave(getattr(error, "exit_code", 1), f"{_kind(error)}{error}")
        raise
    _leave(0, "")


def _kind(error: BaseException) -> str:
    return "" if isinstance(error, CwdpoError) else f"{type(error).__name__}: "


def _leave(status: int, reason: str) -> None:
    """Leave the group; after a failure without torch's teardown, which waits for ranks that are gone."""
    global _group
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized() and not (status and _group):
        torch.distributed.destroy_process_group()
    if _group:
        with suppress(RuntimeError):  # rank 0 is gone
            _group.leave(status, reason)
        _group.watch.stop()
        if status:
            atexit.register(_end, status)
        _group = None


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    end_now(status)
