"""A training of two ranks that loses one: the other ends with status 77, and the attempt says who is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import harness
import pytest
from harness import POLICY, Micro

from cwdpo.base.store import Artefact, Store


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + harness.LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def events(artefact: Artefact) -> str:
    path = artefact.attempts / "1" / "events.jsonl"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("lost", [1, 0])
def test_the_attempt_says_who_is_gone(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    monkeypatch.setenv("CWDPO_SILENT_TIMEOUT", "15")
    spec = {"architecture": {}, "pretraining": {"steps": 100_000, "batch_size": 16}, "policy": POLICY}
    node = harness.node("pretrain", spec, {"pairs": micro.pairs, "images": micro.images}, micro_batch=8)
    artefact = node.artefact(Store(tmp_path))
    job = harness.start(tmp_path, [node], ranks=2)
    try:
        wait_for(lambda: events(artefact).count('"event": "step"') > 10)
        os.kill(job.processes[lost].pid, signal.SIGSTOP)
        wait_for(lambda: job.processes[1 - lost].poll() is not None)
        assert job.processes[1 - lost].returncode == 77
    finally:
        job.end(grace=0)
    result = artefact.result(1)
    assert result
    assert result["kind"] == "PeersLost"
    assert result["message"].startswith(f"rank {lost} on ")
    assert "is gone" in result["message"]
    assert lost == 0 or "at pretrain step " in result["message"]
    log = (artefact.attempts / "1" / ("stderr" if lost else "stderr.1")).read_text()
    assert f"ERROR rank {lost} on " in log
