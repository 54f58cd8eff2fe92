"""Ranks that do what they are told, one word after the other: `barrier`, `sleep:3`, `@2 kill:STOP` (only rank 2).

Run as a program, it imports torch and DeepSpeed once, then forks the ranks of every scenario whose folder it reads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import deepspeed  # noqa: F401
import torch

from cwdpo.base import distributed
from cwdpo.base.errors import CwdpoError, Interrupted, TrainingError
from cwdpo.base.runtime import Rank

LIMIT_SECONDS = 300.0
AT_ONCE = 4


def say_value(value: str) -> None:
    rank = Rank.from_environment()
    found = distributed.from_first_rank([value, None] if rank.is_first else "mine", rank)
    assert found == [value, None], found


def add_up(_: str) -> None:
    rank = Rank.from_environment()
    assert distributed.sum_over_ranks(torch.ones(1), rank) == [rank.world_size]


def fail(value: str) -> None:
    raise TrainingError(value)


def interrupt(value: str) -> None:
    raise Interrupted(value)


def hold_the_interpreter(seconds: str) -> None:
    """Let no other thread of this process run Python, as a long call into C does."""
    sys.setswitchinterval(1000)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass
    sys.setswitchinterval(0.005)


def measure(turns: str) -> None:
    """Print microseconds of a turn of each kind, and how many keys the board holds after them."""
    rank = Rank.from_environment()
    group = distributed._group
    assert group
    calls = {
        "barrier": distributed.barrier,
        "from_first_rank": lambda: distributed.from_first_rank(list(range(100)), rank),
        "sum_over_ranks": lambda: distributed.sum_over_ranks(torch.ones(8), rank),
    }
    for name, call in calls.items():
        distributed.barrier()
        keys = group.board.store.num_keys()
        began = time.perf_counter()
        for _ in range(int(turns)):
            call()
        print(f"{name}: {(time.perf_counter() - began) / int(turns) * 1e6:.0f} us")
        distributed.barrier()
        print(f"more keys: {group.board.store.num_keys() - keys}")
    distributed.barrier()  # who looks last does not see the others leave


WORDS: Mapping[str, Callable[[str], object]] = {
    "barrier": lambda _: distributed.barrier(),
    "value": say_value,
    "sum": add_up,
    "at": distributed.position,
    "step": lambda value: distributed.at_step(int(value)),
    "sleep": lambda value: time.sleep(float(value)),
    "hold": hold_the_interpreter,
    "kill": lambda value: os.kill(os.getpid(), signal.Signals[f"SIG{value}"]),
    "fail": fail,
    "bug": int,
    "interrupt": interrupt,
    "measure": measure,
}


def main(words: Sequence[str], folder: Path) -> int:
    """What a worker does around its stages."""
    rank = Rank.from_environment()
    try:
        with distributed.leaving():
            distributed.start(rank)
            with distributed.naming_missing(folder.joinpath(f"lost.{rank.rank}").write_text):
                obey(words, rank)
    except CwdpoError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    print(f"threads left: {left}" if left else "ok")
    return 0


def obey(words: Sequence[str], rank: Rank) -> None:
    for word in words:
        whom, _, what = word.partition(" ") if word.startswith("@") else ("", "", word)
        if whom in ("", f"@{rank.rank}"):
            name, _, value = what.partition(":")
            WORDS[name](value)


def serve() -> None:
    """Fork a manager for each folder on stdin, a few at a time."""
    for number, line in enumerate(sys.stdin):
        if number >= AT_ONCE:
            os.wait()
        if os.fork() == 0:
            manage(Path(line.strip()))
    with suppress(ChildProcessError):
        while True:
            os.wait()


def manage(folder: Path) -> NoReturn:
    """Fork the ranks of a scenario; write how each ended."""
    scenario = json.loads((folder / "scenario.json").read_text())
    ranks = {fork_rank(rank, scenario, folder): rank for rank in scenario["ranks"]}
    if scenario["suspend"]:
        time.sleep(2)
        signal_all(ranks, signal.SIGSTOP)
        time.sleep(scenario["suspend"])
        signal_all(ranks, signal.SIGCONT)
    ended = wait_for(ranks, len(ranks) - scenario["stopped"])
    hidden = folder / ".ended"
    hidden.write_text(json.dumps(ended))
    hidden.rename(folder / "ended.json")
    os._exit(0)


def signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def wait_for(ranks: Mapping[int, int], count: int) -> dict[int, int]:
    """Rank -> exit status, of the first `count` to end; the others are killed."""
    until = time.monotonic() + LIMIT_SECONDS
    ended: dict[int, int] = {}
    while len(ended) < count and time.monotonic() < until:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            ended[ranks[pid]] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for pid, rank in ranks.items():
        if rank not in ended:
            os.kill(pid, signal.SIGKILL)
    return ended


def fork_rank(rank: int, scenario: Mapping[str, Any], folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), CWDPO_NODE=f"node{rank // 2}", **scenario["environment"])
    descriptor = os.open(folder / f"log.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(main(scenario["words"], folder))


if __name__ == "__main__":
    serve()
