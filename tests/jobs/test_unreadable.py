"""Files that no digest guards: whatever they hold, a grid is told as far as it is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from report.made_up_grids import made_up, restored
from typer.testing import CliRunner

from cwdpo.base.errors import StoreError
from cwdpo.base.store import Artefact
from cwdpo.cli.main import app
from cwdpo.cli.slurm import _wanted_before
from cwdpo.graph import Node
from cwdpo.jobs.clusters import SlurmCluster, load_cluster
from cwdpo.jobs.events import curve, last_progress, pulse
from cwdpo.jobs.forecast.past import past_of
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.slurm.desired import Desired, path_of, wanted_by_others
from cwdpo.report import gathered
from cwdpo.report.provenance import LAST_MOMENT, Origins, Step
from cwdpo.report.tracking.curves import of_points, trainings
from cwdpo.report.tracking.records import Records

CELL = "cw_dpo/0"
HUGE = "9" * 400
"""An integer that no float holds."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return made_up(tmp_path_factory.mktemp("grid"), seeds=2)


@pytest.fixture
def plan(whole: Plan, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """Where there is no Slurm."""
    monkeypatch.setenv("PATH", "/nowhere")
    with restored(whole):
        yield whole
    shutil.rmtree(whole.store.home / "slurm", ignore_errors=True)


def node_of(plan: Plan, stage: str) -> Node:
    return [node for node in plan.wired[CELL].nodes() if node.stage.name == stage][-1]


def stage2(plan: Plan) -> Artefact:
    return node_of(plan, "stage2").artefact(plan.store)


def run(plan: Plan, command: str, *arguments: str) -> Result:
    home = plan.store.home
    line = [command, *arguments, "-g", str(home.parent / "small.yaml"), "--home", str(home)]
    return CliRunner().invoke(app, line)


def told(plan: Plan, command: str, *arguments: str) -> Result:
    """What a command that ends without a fault of its own says."""
    done = run(plan, command, *arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


# ---- what was asked of Slurm


def submitted(plan: Plan) -> Desired:
    cluster = load_cluster("default")
    assert isinstance(cluster, SlurmCluster)
    desired = Desired(cluster, Path("code"), frozenset(node.id for node in plan.nodes))
    desired.write(plan)
    return desired


WRONG = {
    "empty": "",
    "a list": "[]",
    "no key": "{}",
    "no profile": '{"cluster": {}}',
    "a number": '{"cluster": 5, "code": "x", "nodes": []}',
}


def test_what_was_written_down_is_read_back(plan: Plan) -> None:
    assert submitted(plan) == Desired.read(plan)


@pytest.mark.parametrize("what", [*WRONG, "a text for a list"])
def test_what_was_asked_for_is_read_whole_or_said_to_be_damaged(plan: Plan, what: str) -> None:
    submitted(plan)
    path = path_of(plan)
    path.write_text(WRONG.get(what) or json.dumps({**json.loads(path.read_text()), "nodes": "x"}) * (what not in WRONG))
    with pytest.raises(StoreError) as fault:
        Desired.read(plan)
    assert str(fault.value).startswith(f"{path} ")
    assert str(fault.value).endswith("; `cwdpo submit` of grid 'small' to its cluster writes it anew")
    assert _wanted_before(plan) == frozenset(), "as it says"


LOOKS = [("report", "--why", "cw_dpo/cider"), ("status",), ("why", CELL)]


@pytest.mark.parametrize(
    ("command", "what"), [*((("report",), what) for what in WRONG), *((look, "no key") for look in LOOKS)]
)
def test_a_grid_is_told_without_slurm_where_that_cannot_be_read(
    plan: Plan, command: tuple[str, ...], what: str
) -> None:
    expected = told(plan, *command).stdout
    path_of(plan).parent.mkdir(parents=True, exist_ok=True)
    path_of(plan).write_text(WRONG[what])
    for _ in range(2):
        found = told(plan, *command)
        assert found.stdout == expected
        assert found.stderr.count(str(path_of(plan))) == 1
        assert found.stderr.endswith("warning: going on without what Slurm knows\n")


def test_what_another_grid_asked_for_and_nobody_can_read_stops_who_would_take_it_away(plan: Plan) -> None:
    submitted(plan)
    other = plan.store.home / "grids" / "other" / "slurm.json"
    other.parent.mkdir()
    other.write_text("{}")
    with pytest.raises(StoreError, match="grid 'other'"):
        wanted_by_others(plan)
    with pytest.raises(StoreError, match="grid 'other'"):
        CliRunner().invoke(app, ["prune", "--home", str(plan.store.home)], catch_exceptions=False)


@pytest.mark.parametrize("content", ["", "[5]"])
@pytest.mark.parametrize("name", ["intent.json", "submitted.json", "settled.json"])
def test_a_damaged_ledger_is_said_and_the_store_is_told(plan: Plan, name: str, content: str) -> None:
    submitted(plan)
    (stage2(plan).folder / "DONE").unlink()
    nodes = [{"stage": "stage2", "id": node_of(plan, "stage2").id}]
    folder = plan.store.home.resolve() / "slurm" / "arrays" / "cwdpo-1"
    folder.mkdir(parents=True)
    elements = [{"index": 0, "label": "x", "nodes": nodes, "parents": []}]
    ledger = {
        "intent.json": {"created": 1.0, "code": "code", "elements": elements},
        "submitted.json": {"job_id": "5"},
        "settled.json": {"0": {"state": "failed", "kind": "memory", "message": "out of memory"}},
    }
    for file, entry in ledger.items():
        (folder / file).write_text(json.dumps(entry))
    assert "out of memory" in told(plan, "status").stdout
    (folder / name).write_text(content)
    for command in ("report", "status"):
        found = told(plan, command)
        assert found.stderr.count(f"{folder / name} is damaged: ") == 1
        assert "out of memory" not in found.stdout


# ---- curves


def write_events(plan: Plan, *rows: str) -> Artefact:
    one = stage2(plan)
    (one.attempts / "1" / "events.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return one


def step(loss: str = "1.0", **more: str) -> str:
    """A row as text: JSON has no form for some of the values."""
    row = {"event": '"step"', "step": "1", "time": "1.0", "total": "2", "loss": loss, **more}
    return "{" + ", ".join(f'"{key}": {value}' for key, value in row.items()) + "}"


BAD = ['"x"', "[1]", "true", "1e999", "Infinity", "NaN", HUGE, "1e308", "null"]


@pytest.mark.parametrize("value", BAD)
def test_only_numbers_are_points_of_a_curve(plan: Plan, value: str) -> None:
    one = write_events(plan, step(), step(value, step="2"), step(step="3", time=value, total=value, seconds=value))
    first, second, third = curve(one)
    assert first == {"step": 1, "time": 1.0, "total": 2, "loss": 1.0}
    number = value in ("1e999", "Infinity", "NaN", HUGE, "1e308", "null")
    assert second == {"step": 2, "time": 1.0, "total": 2, **({"loss": None} if number else {})}
    assert third.get("seconds") is third.get("time") is third.get("total") is None


@pytest.mark.parametrize("value", [*BAD, "-5", "1.5", "9223372036854775807"])
def test_a_step_is_a_whole_number(plan: Plan, value: str) -> None:
    assert [point["step"] for point in curve(write_events(plan, step(), step(step=value)))] == [1]


def test_pages_are_written_whatever_a_curve_holds(plan: Plan) -> None:
    bad = (step(value, step=str(place), total=value, time=value) for place, value in enumerate(BAD, 3))
    write_events(plan, step("-1e300"), *bad, step("1e300", step="2"))
    told(plan, "report", "--format", "html")
    assert "Training loss" in (plan.folder / "html" / "curves.html").read_text()


def test_figures_leave_out_what_the_store_wrote_as_null(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    write_events(plan, step(), step("null", step="2"))
    for name in ("_influence", "_top"):  # what they read is not there
        monkeypatch.setattr(gathered, name, lambda *arguments: "not measured")
    assert gathered._run(plan, CELL, "stage2", []).loss == {1: 1.0}


@pytest.mark.parametrize("value", BAD)
def test_progress_is_told_by_rows_that_can_be_read(plan: Plan, value: str) -> None:
    one = write_events(plan, step(), step(step="2", total=value), step(step="2", time=value))
    assert last_progress(one) == (2, 2)
    found = pulse(one)
    assert found
    assert (found.started, found.done, found.total) == (1.0, 1, 2)
    assert last_progress(write_events(plan, step(total=value))) is None
    assert pulse(one) is None
    past_of(one)


@pytest.mark.parametrize("value", BAD)
def test_what_does_not_say_when_it_was_is_not_tracked(plan: Plan, value: str) -> None:
    write_events(plan, step(), step(step="2", time=value), step(step="3", time="2.0"))
    points = trainings(plan, plan.wired[CELL])["stage2"]
    assert [(one.step, one.when) for one in of_points("stage2", points)] == [(1, 1000), (3, 2000)]


# ---- attempts


def step_of(plan: Plan) -> Step:
    return Origins(plan, plan.states()).of(CELL).step(stage2(plan).folder.name)


@pytest.mark.parametrize("value", ["1e18", "-1e18", "1e999", "NaN", HUGE, str(LAST_MOMENT)])
def test_a_claim_of_a_time_that_no_clock_shows_has_none(plan: Plan, value: str) -> None:
    (stage2(plan).attempts / "1" / "claim.json").write_text(f'{{"time": {value}, "host": "node7"}}')
    (one,) = step_of(plan).tries
    assert (one.outcome, one.host, one.started, one.seconds) == ("done", "node7", None, 1.0)
    assert "attempt 1: done after 1s (node7)\n" in told(plan, "report", "--why", "cw_dpo/cider").stdout
    (stage2(plan).folder / "DONE").unlink()
    (one,) = step_of(plan).tries
    assert (one.outcome, one.started, one.seconds) == ("interrupted", None, None)


def test_pages_are_written_whatever_a_claim_says(plan: Plan) -> None:
    (stage2(plan).attempts / "1" / "claim.json").write_text('{"time": 1e18, "host": "node7"}')
    told(plan, "report", "--format", "html")


@pytest.mark.parametrize("value", ["-1", "1e999"])
@pytest.mark.parametrize("key", ["seconds", "peak_bytes", "ranks", "image"])
def test_provenance_of_another_shape_is_no_fault_of_a_report(plan: Plan, key: str, value: str) -> None:
    path = stage2(plan).folder / "DONE"
    made = {"peak_bytes": {"gpu_memory": 1}, key: json.loads(value)}
    done = json.loads(path.read_text())
    path.write_text(json.dumps({**done, "provenance": {**done["provenance"], **made}}))
    for command in (["report", "--why", "cw_dpo/cider"], ["status"]):
        told(plan, *command)


@pytest.mark.parametrize("text", ["", "[]", "{}", '"no"', "5"])
def test_a_failure_that_cannot_be_read_is_one_without_a_reason(plan: Plan, text: str) -> None:
    one = stage2(plan)
    (one.folder / "DONE").unlink()
    (one.attempts / "1" / "result.json").write_text(text)
    assert f"{one.folder.name}: no reason recorded\n" in told(plan, "status").stdout
    assert "failed: no reason recorded" in told(plan, "why", CELL).stdout


@pytest.mark.parametrize("made", [{"finished": "yesterday"}, {"seconds": "x"}, {"job": []}, {"job": 5}, {}])
def test_a_stage_that_does_not_say_how_it_was_made_is_not_tracked(plan: Plan, made: dict[str, object]) -> None:
    node = node_of(plan, "stage2")
    path = node.artefact(plan.store).folder / "DONE"
    done = json.loads(path.read_text())
    provenance = {**done["provenance"], "job": {"slurm_job": "5"}}
    path.write_text(json.dumps({**done, "provenance": provenance}))
    assert Records(plan.store).of(node).job == "5"
    path.write_text(json.dumps({**done, "provenance": {**provenance, **made} if made else done["provenance"]}))
    with pytest.raises(StoreError, match="does not say how it was made"):
        Records(plan.store).of(node)


@pytest.mark.parametrize("text", ["[]", "{", '{"sources": 3}', ""])
def test_unfinished_work_that_does_not_say_how_it_was_begun_is_no_work_to_go_on_with(plan: Plan, text: str) -> None:
    """Whoever asks is told the file and what to remove; nothing is removed unasked."""
    node = next(node for node in plan.nodes if node.stage.name == "stage2")
    artefact = node.artefact(plan.store)
    artefact.partial.mkdir(exist_ok=True)
    artefact.begun_file.write_text(text)
    with pytest.raises(StoreError, match=r"partial/sources\.json"):
        plan.unfinished_changed(node)
    assert artefact.partial.exists()
    shutil.rmtree(artefact.partial)
