"""`cwdpo probe`, and what `status` and `report` say of probes, on a grid that was really computed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import workers
from commands import GRIDS, cwdpo, plan_of, submit, succeed

from cwdpo.dynamics.early_stop import Chosen
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.probed import recorded

PROBED = GRIDS / "probed.yaml"
RULE = "name=chosen,patience=1,fall=0.01"


@pytest.fixture(scope="session")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the finished grid; it is only read."""
    made = workers.made_once(
        tmp_path_factory, "probed-grid", lambda folder: succeed(submit(folder / "home", grid=PROBED))
    )
    return made / "home"


def plan(home: Path) -> Plan:
    return plan_of(home, grid=PROBED)


def run(home: Path, *arguments: object, status: int = 0) -> str:
    """What a command on the grid printed, errors for any other exit status."""
    done = cwdpo(*arguments, "--grid", PROBED, "--home", home)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def points(home: Path, cell: str) -> list[dict[str, Any]]:
    return list(recorded(plan(home), cell)["stage2"].evidence("stage2").points)


def test_an_early_stop_ends_where_a_replay_of_the_whole_training_says(probed: Path) -> None:
    rule = Chosen(name="chosen", patience=1, fall=0.01)
    whole, stopped = points(probed, "dpo/0"), points(probed, "stopped/0")
    expected = rule.stop(whole)
    end = expected.step if expected else whole[-1]["step"]
    assert [point["step"] for point in stopped] == [point["step"] for point in whole if point["step"] <= end]
    for point, other in zip(stopped, whole, strict=False):  # one probed as it ran, the other by its adapters
        assert point == pytest.approx(other, abs=1e-3)
    found = json.loads(run(probed, "probe", "replay", "dpo/0", "--stage", "stage2", "--early-stop", RULE, "--json"))
    (stage,) = found["stages"]
    assert (stage["stop"] or {}).get("step") == (expected.step if expected else None)


def test_explain_has_both_stages_with_numbers(probed: Path) -> None:
    shown = run(probed, "probe", "explain", "dpo/0")
    assert "stage1 (sft)" in shown
    assert "stage2 (dpo)" in shown
    for alarm in ("squeezing", "peaking", "stale_negatives", "constraint_never_active", "loser_gradient", "divergence"):
        assert alarm in shown
    assert "probing took" in shown
    last = points(probed, "dpo/0")[-1]
    assert f"{last['entropy']:.4g} (step {last['step']})" in shown


def test_status_and_report_tell_of_alarms(probed: Path) -> None:
    alarms = json.loads(run(probed, "status", "--json"))["alarms"]
    told = {entry["training"] for entry in alarms}
    assert told <= {"stage1 dpo/0", "stage2 dpo/0", "stage2 stopped/0"}
    shown, report = run(probed, "status"), run(probed, "report")
    written = (probed / "grids/probed/report.md").read_text()
    assert "## Learning dynamics" in written
    for entry in alarms[:5]:
        assert entry["sentence"] in shown
        assert entry["sentence"].partition(": ")[2] in report
    assert "dpo, stage2:" in report


def test_figures_are_drawn_with_their_data(probed: Path, tmp_path: Path) -> None:
    shown = run(probed, "probe", "figures", "--stage", "stage2", "--case", "dpo", "--out", tmp_path)
    drawn = {path.stem for path in (tmp_path / "stage2").glob("*.png")}
    assert drawn == {"figure3", "figure4", "figure5-dpo", "figure6-dpo", "delta_logp"}
    assert all((tmp_path / "stage2" / f"{name}.pdf").read_bytes().startswith(b"%PDF") for name in drawn)
    rows = (tmp_path / "stage2" / "figure4.csv").read_text().splitlines()
    table = list(csv.DictReader(line for line in rows if not line.startswith("#")))
    assert table
    assert "not available: SPICE" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "dpo/7"), "unknown cell 'dpo/7'; did you mean 'dpo/0'"),
        (("explain", "dpo/0", "--stage", "stage3"), "stage3"),
        (("replay", "dpo/0", "--early-stop", "patience=0"), "patience"),
        (("replay", "dpo/0", "--early-stop", "patients=3"), "patients"),
        (("figures", "--figure", "figure9"), "figure9"),
        (("figures", "--case", "dop"), "dop"),
    ],
)
def test_a_wrong_word_is_named(probed: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said.split(";")[0] in run(probed, "probe", *arguments, status=2)


def test_without_probes_there_is_a_reason(finished: Path) -> None:
    done = cwdpo("probe", "explain", "dpo/0", "--grid", GRIDS / "micro.yaml", "--home", finished)
    assert "the experiment has no probe" in succeed(done)
    drawn = cwdpo("probe", "figures", "--grid", GRIDS / "micro.yaml", "--home", finished)
    assert drawn.returncode == 2
    assert "nothing is probed in this grid" in drawn.stderr


def test_a_damaged_file_is_named_and_nothing_breaks(probed: Path, tmp_path: Path) -> None:
    from commands import copy_home

    home = copy_home(probed, tmp_path / "home")
    (one,) = [one for one in plan(home).wired["dpo/0"].probed if one.stage == "stage2"]
    path = one.folder(plan(home).store) / "tokens.parquet"
    content = bytearray(path.read_bytes())
    content[4:40] = b"x" * 36
    path.write_bytes(content)
    assert "tokens.parquet" in run(home, "probe", "explain", "dpo/0")
    assert "tokens.parquet" in run(home, "report")
