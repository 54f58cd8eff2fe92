"""Table files: every shipped one and its paper's numbers fit together; mistakes are told with what is valid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import plan_of
from made_up_grids import made_up
from ruamel.yaml import YAML

from cwdpo.base.errors import ConfigError
from cwdpo.experiment import config_folder, load_grid
from cwdpo.jobs.plan import Plan
from cwdpo.report.layouts import layouts, load_table
from cwdpo.report.published import load_paper, published
from cwdpo.report.table import Wanted, tables

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TABLES = sorted(path.stem for path in (CONFIGS / "tables").glob("*.yaml"))
PAPERS = sorted(path.stem for path in (CONFIGS / "paper").glob("*.yaml"))


# ---- shipped files


@pytest.mark.parametrize("name", TABLES)
def test_every_number_of_the_paper_has_its_place(name: str) -> None:
    file = load_table(name)
    assert file.paper
    printed = published(file.paper, name).table
    rows = {row.published or key for key, row in file.rows.items()}
    columns = {column.published or key for key, column in file.columns.items()}
    assert set(printed.rows) - rows == set()
    assert set(printed.columns) - columns == set()
    for row, values in printed.text_value.items():
        assert row in rows
        assert set(values) <= columns


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_cases_of_the_grid_and_stand_on_what_it_trains(name: str) -> None:
    file = load_table(name)
    (grid,) = file.grids
    cells = {cell.case: cell for cell in load_grid(grid).cells}
    for key, row in file.rows.items():
        stage = cells[key].experiment.stage1
        assert row.stands_on == (stage.objective.name if stage else "none"), key
    assert {column.benchmark for column in file.columns.values()} - {None} <= {
        benchmark.name for cell in cells.values() for benchmark in cell.experiment.benchmarks
    }


def test_every_table_of_the_papers_is_laid_out() -> None:
    used = {(file.paper.of, file.paper.table) for file in map(load_table, TABLES) if file.paper}
    assert used == {(name, table) for name in PAPERS for table in load_paper(name).tables}


def test_numbers_are_those_that_were_printed() -> None:
    """Spot checks, typed from the papers again."""
    tables = load_paper("cwdpo").tables
    main = dict(zip(tables["table1_main"].columns, tables["table1_main"].rows["cw_dpo"], strict=True))
    assert (main["coco_bleu4"], main["nocaps_entire"], main["mmbench"]) == (39.6, 123.6, 89.6)
    assert tables["table3_dissection"].rows["sft_c__cw_dpo"] == (39.6, None, None, None, 0.25, 0.19)
    assert tables["table7_overhead"].rows["stage1_sft_c"] == (2.0,)
    nsft = load_paper("nsft").tables
    assert nsft["llava150k"].rows["nsft"] == (68.4, 62.3, 58.4, 34.2, 1550, 65.2, 87.4, 25.4, 3.02)


def test_the_text_of_a_paper_counts_where_its_table_is_silent() -> None:
    dissection = load_table("dissection").paper
    assert dissection
    found = published(dissection, "")
    assert (found.value("sft_c__cw_dpo", "tv"), found.contradicted("sft_c__cw_dpo", "tv")) == (0.25, 0.15)
    assert (found.value("sft__dpo", "coco_bleu4"), found.contradicted("sft__dpo", "tv")) == (None, None)
    llava = load_table("nsft-llava150k").paper
    assert llava
    gains = published(llava, "")
    assert (gains.value("nsft", "hallucination_gain"), gains.contradicted("nsft", "hallucination_gain")) == (11.8, None)


# ---- which tables a grid has


def names(grid: str, home: Path, *chosen: str) -> list[str]:
    return [layout.name for layout in layouts(plan_of(home, grid=Path(grid)), chosen)]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("main-demo", ["main"]),
        ("nsft-demo", ["nsft-ablation", "nsft-llava150k", "nsft-sota"]),
        ("demo", ["captions"]),
        ("dynamics-demo", ["coco"]),
    ],
)
def test_a_grid_in_another_size_has_the_tables_of_the_grid(grid: str, expected: list[str], tmp_path: Path) -> None:
    assert names(grid, tmp_path) == expected


def test_a_limited_grid_has_the_tables_of_the_grid(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "limit=8", grid=Path("main-demo"))
    (table,) = tables(plan)
    assert (table.name, table.grid, table.partial) == ("main", "main-demo-limit-8", True)


def test_a_grid_made_of_others_fills_the_tables_of_all_of_them(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, grid=Path("all-demo"))
    found = {layout.name: layout for layout in layouts(plan)}
    assert list(found) == [
        "main", "ablations", "dissection", "sensitivity-stage1", "negatives", "sensitivity-stage2", "overhead",
        "squeezing", "nsft-ablation", "nsft-llava150k", "nsft-sota", "coco",
    ]  # fmt: skip
    dynamics = [case for case in plan.grid.cases if case.startswith("dynamics:")]
    assert [row.key for row in found["coco"].rows] == dynamics, "it has figures and no table file"
    assert all(row.asked for layout in found.values() for row in layout.rows)
    assert (found["main"].baseline, found["main"].groups[-1]) == ("main:sft", "main:cw_dpo")
    assert found["overhead"].row("overhead:cw_dpo").cost_of == "overhead:dpo"
    (alone,) = layouts(plan, ["main"])
    assert alone == found["main"]


def test_benchmarks_are_a_table_each_on_request(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, grid=Path("main-demo"))
    found = layouts(plan, ["benchmarks", "main"])
    assert [layout.name for layout in found] == ["coco", "flickr30k", "nocaps", "mmmu", "mmbench", "main"]
    assert [row.key for row in found[0].rows] == plan.grid.cases
    assert "rouge_l" in [one.column.key for one in found[0].columns]


def test_a_table_asked_for_twice_is_shown_once(tmp_path: Path) -> None:
    assert names("demo", tmp_path, "benchmarks", "main", "benchmarks", "main") == ["captions", "main"]


def test_a_grid_included_in_two_sizes_fills_its_tables_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(config_folder(), tmp_path / "configs")
    shutil.copy(tmp_path / "configs/sizes/demo.yaml", tmp_path / "configs/sizes/tiny.yaml")
    monkeypatch.setenv("CWDPO_CONFIGS", str(tmp_path / "configs"))
    grid = tmp_path / "two.yaml"
    grid.write_text("include: [overhead-demo, overhead-tiny]\n")
    found = layouts(plan_of(tmp_path / "home", grid=grid))
    assert [layout.name for layout in found] == ["overhead-overhead-demo", "overhead-overhead-tiny"]
    assert [layout.baseline.partition(":")[0] for layout in found] == ["overhead-demo", "overhead-tiny"]
    assert all(row.asked for layout in found for row in layout.rows)
    assert found[1].title.endswith("(overhead-tiny)")


def test_an_included_grid_without_a_table_file_has_tables_of_its_benchmarks(tmp_path: Path) -> None:
    grid = tmp_path / "both.yaml"
    grid.write_text("include: [overhead-demo, demo]\n")
    plan = plan_of(tmp_path / "home", grid=grid)
    found = layouts(plan)
    assert [layout.name for layout in found] == ["overhead", "captions"]
    assert [row.key for row in found[1].rows] == [case for case in plan.grid.cases if case.startswith("demo:")]


def test_a_table_may_take_rows_of_several_included_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(config_folder(), tmp_path / "configs")
    content = {
        **BASE,
        "grids": ["both"],
        "rows": {key: {"stands_on": "sft"} for key in ("overhead-demo:sft", "demo:sft")},
    }
    YAML().dump(content, tmp_path / "configs/tables/across.yaml")
    monkeypatch.setenv("CWDPO_CONFIGS", str(tmp_path / "configs"))
    grid = tmp_path / "both.yaml"
    grid.write_text("include: [overhead-demo, demo]\n")
    found = {layout.name: layout for layout in layouts(plan_of(tmp_path / "home", grid=grid))}
    assert [row.asked for row in found["across"].rows] == [True, True]
    (said,) = found["across"].remarks
    assert said.startswith("in none of these tables: demo:base, demo:sft_c, ")


def test_what_no_table_shows_is_said(tmp_path: Path) -> None:
    grid = tmp_path / "own.yaml"
    stage1 = {"stage1": {"objective": {"name": "sft"}}}
    base = {"data": {"source": "demo_world"}, "model": "tiny", "benchmarks": [{"name": "captions"}]}
    grid.write_text(json.dumps({"tables_of": "overhead", "base": base, "cases": {"sft": stage1, "mine": stage1}}))
    (found,) = layouts(plan_of(tmp_path / "home", grid=grid))
    shown = [row.key for row in found.rows if row.asked]
    assert "mine" not in shown
    assert found.remarks == (
        "cases that grid 'own' does not have: sft_c, dpo, cw_dpo",
        "in none of these tables: mine (`--table benchmarks` has all cases)",
        "asked, but in none of these tables: captions (`--table benchmarks` has all benchmarks)",
    )


def test_a_grid_without_benchmarks_has_nothing_to_report(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "benchmarks=[]", grid=Path("demo"))
    with pytest.raises(ConfigError, match="grid 'demo' has no benchmarks: there is nothing to report"):
        tables(plan)


# ---- mistakes


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return made_up(tmp_path_factory.mktemp("grid"), seeds=1)


CIDER = {"benchmark": "captions", "metric": "cider"}
MAIN = {"of": "cwdpo", "table": "table1_main"}
BASE = {
    "title": "T", "grids": ["small"],
    "columns": {"cider": CIDER},
    "rows": {"sft": {"stands_on": "sft"}},
}  # fmt: skip

MISTAKES = {
    "unknown benchmark 'captoins'; did you mean 'captions'?": {
        "columns": {"a": {"benchmark": "captoins", "metric": "cider"}}
    },
    "unknown metric of captions 'cidr'; did you mean 'cider'?": {
        "columns": {"a": {"benchmark": "captions", "metric": "cidr"}}
    },
    "columns.a: benchmark and metric belong together": {"columns": {"a": {"benchmark": "captions"}}},
    "columns.a: needs one of benchmark, probe and derived; found none": {"columns": {"a": {"title": "x"}}},
    "found benchmark and probe": {"columns": {"a": {"benchmark": "captions", "metric": "cider", "probe": "tv"}}},
    "baseline: unknown row 'stf'; did you mean 'sft'?": {"baseline": "stf"},
    "groups: unknown row 'dpo'": {"groups": ["dpo"]},
    "rows.sft.cost_of: unknown row 'x'": {"rows": {"sft": {"stands_on": "sft", "cost_of": "x"}}},
    "unknown objective 'sftc'; did you mean 'sft_c'?": {"rows": {"sft": {"stands_on": "sftc"}}},
    "rows.sft.stands_on: is required": {"rows": {"sft": {}}},
    "unknown key 'colums'; did you mean 'columns'?": {"colums": {}},
    "columns.a.probe: ": {"columns": {"a": {"probe": "kl"}}},
    "rows.sft and rows.dpo are both printed as 'our own'; give one of them another label": {
        "rows": {"sft": {"stands_on": "sft", "label": "our own"}, "dpo": {"stands_on": "sft", "label": " our  own"}},
    },
    "rows.sft and rows.dpo are both printed as 'sft'; give one": {
        "rows": {"sft": {"stands_on": "sft"}, "dpo": {"stands_on": "sft", "label": "sft"}},
    },
    "columns.a and columns.b are both printed as 'CIDEr'; give one of them another group or title": {
        "columns": {"a": CIDER, "b": CIDER},
    },
    "columns.a and columns.b are both printed as 'COCO x'; give one": {
        "columns": {
            "a": {**CIDER, "group": "COCO", "title": "x"},
            "b": {"probe": "tv", "group": "COCO", "title": "x"},
        },
    },
    "paper.of: unknown paper 'cwdpoo'; did you mean 'cwdpo'?": {"paper": {"of": "cwdpoo", "table": "x"}},
    "paper.table: unknown table 'table1'; did you mean 'table1_main'?": {"paper": {"of": "cwdpo", "table": "table1"}},
    "columns.cider.published: unknown column 'coco_cidr'; did you mean 'coco_cider'?": {
        "paper": MAIN, "columns": {"cider": {**CIDER, "published": "coco_cidr"}},
    },
    "rows.sft.published: unknown row 'sfft'; did you mean 'sft'?": {
        "paper": MAIN, "rows": {"sft": {"stands_on": "sft", "published": "sfft"}},
    },
    "rows.sft.published: unknown row 'sft': the file names no paper": {
        "rows": {"sft": {"stands_on": "sft", "published": "sft"}},
    },
}  # fmt: skip


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_names_the_file_what_was_found_and_what_is_valid(plan: Plan, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    YAML().dump({**BASE, **MISTAKES[message]}, path)
    with pytest.raises(ConfigError) as raised:
        tables(plan, wanted=Wanted((str(path),)))
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)


def test_columns_of_one_title_are_told_apart_by_their_groups(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    YAML().dump({**BASE, "columns": {"a": {**CIDER, "group": "COCO"}, "b": CIDER}}, path)
    (table,) = tables(plan, wanted=Wanted((str(path),)))
    assert [column.name for column in table.columns] == ["COCO CIDEr", "CIDEr"]


def test_a_table_file_that_leads_nowhere_is_none(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors leave such a link while somebody edits a table."""
    shutil.copytree(config_folder(), tmp_path / "configs")
    (tmp_path / "configs" / "tables" / ".#main.yaml").symlink_to("user@host.1234")
    monkeypatch.setenv("CWDPO_CONFIGS", str(tmp_path / "configs"))
    assert [layout.name for layout in layouts(plan)] == ["captions"]


def test_an_unknown_table_is_answered_with_those_there_are(plan: Plan) -> None:
    with pytest.raises(ConfigError, match="unknown table 'mian'; did you mean 'main'\\? valid: ablations, "):
        tables(plan, wanted=Wanted(("mian",)))


def test_a_paper_whose_rows_are_too_short_is_refused(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(config_folder() / "paper", tmp_path / "paper")
    path = tmp_path / "paper" / "nsft.yaml"
    path.write_text(path.read_text().replace("nsft:      [65.0, 68.2, 1533, 86.5]", "nsft: [65.0, 68.2]"))
    monkeypatch.setenv("CWDPO_CONFIGS", str(tmp_path))
    with pytest.raises(ConfigError, match=r"nsft\.yaml: tables\.ablation: rows\.nsft: 2 numbers for 4 columns"):
        load_paper("nsft")
