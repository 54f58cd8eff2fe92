"""Kill it at any line: what a grid becomes when its processes die at every write point and at random moments.

The kills come from `faults/sitecustomize.py`, which the subprocesses load; the code under test knows nothing of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from campaign import IN_FULL
from commands import (
    MICRO,
    REPO,
    command,
    copy_home,
    cwdpo,
    environment,
    folder,
    forget,
    manifests,
    node_of,
    plan_of,
    report,
    states,
    submit,
    succeed,
)

from cwdpo.base.store import Store
from cwdpo.jobs.events import events
from cwdpo.jobs.local import GRACE_SECONDS

FAULTS = Path(__file__).resolve().parent / "faults"

# name -> (call that makes it visible, path), in the order of the data path
WRITE_POINTS = {
    "plan": ("replace", r"/grids/micro/plan\.json$"),
    "job file": ("replace", r"/submissions/.*/job-0001\.json$"),
    "identity card": ("replace", r"/stage\.json$"),
    "code of unfinished work": ("replace", r"/partial/sources\.json$"),
    "attempts folder": ("mkdir", r"/attempts$"),
    "claim": ("rename", r"/attempts/\d+$"),
    "events": ("open", r"/events\.jsonl$"),
    "world aside": ("replace", r"/attempts/\d+/\.out\.[0-9a-f]+\.tmp$"),
    "world": ("replace", r"/attempts/\d+/out$"),
    "records": ("replace", r"/out/records\.jsonl$"),
    "summary of pairs": ("replace", r"/store/pairs-[^/]+/.*/out/summary\.json$"),
    "negatives": ("replace", r"/out/negatives\.jsonl$"),
    "summary of negatives": ("replace", r"/store/negatives-[^/]+/.*/out/summary\.json$"),
    "manifest": ("replace", r"/\.DONE\.[0-9a-f]+\.tmp$"),
    "commit": ("link", r"/DONE$"),
    "initial model": ("replace", r"/store/pretrain-[^/]+/partial/initial$"),
    "inside a DeepSpeed checkpoint": ("open", r"/checkpoints/\.step-\d+\.1\.tmp/latest$"),
    "DeepSpeed checkpoint": ("replace", r"/store/pretrain-[^/]+/partial/checkpoints/step-\d+$"),
    "model folder": ("open", r"/store/pretrain-[^/]+/attempts/\d+/out/config\.json$"),
    "inside an adapter checkpoint": ("replace", r"/store/stage\d-.*/checkpoints/\.step-[^/]*\.tmp/state\.json$"),
    "adapter checkpoint": ("replace", r"/store/stage\d-.*/checkpoints/step-\d+$"),
    "adapter folder": ("open", r"/store/stage\d-.*/out/adapter_config\.json$"),
    "reference block": ("replace", r"/store/reference-[^/]+/partial/blocks/\d+\.jsonl$"),
    "reference": ("replace", r"/out/reference\.jsonl$"),
    "second block of answers": ("replace", r"/store/generate-[^/]+/partial/blocks/000001\.jsonl$"),
    "generations": ("replace", r"/out/generations\.jsonl$"),
    "settings": ("replace", r"/out/settings\.json$"),
    "scores per item": ("replace", r"/out/items\.parquet$"),
    "scores": ("replace", r"/out/scores\.json$"),
}
WHO = ("worker", "cli", "all")

EVERY = 1 if IN_FULL else 5
"""Which write points, and with 1 both sides of them."""

RANDOM_KILLS = 10 if IN_FULL else 1


def numbers(home: Path) -> Any:
    """The tables without the commits that results name."""
    tables = report(home)
    for entry in (entry for table in tables for row in table["rows"] for entry in row["entries"].values()):
        entry["results"] = [{**result, "code": ""} for result in entry["results"]]
    return tables


class Faults:
    """A folder that tells subprocesses where to die, and what became of it."""

    def __init__(self, folder: Path, points: dict[str, tuple[str, str]]) -> None:
        self.folder = folder
        (folder / "fired").mkdir(parents=True)
        self.points: list[dict[str, Any]] = [
            {"name": f"{when} {name}", "call": call, "target": target, "when": when}
            for number, (name, (call, target)) in enumerate(points.items())
            for when in _sides(number, len(points))
            if number % EVERY == 0
        ]
        for number, point in enumerate(self.points):
            point["kill"] = WHO[number % len(WHO)]
        (folder / "points.json").write_text(json.dumps(self.points))
        self.environment = {"CWDPO_FAULTS": str(folder), "PYTHONPATH": f"{FAULTS}{os.pathsep}{REPO}"}

    @property
    def names(self) -> set[str]:
        """Every point."""
        return {point["name"] for point in self.points}

    @property
    def fired(self) -> set[str]:
        """Points at which a process died."""
        return {path.name for path in (self.folder / "fired").iterdir()}

    def commits(self) -> Counter[str]:
        """Stage folder -> how often a DONE was linked there."""
        return Counter(Path(line).parent.name for line in (self.folder / "done.log").read_text().splitlines())


def _sides(number: int, count: int) -> tuple[str, ...]:
    """When a process dies at a point: before it, after it, or both."""
    both = ("before", "after")
    return both if IN_FULL or count == 1 else both[number % 2 :][:1]


def until_done(home: Path, faults: Faults, *arguments: object) -> int:
    """Give the same command again and again until it ends well; returns how often it was needed."""
    for number in range(1, 2 * len(faults.points) + 2):
        done = submit(home, *arguments, **faults.environment)
        if done.returncode == 0:
            return number
        assert done.returncode in (1, -signal.SIGKILL), f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
    raise AssertionError("the campaign does not come to an end")


def start(home: Path, *arguments: object, **more: str) -> subprocess.Popen[str]:
    """A submit that goes on while the test does something to it."""
    return subprocess.Popen(
        command("submit", "-g", MICRO, "--home", home, "-c", "local", *arguments),
        env=environment(**more), cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    """Processes that `pid` started."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def workers_of(pid: int) -> list[int]:
    """Those of them that compute."""
    found = []
    for child in children(pid):
        with suppress(OSError):  # ended meanwhile
            if b"cwdpo.jobs.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def is_asked(pid: int) -> bool:
    """Whether SIGTERM waits for a stopped process."""
    status = Path(f"/proc/{pid}/status").read_text()
    waiting = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(waiting.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def marked(token: str) -> list[int]:
    """Living processes with `token` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if token.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def strike(home: Path, delay: float, everything: bool, faults: Faults) -> bool:
    """Start a submit and kill it after `delay` seconds, alone or with every worker; False if it was over by then."""
    running = start(home, **faults.environment)
    try:
        running.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        for pid in marked(str(faults.folder)) if everything else [running.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.communicate()
        return running.returncode == -signal.SIGKILL
    assert running.returncode == 0
    return False


@pytest.mark.timeout(3600)
def test_killed_at_write_points_and_at_random_moments(finished: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    faults = Faults(tmp_path / "faults", WRITE_POINTS)
    home = tmp_path / "home"

    # one seed: every write point
    submissions = until_done(home, faults, "-s", "seeds=[0]")
    assert faults.fired == faults.names
    points_done = time.monotonic()

    # the other seed: at random moments
    generator = random.Random(20)
    fired, expected = 0, Counter(states(home).keys())
    while fired < RANDOM_KILLS:
        if strike(home, generator.uniform(0.5, 4.0), bool(fired % 2), faults):
            fired += 1
        else:  # a fast machine: nothing was left to interrupt
            forget(home, node_of(home, "pretrain", "base/0"))
            expected[folder(home, node_of(home, "pretrain", "base/0")).name] += 1
    succeed(submit(home, **faults.environment))

    assert manifests(home) == manifests(finished), "adapters, answers and scores have other bytes"
    assert numbers(home) == numbers(finished)
    assert set(states(home).values()) == {"done"}
    assert faults.commits() == expected
    assert not list(home.glob("store/*/partial")), "checkpoints were left behind"
    print(
        f"\n{len(faults.fired)} kills at write points in {submissions} submissions ({points_done - began:.0f} s),"
        f" {fired} at random moments ({time.monotonic() - points_done:.0f} s)"
    )


def test_killed_while_taking_back_a_damaged_artefact(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    node = node_of(home, "negatives", "dpo/0")
    (node.artefact(Store(home)).files / "negatives.jsonl").unlink()
    faults = Faults(tmp_path / "faults", {"retirement": ("replace", r"/DONE\.retired$")})

    assert until_done(home, faults) == 3
    assert faults.fired == faults.names
    assert manifests(home) == manifests(finished)
    assert faults.commits() == {folder(home, node).name: 1}


def test_killed_while_recording_a_failure(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    faults = Faults(tmp_path / "faults", {"failure": ("replace", r"/result\.json$")})
    nothing_moves = "stage2.negatives={source: perturb, kinds: [action]}"  # no action in a world of shapes: it fails
    plan = plan_of(home, nothing_moves)
    node = next(node for node in plan.nodes if node.stage.name == "negatives" and not node.artefact(plan.store).done())

    found = []
    for _ in range(3):
        assert submit(home, "-s", nothing_moves, **faults.environment).returncode in (1, -signal.SIGKILL)
        found.append(node.artefact(plan.store).state())
    assert faults.fired == faults.names
    assert found == ["interrupted", "failed", "failed"]
    assert manifests(home) == manifests(finished)


def test_ctrl_c_saves_and_leaves_no_process(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    node = node_of(home, "pretrain", "base/0")
    forget(home, node)
    running = start(home, CWDPO_TEST_TOKEN=str(tmp_path))
    steps_of = folder(home, node) / "attempts/1/events.jsonl"
    wait_for(lambda: steps_of.exists() and '"event": "step"' in steps_of.read_text())  # now it saves soon
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=900)

    assert running.returncode == 130
    assert "interrupted; the same command goes on where it stopped" in complaint
    assert "Traceback" not in complaint
    assert marked(str(tmp_path)) == []
    assert states(home)[folder(home, node).name] == "interrupted"
    saved = [path.name for path in (node.artefact(Store(home)).partial / "checkpoints").iterdir()]
    assert saved, "nothing was saved"

    succeed(submit(home))
    steps = [row["step"] for row in events(folder(home, node) / "attempts/2/events.jsonl") if row["event"] == "resumed"]
    assert f"step-{steps[0]:06d}" == max(saved)
    assert manifests(home) == manifests(finished)


def test_second_ctrl_c_does_not_wait(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    forget(home, node_of(home, "pretrain", "base/0"))
    running = start(home, CWDPO_TEST_TOKEN=str(tmp_path))
    wait_for(lambda: workers_of(running.pid))
    time.sleep(1.0)  # submit has to note that it started one
    for worker in workers_of(running.pid):
        os.kill(worker, signal.SIGSTOP)  # it cannot answer the first one
    running.send_signal(signal.SIGINT)
    wait_for(lambda: all(is_asked(worker) for worker in workers_of(running.pid)))
    asked = time.monotonic()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=900)

    assert running.returncode == 130
    assert time.monotonic() - asked < GRACE_SECONDS / 2
    assert marked(str(tmp_path)) == []


def test_ctrl_c_on_a_terminal(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    forget(home, node_of(home, "pretrain", "base/0"))
    terminal, inside = os.openpty()
    running = subprocess.Popen(
        command("submit", "-g", MICRO, "--home", home, "-c", "local"),
        env=environment(CWDPO_TEST_TOKEN=str(tmp_path), TERM="xterm"), cwd=REPO, stdout=inside, stderr=inside,
    )  # fmt: skip
    os.close(inside)
    wait_for(lambda: children(running.pid))
    running.send_signal(signal.SIGINT)
    shown = _everything(terminal)

    assert running.wait(timeout=900) == 130
    assert "goes on where it stopped" in shown
    assert "Traceback" not in shown
    assert marked(str(tmp_path)) == []


def _everything(descriptor: int) -> str:
    """What is written to a terminal until its last writer is gone."""
    text = b""
    with suppress(OSError):  # EIO is the end
        while part := os.read(descriptor, 65536):
            text += part
    os.close(descriptor)
    return text.decode(errors="replace")


def test_two_submits_at_once_compute_nothing_twice(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    wired = plan_of(home).wired
    again = {node.id: node for cell in ("sft/0", "cw_dpo/0") for node in wired[cell].nodes()}
    forget(home, *[node for node in again.values() if node.stage.name != "pretrain"])
    missing = [name for name, state in states(home).items() if state == "missing"]
    assert len(missing) > 10
    faults = Faults(tmp_path / "faults", {})

    both = [start(home, **faults.environment) for _ in range(2)]
    for running in both:
        shown, complaint = running.communicate(timeout=900)
        assert running.returncode == 0, f"{shown}\n{complaint}"
        assert "FAILED" not in shown
    assert faults.commits() == dict.fromkeys(missing, 1)
    for name in missing:
        assert _results(home, name) == ["published"], name
    assert manifests(home) == manifests(finished)


def _results(home: Path, name: str) -> Sequence[str]:
    """What became of the attempts at a stage that began to compute."""
    done = json.loads((home / "store" / name / "DONE").read_text())
    found = []
    for attempt in sorted((home / "store" / name / "attempts").glob("[0-9]*")):
        if any(row["event"] == "started" for row in events(attempt / "events.jsonl")):
            found.append("published" if str(done["attempt"]) == attempt.name else "in vain")
    return found


def test_a_finished_grid_is_left_alone(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("store/**/*")}
    shown = succeed(submit(finished))
    assert "34 of 34 stages done (0 computed now)" in shown
    assert before == {path: path.stat().st_mtime_ns for path in finished.glob("store/**/*")}


def test_status_of_a_finished_grid(finished: Path) -> None:
    shown = json.loads(succeed(cwdpo("status", "-g", MICRO, "--home", finished, "--json")))
    assert {state for cell in shown["cells"] for state in cell["stages"].values()} == {"done"}
    assert shown["failures"] == {}
