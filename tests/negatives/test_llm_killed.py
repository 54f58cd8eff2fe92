"""The stage as a real process: killed, asked to stop and gone on with, no call is made twice and no key is written."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from endpoints import Fault, Standin, ask, record, serving
from harness import compute, finish, node, start
from test_llm_asking import KEY, rewrites

from cwdpo.base.files import read_jsonl
from cwdpo.data.records import write_records
from cwdpo.graph import Node

COUNT = 12
RECORDS = [record(number, f"A red ball {number}.") for number in range(COUNT)]


@pytest.fixture
def standin() -> Iterator[Standin]:
    with serving(Standin(rewrites, always=lambda body: Fault(slow=0.1))) as server:
        yield server


def stage(standin: Standin, pairs: Path) -> Node:
    write_records(pairs / "records.jsonl", RECORDS)
    endpoint = {"model": "m", "base_url": standin.url, "key": "CWDPO_TEST_KEY", "concurrency": 1}
    part = {"task": "rewrite", "endpoint": endpoint, "kinds": ["attribute"], "meanings": "", "count": 1, "longest": 2}
    return node("llm", {"portion": "stage1", "part": part}, {"pairs": pairs})


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed_gives_the_same_and_asks_nothing_twice(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("CWDPO_TEST_KEY", KEY)  # as a job's environment holds it
    one = stage(standin, tmp_path / "pairs")
    undisturbed = ask(tmp_path / "here", one.spec.part, RECORDS).out  # type: ignore[attr-defined]
    standin.asked.clear()

    home = tmp_path / "home"
    job = start(home, [one])
    wait(lambda: len(standin.asked) >= 4)
    os.killpg(job.processes[0].pid, number)
    assert finish(job) == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    (found,) = compute(home, [one])
    assert (found / "replies.jsonl").read_bytes() == (undisturbed / "replies.jsonl").read_bytes()
    assert len(standin.asked) <= COUNT + (number == signal.SIGKILL)  # the call that was under way
    assert len(list(read_jsonl(found / "replies.jsonl"))) == COUNT

    holds_key = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not holds_key
