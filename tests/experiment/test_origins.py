"""An experiment that is refused names the file, the section or the option that wrote the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwdpo.base.config import parse_overrides
from cwdpo.base.errors import ConfigError
from cwdpo.experiment.loading import load_grid

FILES = {
    "models/small.yaml": "{source: tiny}",
    "methods/dpo.yaml": "{description: x, stage1: {}, stage2: {objective: {name: dpo}}}",
    "sizes/demo.yaml": "{description: x, base: {tuning: {name: lora, rank: 4}},"
    " overrides: {stage1.optimization.max_steps: 3}, data: {karpathy: {source: demo_world}},"
    " negatives: {perturb: {count: 2}}, benchmarks: {coco: {limit: 9}}}",
    "grids/main.yaml": """
base:
  data: {source: karpathy, root: data/coco, annotations: dataset_coco.json}
  model: small
  stage1: {negatives: {source: perturb}}
  stage2: {negatives: {source: perturb}}
  benchmarks: [{name: coco}]
cases:
  dpo: {method: dpo}
  other: {method: dpo, stage2: {optimization: {max_steps: 7}}}
overrides: {stage2.optimization.learning_rate: 1e-4}
axes: {stage2.objective.beta: [0.1, 0.2]}
""",
}


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "configs"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv("CWDPO_CONFIGS", str(folder))
    return folder


def _fault(grid: str, changes: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_grid(grid, parse_overrides(changes))
    return str(caught.value).partition("\n")[0]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("grids/main.yaml", "root: ", "rooot: 1, root: ", "{grid}: base.data.rooot: unknown key 'rooot'"),
        ("grids/main.yaml", "root: data/coco, ", "", "{grid}: base.data.root: is required"),
        ("grids/main.yaml", "[{name: coco}]", "[{name: coc}]", "{grid}: base.benchmarks.0: unknown name 'coc'"),
        ("grids/main.yaml", "max_steps: 7", "max_stesp: 7", "{grid}, case 'other stage2.objective.beta=0.1': "),
        ("grids/main.yaml", "learning_rate: 1e-4", "lr: 1e-4", "{grid}: overrides.stage2.optimization.lr: un"),
        ("grids/main.yaml", "beta: [", "beat: [", "{grid}: axes.stage2.objective.beat: unknown key 'beat'"),
        ("grids/main.yaml", "model: small", "model: smal", "{grid}: base.model: unknown model 'smal'; "),
        ("grids/main.yaml", "dpo: {method: dpo}", "dpo: {method: dpoo}", "{grid}, case 'dpo': method: unknown me"),
        ("models/small.yaml", "source: tiny", "source: tiny, dtyp: x", "{0}/models/small.yaml: dtyp: unknown key"),
        ("methods/dpo.yaml", "name: dpo", "name: dpo, b: 1", "{0}/methods/dpo.yaml: stage2.objective.b: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_of_who_wrote_it(configs: Path, file: str, old: str, new: str, message: str) -> None:
    assert FILES[file].count(old) == 1
    (configs / file).write_text(FILES[file].replace(old, new))
    assert _fault("main", []).startswith(message.format(configs, grid=configs / "grids" / "main.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rank: 4", "rank: four", "{0}/sizes/demo.yaml: base.tuning.rank: Input should be a valid integer"),
        ("max_steps: 3", "max_steps: -3", "{0}/sizes/demo.yaml: overrides.stage1.optimization.max_steps: "),
        ("count: 2", "count: two", "{0}/sizes/demo.yaml: stage1.negatives.count: Input should be a valid integer"),
        ("limit: 9", "limit: x", "{grid} with {0}/sizes/demo.yaml, case 'dpo stage2.objective.beta=0.1': "),
    ],
)  # fmt: skip
def test_a_mistake_of_a_size_is_not_told_of_the_grid(configs: Path, old: str, new: str, message: str) -> None:
    assert load_grid("main-demo").cells[0].experiment.benchmarks[0].limit == 9
    text = FILES["sizes/demo.yaml"]
    assert text.count(old) == 1
    (configs / "sizes" / "demo.yaml").write_text(text.replace(old, new))
    assert _fault("main-demo", []).startswith(message.format(configs, grid=configs / "grids" / "main.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stage2.objective.betta=3", "--set stage2.objective.betta: unknown key 'betta'; did you mean 'beta'? valid: "),
        ("data.root=3", "--set data.root: "),
        ("model=tinyy", "--set model: unknown model 'tinyy'"),
        ("model=./nosuch.yaml", "--set model: nosuch.yaml: no such file"),
    ],
)
def test_a_mistake_in_set_is_not_told_of_the_file(configs: Path, change: str, message: str) -> None:
    fault = _fault("main", [change])
    assert fault.startswith(message)
    assert change.startswith("model") or "(" + str(configs / "grids" / "main.yaml") + ", case 'dpo " in fault


def test_a_list_that_holds_what_is_refused_is_not_called_too_short(configs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_grid("main", parse_overrides(['seeds=["zero"]']))
    assert str(caught.value).splitlines() == [
        f"{configs}/grids/main.yaml: seeds.0: Input should be a valid integer, unable to parse string as an integer;"
        " found 'zero'"
    ]


def test_an_included_file_that_is_not_there_names_who_includes_it(configs: Path) -> None:
    (configs / "grids" / "both.yaml").write_text("include: [main, ./nosuch.yaml]\n")
    assert _fault("both", []) == f"{configs}/grids/both.yaml: include: nosuch.yaml: no such file"
