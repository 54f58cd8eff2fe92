"""Real ranks on this machine: joining, waiting, being killed, stopped and suspended, failing, lagging, leaving."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import workers
from torch.distributed import TCPStore

from cwdpo.base.errors import ConfigError
from cwdpo.base.rendezvous import Meeting, seconds
from cwdpo.base.runtime import Rank

REPO = Path(__file__).resolve().parents[2]
ANYONE, ANOTHER_JOB = "anyone", "another job"  # who has the port


@dataclass
class Scenario:
    """What four ranks on two (pretended) nodes are told.

    Attributes:
        ranks: those that are started.
        stopped: how many never end by themselves.
        suspend: seconds for which all are suspended.
        port: who listens there already.
    """

    words: Sequence[str]
    ranks: Sequence[int] = range(4)
    stopped: int = 0
    suspend: float = 0
    world: int = 4
    port: str = ""
    environment: dict[str, str] = field(default_factory=dict)


WORKING = ["sum", "at:stage2", "step:14", "sleep:2"]

SCENARIOS = {
    "a wait beyond the limit of an exchange": Scenario(
        ["sum", "@0 sleep:12", "barrier", "sum"], environment={"CWDPO_COLLECTIVE_TIMEOUT": "8"}
    ),
    "anyone has the port, as rank 1 sees it": Scenario(
        [], ranks=[1], port=ANYONE, environment={"CWDPO_JOIN_TIMEOUT": "1"}
    ),
    "anyone has the port": Scenario([], ranks=[0], port=ANYONE),
    "another job has the port": Scenario([], ranks=[0, 1], port=ANOTHER_JOB),
    "two do not come": Scenario(
        [], ranks=[0, 1], environment={"CWDPO_JOIN_TIMEOUT": "6", "CWDPO_HOSTS": "node0 node1"}
    ),
    "rank 0 does not come": Scenario([], ranks=[1], environment={"CWDPO_JOIN_TIMEOUT": "2"}),
    "killed at work": Scenario([*WORKING, "@3 kill:KILL", "sleep:60"]),
    "killed in an exchange": Scenario([*WORKING, "@3 kill:KILL", "sum"]),
    "killed while others wait": Scenario([*WORKING, "@3 kill:KILL", "barrier"]),
    "rank 0 killed": Scenario([*WORKING, "@0 kill:KILL", "sleep:60"]),
    "stopped": Scenario([*WORKING, "@3 kill:STOP", "sum"], stopped=1),
    "rank 0 stopped": Scenario([*WORKING, "@0 kill:STOP", "barrier"], stopped=1),
    "all suspended": Scenario(["sum", "sleep:3", "sum"], suspend=12),
    "holds the interpreter": Scenario(["sum", "@2 hold:1.5", "sum"]),
    "one lags": Scenario(["sum", "at:stage2", "@2 sleep:60", "sum"], environment={"CWDPO_COLLECTIVE_TIMEOUT": "8"}),
    "one fails": Scenario([*WORKING, "@3 fail:the loss is nan", "sum"]),
    "one fails, others compute": Scenario([*WORKING, "@3 fail:the loss is nan", "sleep:60"]),
    "rank 0 fails": Scenario([*WORKING, "@0 fail:the loss is nan", "sleep:60"]),
    "one has a bug": Scenario([*WORKING, "@3 bug:x", "sleep:60"]),
    "one is asked to stop": Scenario(["sum", "@1 interrupt:stopped by a signal", "@2 sleep:60", "barrier"]),
    "one leaves early": Scenario(["sum", "@0 barrier", "@1 barrier", "@2 barrier"]),
    "all is well": Scenario(["barrier", "value:x", "sum", "@1 sleep:2", "@3 sleep:1"]),
    "many turns": Scenario(["measure:200"]),
    "one process": Scenario(["barrier", "value:x", "sum"], ranks=[0], world=1),
}
"""The slow ones first."""


@dataclass
class Outcome:
    """How a scenario ended: exit status, log, and what the hook of `naming_missing` was told, by rank."""

    statuses: dict[int, int]
    logs: dict[int, str]
    told: dict[int, str]


class Runs:
    """All scenarios, under way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.strangers = [_stranger(kind, port) for kind, port in self._start()]

    def _start(self) -> Iterator[tuple[str, int]]:
        """Start everything; yields who is to listen where before that."""
        ports = free_ports()
        folders = []
        for number, scenario in enumerate(SCENARIOS.values()):
            port = next(ports)
            folders.append(self.folder / str(number))
            folders[-1].mkdir()
            text = json.dumps({**vars(scenario), "ranks": list(scenario.ranks), "environment": _said(scenario, port)})
            (folders[-1] / "scenario.json").write_text(text)
            if scenario.port:
                yield scenario.port, port
        environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
        program = [sys.executable, "-W", "error", str(Path(__file__).with_name("rank_program.py"))]
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdin
        self.process.stdin.write("".join(f"{folder}\n" for folder in folders))
        self.process.stdin.close()

    def outcome(self, name: str) -> Outcome:
        """Wait for a scenario."""
        folder = self.folder / str(list(SCENARIOS).index(name))
        while not (folder / "ended.json").exists():
            assert self.process.poll() is None
            time.sleep(0.05)
        ended = json.loads((folder / "ended.json").read_text())
        texts = [
            {int(path.suffix[1:]): path.read_text() for path in folder.glob(f"{kind}.*")} for kind in ("log", "lost")
        ]
        return Outcome({int(rank): status for rank, status in ended.items()}, texts[0], texts[1])


def free_ports() -> Iterator[int]:
    """Nobody listens there; only this worker's tests draw from this range, but jobs of all do."""
    for port in random.sample(mine := workers.share(range(20000, 32768)), len(mine)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                yield port


def _said(scenario: Scenario, port: int) -> dict[str, str]:
    """What a launcher says; to one process, nothing about others."""
    if scenario.world == 1:
        return {"WORLD_SIZE": "1"}
    return {
        "WORLD_SIZE": str(scenario.world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "CWDPO_JOB_TOKEN": "this job", "CWDPO_SILENT_TIMEOUT": "8", "CWDPO_COLLECTIVE_TIMEOUT": "30",
        **scenario.environment,
    }  # fmt: skip


def _stranger(kind: str, port: int) -> Any:
    """Somebody who listens on a port: another job of ours, or a program that says nothing."""
    if kind == ANOTHER_JOB:
        store = TCPStore("127.0.0.1", port, is_master=True, timeout=timedelta(seconds=5), wait_for_workers=False)
        store.set("cwdpo/token", '"its token/4"')
        return store
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    found = Runs(tmp_path_factory.mktemp("ranks"))
    yield found
    found.process.wait(timeout=900)
    for stranger in found.strangers:
        if isinstance(stranger, socket.socket):
            stranger.close()


@pytest.mark.parametrize(
    "name",
    ["a wait beyond the limit of an exchange", "all suspended", "holds the interpreter", "all is well", "one process"],
)
def test_no_false_alarm(runs: Runs, name: str) -> None:
    outcome = runs.outcome(name)
    assert set(outcome.statuses.values()) == {0}, outcome.logs
    assert all(map(is_well, outcome.logs.values())), outcome.logs
    assert outcome.told == {}


def is_well(log: str) -> bool:
    """Torch warns where the rank that keeps its store is the first to leave, after all is over."""
    said, _, after = log.partition("ok\n")
    return not said and (not after or "TCPStore" in after.splitlines()[0])


def test_the_board_does_not_grow(runs: Runs) -> None:
    outcome = runs.outcome("many turns")
    assert set(outcome.statuses.values()) == {0}, outcome.logs
    print(outcome.logs[0])
    more = [int(line.split()[-1]) for log in outcome.logs.values() for line in log.splitlines() if "keys" in line]
    assert len(more) == 12
    assert all(-3 <= keys <= 3 for keys in more)  # a look may fall between writing and wiping


def test_who_did_not_come_is_named(runs: Runs) -> None:
    outcome = runs.outcome("two do not come")
    assert outcome.statuses == {0: 77, 1: 77}
    message = "ranks 2-3 did not join within 6 s (joined: ranks 0-1 on node0; nobody from node1)"
    assert set(outcome.logs.values()) == {f"PeersLost: {message}\n"}


def test_without_rank_0(runs: Runs) -> None:
    outcome = runs.outcome("rank 0 does not come")
    assert outcome.statuses == {1: 77}
    assert "did not answer within 2 s (Connection refused; asked by rank 1 on node0)" in outcome.logs[1]
    assert "PeersLost: rank 0 at 127.0.0.1:" in outcome.logs[1]


def test_a_taken_port(runs: Runs) -> None:
    outcome = runs.outcome("anyone has the port")
    assert outcome.statuses == {0: 79}
    assert "on node0: address already in use by another program" in outcome.logs[0]
    outcome = runs.outcome("anyone has the port, as rank 1 sees it")
    assert outcome.statuses == {1: 79}
    assert "is not rank 0 of this job: address already in use" in outcome.logs[1]


def test_the_ranks_of_another_job_are_not_joined(runs: Runs) -> None:
    outcome = runs.outcome("another job has the port")
    assert outcome.statuses == {0: 79, 1: 79}
    assert "PortTaken: the ranks of another job meet at 127.0.0.1:" in outcome.logs[1]


@pytest.mark.parametrize(
    ("name", "lost"),
    [("killed at work", 3), ("killed in an exchange", 3), ("killed while others wait", 3), ("stopped", 3)],
)
def test_a_rank_that_is_gone_is_named(runs: Runs, name: str, lost: int) -> None:
    outcome = runs.outcome(name)
    statuses = {rank: status for rank, status in outcome.statuses.items() if rank != lost}
    assert statuses == {0: 77, 1: 77, 2: 77}, outcome.logs
    for rank in statuses:
        assert "rank 3 on node1 (last seen " in outcome.logs[rank]
        assert "s ago at stage2 step 14) is gone" in outcome.logs[rank]
        told = rank in outcome.told
        assert told == ("PeersLost" not in outcome.logs[rank]), "either the stage heard of it, or the hook was called"


@pytest.mark.parametrize("name", ["rank 0 killed", "rank 0 stopped"])
def test_rank_0_is_gone(runs: Runs, name: str) -> None:
    outcome = runs.outcome(name)
    assert [outcome.statuses[rank] for rank in (1, 2, 3)] == [77, 77, 77]
    for rank in (1, 2, 3):
        assert "ERROR rank 0 on node0" in outcome.logs[rank]
        assert "gone" in outcome.told[rank]


def test_the_last_rank_is_named(runs: Runs) -> None:
    outcome = runs.outcome("one lags")
    assert set(outcome.statuses.values()) == {77}
    for log in outcome.logs.values():
        assert "rank 2 on node1 at stage2 does not keep up (collectives begun: 1, others 2)" in log


@pytest.mark.parametrize("name", ["one fails", "one fails, others compute"])
def test_a_rank_that_fails_says_why(runs: Runs, name: str) -> None:
    outcome = runs.outcome(name)
    assert set(outcome.statuses.values()) == {5}, "the job ends with the status of the rank that knows"
    assert outcome.logs[3] == "TrainingError: the loss is nan\n"
    for rank in (0, 1, 2):
        assert "rank 3 on node1 ended: the loss is nan" in outcome.logs[rank]


def test_rank_0_fails(runs: Runs) -> None:
    outcome = runs.outcome("rank 0 fails")
    assert set(outcome.statuses.values()) == {5}
    assert set(outcome.told.values()) == {"rank 0 on node0 ended: the loss is nan"}


def test_a_bug_ends_all_ranks(runs: Runs) -> None:
    outcome = runs.outcome("one has a bug")
    assert set(outcome.statuses.values()) == {1}
    assert "Traceback" in outcome.logs[3]
    assert "rank 3 on node1 ended: ValueError: invalid literal for int() with base 10: 'x'" in outcome.logs[0]


def test_a_rank_that_is_asked_to_stop_stops_the_job(runs: Runs) -> None:
    outcome = runs.outcome("one is asked to stop")
    assert set(outcome.statuses.values()) == {75}
    assert "Interrupted: rank 1 on node0 ended: stopped by a signal" in outcome.logs[0]


def test_nobody_waits_for_a_rank_that_left(runs: Runs) -> None:
    outcome = runs.outcome("one leaves early")
    assert outcome.statuses == {0: 77, 1: 77, 2: 77, 3: 0}
    assert "rank 3 ended while others wait" in outcome.logs[0]


def test_settings() -> None:
    environment = {"MASTER_ADDR": "node0", "MASTER_PORT": "23456", "CWDPO_JOIN_TIMEOUT": "7.5"}
    meeting = Meeting.from_environment(Rank(world_size=2), environment)
    assert (meeting.place, meeting.join, meeting.collective, meeting.silent) == ("node0:23456", 7.5, 600, 60)
    assert meeting.node == socket.gethostname()
    for wrong in ("soon", "0", "-1", "nan"):
        with pytest.raises(ConfigError, match=r"CWDPO_SILENT_TIMEOUT: '.*' is not a positive number of seconds"):
            seconds({"CWDPO_SILENT_TIMEOUT": wrong}, "CWDPO_SILENT_TIMEOUT", 60)
