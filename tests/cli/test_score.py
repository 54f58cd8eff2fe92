"""`cwdpo score --force` takes back what is there, damaged or whole; that it is then computed is tested elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from report.made_up_grids import made_up, score
from typer.testing import CliRunner

from cwdpo.base.errors import NotAvailable
from cwdpo.base.store import Artefact
from cwdpo.cli.main import app
from cwdpo.jobs.local import LocalExecutor, Outcome
from cwdpo.jobs.plan import Plan
from cwdpo.metrics import java


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A finished grid in which nothing is computed, on a machine without Java."""

    def find_java() -> None:
        raise NotAvailable("Java not found")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the command sets it, and this puts it back
    monkeypatch.setattr(LocalExecutor, "run", lambda self: Outcome([], [], []))
    monkeypatch.setattr(java, "find_java", find_java)
    return made_up(tmp_path, seeds=1)


def force(plan: Plan) -> tuple[Artefact, BaseException | None]:
    """The score that was to be computed again, and how the command ended."""
    home = plan.store.home
    line = ["score", "-g", str(home.parent / "small.yaml"), "--home", str(home), "--force", "dpo/0"]
    return score(plan, "dpo/0").artefact(plan.store), CliRunner().invoke(app, line).exception


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"metrics": []}', '{"metrics": {"cider": null}}'], ids=lambda text: str(text)
)
def test_a_damaged_score_is_taken_back(plan: Plan, content: str | None) -> None:
    path = score(plan, "dpo/0").artefact(plan.store).files / "scores.json"
    path.unlink() if content is None else path.write_text(content)
    one, end = force(plan)
    assert end is None or isinstance(end, SystemExit), end
    assert one.done() is None
    assert (one.attempts / "1" / "DONE.retired").exists()


@pytest.mark.parametrize("content", ["", "[]"])
def test_a_score_that_no_longer_says_that_it_is_done_is_taken_back(plan: Plan, content: str) -> None:
    (score(plan, "dpo/0").artefact(plan.store).folder / "DONE").write_text(content)
    one, end = force(plan)
    assert end is None or isinstance(end, SystemExit), end
    assert one.done() is None


def test_a_whole_score_is_not_given_up_for_one_with_fewer_values(plan: Plan) -> None:
    one, end = force(plan)
    assert isinstance(end, NotAvailable)
    assert one.done()
