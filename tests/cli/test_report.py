"""`cwdpo report`: its formats and options, on a grid whose scores are made up."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import plan_of
from pretend import pretend_done
from report.made_up_grids import made_up, restored
from typer.testing import CliRunner

from cwdpo.base.errors import ConfigError
from cwdpo.cli.main import app
from cwdpo.jobs.plan import Plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return made_up(tmp_path_factory.mktemp("grid"), seeds=3)


@pytest.fixture
def plan(whole: Plan) -> Iterator[Plan]:
    with restored(whole):
        yield whole


def report(plan: Plan, *arguments: object) -> str:
    """What it prints."""
    home = plan.store.home
    line = ["report", "-g", home.parent / f"{plan.grid.name}.yaml", "--home", home, *arguments]
    done = CliRunner().invoke(app, list(map(str, line)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_text_is_printed_and_written_as_markdown(plan: Plan) -> None:
    shown = report(plan)
    target = plan.store.home / "grids" / "small" / "report.md"
    assert f"written to {target}" in shown
    text = target.read_text()
    for printed in (shown, text):
        assert "CIDEr" in printed
        assert "cw_dpo" in printed
    assert text.startswith("# small\n")
    assert f"`cwdpo report {plan.grid.options}`" in text


def test_a_choice_of_tables_leaves_the_report_of_the_grid_alone(plan: Plan, tmp_path: Path) -> None:
    report(plan)
    target = plan.store.home / "grids" / "small" / "report.md"
    before = target.read_bytes()
    assert "written to" not in report(plan, "--table", "main")
    assert target.read_bytes() == before
    assert f"written to {tmp_path / 'my.md'}" in report(plan, "--table", "main", "-o", tmp_path / "my.md")
    assert "## Main results" in (tmp_path / "my.md").read_text()


def test_another_grid_by_set_leaves_the_report_of_the_grid_alone(plan: Plan, tmp_path: Path) -> None:
    plan.write()
    report(plan)
    target = plan.store.home / "grids" / "small" / "report.md"
    before = target.read_bytes()
    for other in ("stage2.objective.beta=0.5", "seeds=[0]"):
        shown = report(plan, "--set", other)
        assert f"not written to {target}, which is of the grid as it was submitted" in " ".join(shown.split("\n"))
    assert target.read_bytes() == before
    assert f"written to {tmp_path / 'my.md'}" in report(plan, "--set", "seeds=[0]", "-o", tmp_path / "my.md")
    same = f"seeds={sorted({cell.seed for cell in plan.grid.cells})}"
    assert f"written to {target}" in report(plan, "--set", same), "these are the very stages"
    with pytest.raises(ConfigError, match="of the grid as it was submitted, without this --set"):
        report(plan, "--set", "seeds=[0]", "--format", "html")
    assert not (plan.folder / "html").exists()
    assert "written to" in report(plan, "--set", "seeds=[0]", "--format", "html", "-o", tmp_path / "html")


FORMATS = {"md": "# small", "latex": r"\begin{table}", "csv": '"table","grid"', "json": '"name": "captions"'}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_goes_to_stdout_or_into_a_file(plan: Plan, name: str, tmp_path: Path) -> None:
    shown = report(plan, "--format", name)
    assert FORMATS[name] in shown
    target = tmp_path / "deep" / "file"
    assert report(plan, "-f", name, "-o", target) == f"written to {target}\n"
    assert target.read_text() == shown
    assert not (plan.store.home / "grids/small/report.md").exists(), "only text writes the report of the grid"


def test_csv_and_json_have_the_same_numbers(plan: Plan) -> None:
    (table,) = json.loads(report(plan, "--json"))
    expected = {
        (row["key"], column, tuple(result["seeds"])): result["value"]
        for row in table["rows"]
        for column, entry in row["entries"].items()
        for result in entry["results"]
    }
    assert len(expected) == 4 * (1 + 3 * 3)
    found = {
        (line["row"], line["column"], tuple(map(int, line["seeds"].split()))): float(line["value"])
        for line in csv.DictReader(io.StringIO(report(plan, "-f", "csv")))
    }
    assert found == expected


def test_the_interval_is_chosen(plan: Plan) -> None:
    def covers(*arguments: object) -> set[str]:
        (table,) = json.loads(report(plan, "--json", *arguments))
        entries = (row["entries"]["cider"] for row in table["rows"])
        return {entry["difference"]["covers"] for entry in entries if entry["difference"]}

    assert covers() == covers("--interval", "seeds") == {"new trainings on these items"}
    assert covers("--interval", "seeds+items") == {"new trainings on new items"}
    assert covers("--interval", "items") == {"these checkpoints on new items, and not of the variance of training"}


def test_published_numbers_are_shown_on_request(plan: Plan, tmp_path: Path) -> None:
    grid = tmp_path / "main.yaml"
    text = (plan.store.home.parent / "small.yaml").read_text()
    grid.write_text(text.replace("captions", "coco"))
    mine = plan_of(tmp_path / "home", grid=grid)
    pretend_done(mine, mine.nodes)
    for row in csv.DictReader(io.StringIO(report(mine, "--table", "main", "-f", "csv"))):
        if (row["row"], row["column"]) == ("cw_dpo", "coco_cider"):
            assert row["paper"] == "142.6"
            assert float(row["paper_difference"]) == pytest.approx(float(row["mean"]) - 142.6)
    assert "142.6" not in report(mine)
    shown = report(mine, "--paper")
    assert "142.6" in shown
    assert "Qwen2.5-VL-72B with LoRA" in shown
    assert "not asked" in shown, "rows and benchmarks that this grid has not"


def test_options_that_contradict_each_other_are_refused(whole: Plan) -> None:
    with pytest.raises(ConfigError, match="--json and --format csv contradict each other"):
        report(whole, "--json", "--format", "csv")
