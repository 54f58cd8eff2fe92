"""Grid files: cases, axes, seeds, methods, overrides, and grids made of others; every mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cwdpo.base.config import parse_overrides
from cwdpo.base.errors import ConfigError, StoreError
from cwdpo.experiment import find_config, load_grid
from cwdpo.negatives.augmented_image import AugmentedImage
from cwdpo.negatives.own_answer import OwnAnswer
from cwdpo.negatives.rule import Perturb


def write_grid(folder: Path, text: str) -> str:
    path = folder / "study.yaml"
    path.write_text(text)
    return str(path)


GRID = """
base:
  data: {source: demo_world}
  model: {source: tiny}
  stage2: {objective: {name: cw_dpo}, negatives: {source: perturb}}
cases:
  ours: {}
  base model: {stage2: null}
axes:
  data.world.seed: [1, 2]
seeds: [5, 6]
"""


def test_a_grid_is_cases_times_axes_times_seeds(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, GRID))
    assert [cell.name for cell in grid.cells] == [
        f"{case} data.world.seed={world}/{seed}"
        for case in ("ours", "base model")
        for world in (1, 2)
        for seed in (5, 6)
    ]
    assert [cell.experiment.data.world.seed for cell in grid.cells] == [1, 1, 2, 2] * 2
    assert [cell.experiment.seed for cell in grid.cells] == [5, 6] * 4
    assert [cell.experiment.stage2 is None for cell in grid.cells] == [False] * 4 + [True] * 4


def test_an_axis_over_a_share_is_for_the_case_that_mixes(tmp_path: Path) -> None:
    mixed = (
        "{source: mixed, of: {policy: {share: 0.5, negatives: {source: sample}}, data: {negatives: {source: dataset}}}}"
    )
    text = GRID.replace("  ours: {}", f"  ours: {{}}\n  mixed: {{stage2: {{negatives: {mixed}}}}}")
    text = text.replace("data.world.seed: [1, 2]", "stage2.negatives.of.policy.share: [0, 0.8]").replace(
        "[5, 6]", "[5]"
    )
    grid = load_grid(write_grid(tmp_path, text))
    share = "stage2.negatives.of.policy.share"
    assert grid.cases == ["ours", f"mixed {share}=0", f"mixed {share}=0.8", "base model"]
    with pytest.raises(ConfigError, match=r"axes\.stage2\.negatives\.of\.polcy\.share: no case"):
        load_grid(write_grid(tmp_path, text.replace("of.policy.share", "of.polcy.share")))


METHODS = """
base:
  data: {source: demo_world}
  model: {source: tiny}
  stage2: {negatives: {source: perturb, count: 2}}
cases:
  dpo: {method: dpo}
  seva: {method: seva}
  seva shorter: {method: seva, stage2: {negatives: {max_new_tokens: 9}}}
  seva of others: {method: seva, stage2: {negatives: {source: own_answer, block: 3}}}
  seva alone: {method: seva, stage1: null}
"""


def test_a_method_brings_negatives_that_replace_the_base_and_that_a_case_changes(tmp_path: Path) -> None:
    found = {cell.case: cell.experiment for cell in load_grid(write_grid(tmp_path, METHODS)).cells}
    negatives = {case: experiment.stage2.negatives for case, experiment in found.items() if experiment.stage2}
    assert negatives["dpo"] == Perturb(source="perturb", count=2)
    assert negatives["seva"] == negatives["seva alone"] == AugmentedImage(source="augmented_image", noise=500)
    assert negatives["seva shorter"] == AugmentedImage(source="augmented_image", noise=500, max_new_tokens=9)
    assert negatives["seva of others"] == OwnAnswer(source="own_answer", block=3)
    assert [case for case, experiment in found.items() if experiment.stage1 is None] == ["seva alone"]


def test_a_case_can_do_without_the_method_of_the_base(tmp_path: Path) -> None:
    text = "base: {data: {source: demo_world}, model: {source: tiny}, method: sft}\ncases: {a: {}, b: {method: null}}\n"
    found = {cell.case: cell.experiment for cell in load_grid(write_grid(tmp_path, text)).cells}
    assert found["a"].stage1 is not None
    assert (found["b"].stage1, found["b"].stage2) == (None, None)


def test_overrides_win_over_cases_but_give_no_case_a_stage(tmp_path: Path) -> None:
    changes = parse_overrides(["stage2.objective.beta=0.7", "seeds=[9]", "data.world.seed=3"])
    grid = load_grid(write_grid(tmp_path, GRID), changes)
    assert [cell.experiment.stage2.objective.beta for cell in grid.cells if cell.experiment.stage2] == [0.7, 0.7]
    assert [cell.experiment.stage2 for cell in grid.cells][2:] == [None, None]
    assert {(cell.seed, cell.experiment.data.world.seed) for cell in grid.cells} == {(9, 3)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "ours: {}",
            "ours: {stage2: {objective: {tao: 1}}}",
            "case 'ours data.world.seed=1': stage2.objective.tao: unknown",
        ),
        ("data.world.seed", "data.world.sede", "data.world.sede: unknown key 'sede'; did you mean 'seed'?"),
        ("seeds: [5, 6]", "seeds: []", "seeds: Tuple should have at least 1 item"),
        ("seeds: [5, 6]", "seed: 5", "seed: unknown key 'seed'; did you mean 'seeds'? valid: axes, base, cases,"),
        ("base:\n", "bases:\n", "base: is required"),
        ("ours: {}", "ours: 3", "cases.ours: expected a mapping; found 3"),
    ],
)
def test_a_mistake_in_a_grid_names_file_case_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GRID
    with pytest.raises(ConfigError) as caught:
        load_grid(write_grid(tmp_path, GRID.replace(old, new)))
    assert str(caught.value).startswith(str(tmp_path / "study.yaml"))
    assert message in str(caught.value)


def test_an_unknown_grid_is_answered_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs" / "grids").mkdir(parents=True)
    for name in ("main", "ablations"):
        (tmp_path / "configs" / "grids" / f"{name}.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    assert find_config("grids", "main") == Path("configs/grids/main.yaml")
    with pytest.raises(ConfigError, match=r"unknown grid 'ablation'; did you mean 'ablations'\? valid: ab.*s, main"):
        find_config("grids", "ablation")
    assert find_config("grids", "there/my.yaml") == Path("there/my.yaml")


def test_an_override_gives_no_case_a_probe_or_its_influence(tmp_path: Path) -> None:
    probes = "{ours: {probe: {influence: {}}}, probed: {probe: {}}, bare: {}}"
    text = GRID.partition("cases:")[0] + f"cases: {probes}\n"
    grid = load_grid(write_grid(tmp_path, text), {"probe.influence.updates": 7, "probe.samples": 3})
    ours, probed, bare = (cell.experiment.probe for cell in grid.cells)
    assert (ours.influence.updates, ours.samples) == (7, 3)
    assert (probed.influence, probed.samples, bare) == (None, 3, None)


def test_set_takes_the_name_of_a_model(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, GRID), {"model": "qwen2.5-vl-3b"})
    assert {cell.experiment.model.path for cell in grid.cells} == {"Qwen/Qwen2.5-VL-3B-Instruct"}
    with pytest.raises(ConfigError, match=r"unknown model 'qwen2\.5-vl-3'; did you mean 'qwen2\.5-vl-3b'\? valid: "):
        load_grid(write_grid(tmp_path, GRID), {"model": "qwen2.5-vl-3"})


def test_two_cells_of_one_name_are_refused(tmp_path: Path) -> None:
    once = GRID.replace("data.world.seed: [1, 2]", "stage2.objective.beta: [1]")
    twice = once.replace("base model: {stage2: null}", "ours stage2.objective.beta=1: {stage2: null}")
    assert len(load_grid(write_grid(tmp_path, once)).cells) == 4
    with pytest.raises(
        ConfigError, match=r"study\.yaml: there are 2 cells of the name 'ours stage2\.objective\.beta=1/5'"
    ):
        load_grid(write_grid(tmp_path, twice))


# ---- grids made of others


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configurations with two small grids."""
    folder = tmp_path / "configs"
    (folder / "grids").mkdir(parents=True)
    monkeypatch.setenv("CWDPO_CONFIGS", str(folder))
    write(folder, "first", GRID.replace("axes:\n  data.world.seed: [1, 2]\n", ""))
    write(
        folder,
        "second",
        "{base: {data: {source: demo_world}, model: {source: tiny}}, cases: {a: {}, ours: {stage1: {}}}}",
    )
    return folder


def write(folder: Path, name: str, text: str) -> None:
    (folder / "grids" / f"{name}.yaml").write_text(text)


def test_a_grid_of_grids_has_their_cells_under_their_names(configs: Path) -> None:
    write(configs, "both", "{description: both of them, include: [first, second]}")
    grid = load_grid("both")
    assert (grid.name, grid.description, grid.tables_of) == ("both", "both of them", "both")
    assert grid.cases == ["first:ours", "first:base model", "second:a", "second:ours"]
    assert [cell.name for cell in grid.cells][-2:] == ["second:a/0", "second:ours/0"], "each has its own seeds"
    assert {cell.family for cell in grid.cells} == set(grid.cases)
    alone = [*load_grid("first").cells, *load_grid("second").cells]
    assert [cell.experiment for cell in grid.cells] == [cell.experiment for cell in alone]


def test_seeds_and_set_reach_the_grids_that_are_included(configs: Path) -> None:
    write(configs, "both", "{include: [first, second], seeds: [7]}")
    assert {cell.seed for cell in load_grid("both").cells} == {7}
    assert {cell.seed for cell in load_grid("both", {"seeds": [8, 9]}).cells} == {8, 9}
    grid = load_grid("both", {"stage2.objective.beta": 0.7})
    assert [cell.experiment.stage2.objective.beta for cell in grid.cells if cell.experiment.stage2] == [0.7]
    with pytest.raises(
        ConfigError, match=r"^--set stage2\.refresh\.rounds: no case of .*both\.yaml has a section stage2\.ref"
    ):
        load_grid("both", {"stage2.refresh.rounds": 2})


def test_a_grid_of_a_grid_of_grids(configs: Path) -> None:
    write(configs, "both", "include: [first, second]")
    write(configs, "more", "{include: [both, second]}")
    assert load_grid("more").cases == [
        "both:first:ours", "both:first:base model", "both:second:a", "both:second:ours", "second:a", "second:ours"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "include: [frist]",
            "sum.yaml: include: unknown grid 'frist'; did you mean 'first'? valid: first, round, second,",
        ),
        ("include: [first, first]", "sum.yaml: include: one occurs twice (first, first)"),
        ("{include: [first], base: {}}", "sum.yaml: base: a grid that includes others has none of its own"),
        ("{include: [first], overrides: {a: 1}}", "sum.yaml: overrides: a grid that includes others has none"),
        ("{include: [first], sedes: [1]}", "sum.yaml: sedes: unknown key 'sedes'; did you mean 'seeds'? valid: axes,"),
        ("include: first", "sum.yaml: include: expected a list; found 'first'"),
        (
            "include: [round]",
            "include: {grids}/sum.yaml -> {grids}/round.yaml -> {grids}/sum.yaml goes round in a circle",
        ),
    ],
)
def test_a_mistake_in_an_include_is_named(configs: Path, text: str, message: str) -> None:
    write(configs, "round", "include: [sum]")
    write(configs, "sum", text)
    with pytest.raises(ConfigError) as caught:
        load_grid("sum")
    assert message.format(grids=configs / "grids") in str(caught.value)


# ---- grids as they were submitted


def test_a_submitted_grid_is_read_as_it_was(configs: Path, tmp_path: Path) -> None:
    write(configs, "both", "{description: of two, include: [first, second]}")
    grid = load_grid("both", {"limit": 3, "data.world.seed": 4})
    (tmp_path / "grid.json").write_text(json.dumps(grid.as_json()))
    assert load_grid(str(tmp_path / "grid.json")) == grid
    assert (grid.name, grid.tables_of) == ("both-limit-3", "both")
    with pytest.raises(
        ConfigError, match=r"^--set seeds: .*grid\.json is a grid as it was submitted; name the grid itself"
    ):
        load_grid(str(tmp_path / "grid.json"), {"seeds": [1]})


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"name": "a", "options": "", "description": "", "cells": {"a/0": {}}}', "{"]
)
def test_a_damaged_submitted_grid_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "grid.json").write_text(text)
    with pytest.raises(StoreError, match=r"grid\.json is damaged"):
        load_grid(str(tmp_path / "grid.json"))
