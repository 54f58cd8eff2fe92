"""The papers' grids: their rows and settings, what they share, and that the demo needs nothing from outside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from commands import REPO

from cwdpo.base.store import Store
from cwdpo.experiment import Experiment, Grid, load_grid
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, make_plan

GRIDS = sorted(path.stem for path in (REPO / "configs" / "grids").glob("*.yaml"))
SIZES = sorted(path.stem for path in (REPO / "configs" / "sizes").glob("*.yaml"))
PAPER = [
    "main", "ablations", "dissection", "sensitivity-stage1", "negatives", "sensitivity-stage2", "overhead", "squeezing",
    "dynamics", "nsft",
]  # fmt: skip


def one_seed(grid: Grid) -> dict[str, Experiment]:
    """By case."""
    return {cell.case: cell.experiment for cell in grid.cells if cell.seed == 0}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", SIZES)
def test_every_grid_in_every_size(grid: str, size: str) -> None:
    whole, small = load_grid(grid), load_grid(f"{grid}-{size}")
    assert (small.name, small.tables_of, small.cases) == (f"{grid}-{size}", grid, whole.cases)


@pytest.mark.parametrize("grid", [*PAPER, "all"])
def test_five_seeds_and_in_the_demo_two(grid: str) -> None:
    assert {cell.seed for cell in load_grid(grid).cells} == {0, 1, 2, 3, 4}
    assert {cell.seed for cell in load_grid(f"{grid}-demo").cells} == {0, 1}


@pytest.mark.parametrize("grid", [*PAPER, "all"])
def test_the_demo_can_be_planned_where_there_is_no_data_no_model_and_no_endpoint(grid: str, tmp_path: Path) -> None:
    plan = make_plan(load_grid(f"{grid}-demo"), Store(tmp_path))
    assert all(isinstance(entry, Node) for node in plan.nodes for entry in node.inputs.values())
    assert not {"llm", "judge"} & {node.stage.name for node in plan.nodes}
    steps = [node.spec.optimization.max_steps for node in plan.nodes if hasattr(node.spec, "optimization")]
    assert max(steps) <= 40


def test_the_rows_of_table_1() -> None:
    cells = one_seed(load_grid("main"))
    objectives = {case: one.stage2.objective.name for case, one in cells.items() if one.stage2}
    assert objectives == {name: name for name in ("dpo", "ppo", "v_dpo", "grpo", "opa_dpo", "cw_dpo")}
    assert list(cells) == ["base", "sft", *objectives]
    assert {case: one.stage1.objective.name for case, one in cells.items() if one.stage1} == {
        **dict.fromkeys(("sft", *objectives), "sft"), "cw_dpo": "sft_c"
    }  # fmt: skip
    assert {one.model.path for one in cells.values()} == {"Qwen/Qwen2.5-VL-72B-Instruct"}
    assert [one.name for one in cells["base"].benchmarks] == ["coco", "flickr30k", "nocaps", "mmmu", "mmbench"]
    assert cells["cw_dpo"].data.stage1_share == 0.75
    ours = cells["cw_dpo"]
    assert (ours.stage1.objective.weight, ours.stage1.objective.floor) == (0.1, 4.0)
    assert (ours.stage2.objective.l_floor, ours.stage2.objective.tau) == (-3.0, 1.0)
    assert (ours.stage2.negatives.source, ours.stage2.negatives.endpoint.model) == ("llm", "gpt-4o")


@pytest.mark.parametrize("grid", ["sensitivity-stage1", "sensitivity-stage2"])
def test_a_case_of_a_sweep_has_the_value_that_it_is_named_by_and_else_the_defaults(grid: str) -> None:
    for case, one in one_seed(load_grid(grid)).items():
        name, _, value = case.partition("=")
        expected = {"C": 4.0, "l_floor": -3.0, "tau": 1.0} | ({name: float(value)} if value else {})
        if value:
            objective = one.stage2.objective
            assert {"C": one.stage1.objective.floor, "l_floor": objective.l_floor, "tau": objective.tau} == expected
        else:
            assert (one.stage1.objective.name, one.stage2.objective.name) == ("sft", "dpo")


def test_the_sweep_of_filtering_and_the_default_it_holds() -> None:
    cells = one_seed(load_grid("ablations"))
    swept = {case: cells[case] for case in cells if case.startswith("filter_")}
    found = {case: (one.stage2.objective.filter, one.stage2.objective.filter_margin) for case, one in swept.items()}
    assert found == {f"filter_{kind}_{margin}": (kind, margin) for kind in ("zero", "drop") for margin in (0, 1, 3)}
    assert swept["filter_zero_1"] == cells["cw_dpo"]
    weights = {case: cells[case].stage2.objective.weight for case in ("wo_cooling_weight", "wo_cooling_weight_0.7")}
    assert weights == {"wo_cooling_weight": 1.0, "wo_cooling_weight_0.7": 0.7}
    assert cells["wo_smooth_sft"].stage1 is None
    assert cells["wo_cw_dpo"].stage2 is None


def test_squeezing_trains_on_the_ten_thousand_easiest_pairs() -> None:
    for case, one in one_seed(load_grid("squeezing")).items():
        if case != "sft_c":
            assert one.stage2.optimization.batch_size * one.stage2.optimization.max_steps == 10_000
            assert one.stage2.optimization.epochs == 1, "no pair comes twice"
            assert (one.stage2.curriculum.name, one.stage2.curriculum.first) == ("ordered", "easy")
            assert one.probe.samples == 1000


def test_nsft_starts_from_the_released_model_with_the_printed_settings() -> None:
    for case, one in one_seed(load_grid("nsft")).items():
        assert one.model.path == "llava-hf/llava-1.5-7b-hf"
        assert one.stage1 is None
        assert next(b.version for b in one.benchmarks if b.name == "mmbench") == "1.0"
        if one.stage2:
            settings = one.stage2.optimization
            assert (settings.batch_size, settings.learning_rate, settings.schedule) == (128, 2e-6, "cosine")
        else:
            assert case.endswith(("__baseline", "__llava_1_5"))


# ---- what is shared


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(load_grid("all-demo"), Store(tmp_path_factory.mktemp("home")))


def policy(grid: str, case: str, home: Path) -> str:
    node = make_plan(load_grid(f"{grid}-demo", {"seeds": [0]}), Store(home)).wired[f"{case}/0"].policy
    assert node is not None
    return node.id


def test_grids_share_what_they_name_differently(tmp_path: Path) -> None:
    ours = policy("main", "cw_dpo", tmp_path)
    same = [
        ("ablations", "cw_dpo"), ("ablations", "filter_zero_1"), ("dissection", "sft_c__cw_dpo"),
        ("sensitivity-stage1", "C=4.0"), ("sensitivity-stage1", "l_floor=-3.0"), ("negatives", "llm__cw_dpo"),
        ("sensitivity-stage2", "tau=1.0"),
    ]  # fmt: skip
    assert {policy(grid, case, tmp_path) for grid, case in same} == {ours}
    assert policy("sensitivity-stage1", "C=2.0", tmp_path) != ours


def test_all_is_every_grid_of_the_papers_and_computes_each_training_once(whole: Plan, tmp_path: Path) -> None:
    assert list(dict.fromkeys(case.partition(":")[0] for case in whole.grid.cases)) == PAPER
    assert whole.wired["main:cw_dpo/0"].policy is whole.wired["ablations:cw_dpo/0"].policy
    trained = ("stage1", "stage2", "sft_phase")
    distinct = Counter(node.stage.name for node in whole.nodes)
    naive = Counter(node.stage.name for wired in whole.wired.values() for node in wired.nodes())
    assert sum(distinct[name] for name in trained) < 0.5 * sum(naive[name] for name in trained)
    apart = [make_plan(load_grid(f"{grid}-demo"), Store(tmp_path)) for grid in PAPER]
    assert {node.id for node in whole.nodes} == {node.id for plan in apart for node in plan.nodes}


def test_probes_find_the_adapters_that_a_training_keeps_for_whichever_grid_is_first(whole: Plan) -> None:
    """A shared training is run once, as the first grid wants it."""
    for grid in ("main", "ablations", "dissection", "negatives", "dynamics"):
        for cell in load_grid(grid).cells:
            assert cell.experiment.execution.snapshot_every == 100
            assert cell.experiment.probe is None or cell.experiment.probe.every % 100 == 0
    runs = [node.inputs["run"] for node in whole.nodes if node.stage.name in ("probe", "influence")]
    assert {run.execution.snapshot_every for run in runs if isinstance(run, Node)} == {10}
