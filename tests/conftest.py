"""Fixtures shared by all tests: a micro world and a tiny model, made once a session by the real stages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import commands
import harness
from harness import PERTURB, POLICY, WORLD, Micro


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    """World, records, negatives and a pretrained tiny model, each computed by its own stage."""
    home = tmp_path_factory.mktemp("micro")
    (images,) = harness.compute(home, [harness.node("world", WORLD, {})])
    pairs_spec = {"data": {"source": "demo_world", "world": WORLD}}
    (pairs,) = harness.compute(home, [harness.node("pairs", pairs_spec, {"data": images})])
    negatives = [
        harness.node("negatives", {"negatives": PERTURB, "portion": portion}, {"pairs": pairs})
        for portion in ("stage1", "stage2")
    ]
    negatives1, negatives2 = harness.compute(home, negatives)
    pretrain = {"architecture": {}, "pretraining": {"steps": 12, "batch_size": 16}, "policy": POLICY}
    (model,) = harness.compute(home, [harness.node("pretrain", pretrain, {"pairs": pairs, "images": images})])
    return Micro(images, pairs, negatives1, negatives2, model)


BUDGET_SECONDS = {"slurm": 780, "jobs": 540, "train": 420, "evaluate": 240, "docs": 150, "report": 150, "cli": 120}
"""Seconds a folder of tests may take on two cores; others 60. Printed, not asserted: machines are noisy."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Seconds used by each suite, set-up included, beside its budget."""
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
    terminalreporter.line(f"{'total':12} {sum(used.values()):6.0f} (1800)")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of an undisturbed run of the micro grid through the command line; who changes it takes a copy."""
    home = tmp_path_factory.mktemp("finished") / "home"
    commands.succeed(commands.submit(home))
    return home
