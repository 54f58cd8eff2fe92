"""Commands of Slurm that fail: fake ones, shell scripts on PATH that say what the true ones say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cwdpo.jobs.slurm import commands
from cwdpo.jobs.slurm.commands import SlurmDown, SlurmError

AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
LOST = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"

Fake = Callable[..., Path]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited for; nobody waits."""
    found: list[float] = []
    monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """`fake("sbatch", text)` puts a script on PATH; returns the file with a line for each call."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, text: str) -> Path:
        log = tmp_path / f"{name}.log"
        path = tmp_path / name
        path.write_text(f'#!/bin/bash\necho "$*" >>{log}\ncalls=$(wc -l <{log})\n{text}\n')
        path.chmod(0o755)
        return log

    return make


def fails(complaint: str, times: int = 99, then: str = "echo 12") -> str:
    return f'(( calls > {times} )) && {{ {then}; exit; }}\necho "{complaint}" >&2\nexit 1'


def test_trouble_with_the_controller_is_waited_out(fake: Fake, waits: list[float]) -> None:
    log = fake("sbatch", fails(AWAY, times=3))
    said: list[str] = []
    assert commands.run(["sbatch", "--parsable", "x"], say=said.append) == "12\n"
    assert waits == [2.0, 4.0, 8.0]
    assert log.read_text().splitlines() == ["--parsable x"] * 4
    assert said[0] == (
        "sbatch: Batch job submission failed: Unable to contact slurm controller (connect failure); trying again in 2 s"
    )


def test_a_controller_that_stays_away_is_named(fake: Fake, waits: list[float]) -> None:
    log = fake("squeue", fails("slurm_load_jobs error: Unable to contact slurm controller (connect failure)"))
    with pytest.raises(SlurmDown, match=r"Unable to contact .* \(5 tries\)\. Nothing is lost") as raised:
        commands.queue()
    assert raised.value.exit_code == 6
    assert waits == [2.0, 4.0, 8.0, 16.0]
    assert len(log.read_text().splitlines()) == 5


def test_a_refusal_is_not_tried_again(fake: Fake, waits: list[float]) -> None:
    log = fake("sbatch", fails("sbatch: error: Batch job submission failed: Invalid partition name specified"))
    with pytest.raises(SlurmError, match=r"^sbatch: Batch job submission failed: Invalid partition") as raised:
        commands.run(["sbatch"])
    assert not isinstance(raised.value, SlurmDown)
    assert waits == []
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "complaint",
    [
        AWAY,
        LOST,
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "slurm_load_jobs error: Zero Bytes were transmitted or received",
        "scontrol: error: slurm_receive_msg: Socket timed out on send/recv operation",
        "squeue: error: Munge decode failed: Protocol authentication error",
        "slurm_update error: Unable to contact slurm controller (connect failure)",
    ],
)
def test_what_passes(complaint: str) -> None:
    assert commands.TRANSIENT.search(complaint)


@pytest.mark.parametrize(
    "complaint",
    [
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
        "sbatch: error: Batch job submission failed: Invalid job array specification",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "slurm_update error: Job is no longer pending execution",
    ],
)
def test_what_does_not_pass(complaint: str) -> None:
    assert not commands.TRANSIENT.search(complaint)


def test_an_answer_that_was_lost_is_looked_for_before_trying_again(fake: Fake, waits: list[float]) -> None:
    log = fake("sbatch", fails(LOST))
    assert commands.run(["sbatch"], settled=lambda: "77") == "77"
    assert len(log.read_text().splitlines()) == 1


def test_a_command_that_hangs_counts_as_no_answer(
    fake: Fake, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "COMMAND_SECONDS", 0.2)
    fake("squeue", "(( calls > 1 )) || exec sleep 5")
    assert commands.queue() == []
    assert waits == [2.0]


def test_a_command_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmError, match="squeue: not on the PATH"):
        commands.queue()


def test_the_queue_is_read_element_by_element(fake: Fake) -> None:
    log = fake("squeue", 'echo "7|3|9|RUNNING|None|node1|2026-01-01T00:00:00|a|b"; echo "8|N/A|8|PENDING|x||N/A|side"')
    first, second = commands.queue()
    assert (first.array, first.index, first.job, first.name) == ("7", 3, "9", "a|b")
    assert (second.index, second.state) == (-1, "PENDING")
    assert log.read_text().startswith(f"--user {os.getuid()} --array")


def test_expected_starts_are_asked_for_patiently(fake: Fake, waits: list[float]) -> None:
    fake("sbatch", fails(f"allocation failure: {AWAY}", times=1, then='echo "sbatch: Job 3 to start at noon" >&2'))
    assert commands.estimated_start("x.sh") == "Job 3 to start at noon"
    assert waits == [2.0]


def test_no_accounting_is_no_answer(fake: Fake, waits: list[float]) -> None:
    fake("sacct", fails("Slurm accounting storage is disabled"))
    assert commands.accounting(["1"], "now") is None
    assert waits == []


def test_many_jobs_are_cancelled_in_several_commands(fake: Fake) -> None:
    log = fake("scancel", "")
    commands.cancel([])
    commands.cancel([str(number) for number in range(1200)])
    assert [len(line.split()) for line in log.read_text().splitlines()] == [501, 501, 201]


def test_an_outer_allocation_does_not_shape_jobs(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SLURM_CPUS_PER_TASK", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    fake("sbatch", "env | grep -E '^(SLURM|SBATCH)_' | sort")
    assert commands.run(["sbatch"]) == "SLURM_CONF=x\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [("3", [3]), ("[4-6,9]", [4, 5, 6, 9]), ("[0-7%2]", list(range(8))), ("[1-5:2]", [1, 3, 5]), ("", [-1])],
)
def test_names_of_elements_in_accounting(text: str, found: list[int]) -> None:
    assert commands.indices(text) == found
