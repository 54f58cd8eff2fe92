"""Fixtures shared by all tests: a micro world and a tiny model, made once a session by the real stages."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import hypothesis  # noqa: F401  # now: it asks the garbage collector, which knows nothing of what a command froze
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import commands
import harness
import workers
from harness import Micro

pytest_plugins = ["slurm_fixtures"]

STARTED = time.monotonic()


def pytest_configure() -> None:
    """What this process and all that it starts shall find, before anything imports torch."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background: commands here get Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"  # workers stand side by side; jobs say themselves how many threads they take
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # nothing here is compiled, and ranks start a second sooner without


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    """World, records, negatives and a pretrained tiny model, each computed by its own stage."""
    return harness.read_micro(workers.made_once(tmp_path_factory, "micro", harness.make_micro))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of an undisturbed run of the micro grid through the command line; who changes it takes a copy.

    Each worker has its own: commands write beside the store while others copy.
    """
    made = workers.made_once(tmp_path_factory, "micro-grid", lambda to: commands.succeed(commands.submit(to / "home")))
    return commands.copy_home(made / "home", tmp_path_factory.mktemp("finished") / "home")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out groups of tests in the order in which they were collected."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return workers.group(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With workers, what takes long comes first; alone, everything stays in its order."""
    if workers.count() > 1:
        items.sort(key=lambda item: workers.place(item.nodeid))


BUDGET_SECONDS = {
    "slurm": 1200, "jobs": 1200, "container": 720, "train": 600, "evaluate": 240, "report": 180, "cli": 180,
    "docs": 150, "metrics": 120, "model": 150, "perf": 150, "negatives": 180,
    "dynamics": 300,
}  # fmt: skip
"""Seconds that a folder of tests may take of all workers together; others 60. Not asserted: machines are noisy."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Seconds of all workers used by each suite, set-up included, beside its budget; and those of the clock."""
    used: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                parts = report.nodeid.partition("::")[0].split("/")
                suite = parts[1] if len(parts) > 2 else "top level"
                used[suite] = used.get(suite, 0.0) + report.duration
    terminalreporter.section("seconds by suite (budget)")
    for suite, seconds in sorted(used.items(), key=lambda item: -item[1]):
        budget = BUDGET_SECONDS.get(suite, 60)
        terminalreporter.line(f"{suite:12} {seconds:6.0f} ({budget}){'  OVER' if seconds > budget else ''}")
    terminalreporter.line(f"{'all workers':12} {sum(used.values()):6.0f}")
    terminalreporter.line(f"{'by the clock':12} {time.monotonic() - STARTED:6.0f} (1800)")
