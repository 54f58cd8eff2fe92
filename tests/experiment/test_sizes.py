"""Sizes: `--grid main-demo` is a grid with one file laid over it, which wins, stands in, and takes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import cwdpo

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.experiment import Experiment, load_grid
from cwdpo.experiment.folders import find_grid
from cwdpo.experiment.standing_in import resized
from cwdpo.experiment.written import SizeFile

MAIN = """
description: three cases
base:
  data: {source: karpathy, root: data/coco}
  model: {source: checkpoint, path: big}
  stage1: {negatives: {source: perturb}}
  stage2: {negatives: {source: llm, endpoint: {model: gpt}}}
  benchmarks: [{name: captions}, {name: pope}, {name: mme, limit: 5}]
overrides: {stage2.optimization.batch_size: 64}
cases:
  base: {stage1: null, stage2: null}
  dpo: {method: dpo}
  cw_dpo: {method: cw_dpo, stage2: {objective: {tau: 2.0}}}
seeds: [0, 1, 2]
"""
SMALL = """
description: small
base: {model: {source: tiny}, stage2: {optimization: {max_length: 99}}}
overrides: {stage2.optimization: {batch_size: 4}, stage2.objective.beta: 0.3, stage2.refresh.rounds: 3}
benchmarks: {pope: {prompt: "{question}?"}, mme: null, gqa: {limit: 1}}
negatives: {llm: {source: perturb, count: 2}}
data: {karpathy: {source: demo_world, world: {train: 9}}}
seeds: [5, 6]
"""


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configurations of a user's own: one grid, one size, two methods."""
    folder = tmp_path / "configs"
    for name, text in {
        "grids/main": MAIN,
        "sizes/small": SMALL,
        "methods/dpo": "{description: x, stage1: {}, stage2: {objective: {name: dpo}}}",
        "methods/cw_dpo": "{description: x, stage1: {}, stage2: {objective: {name: cw_dpo}}}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    monkeypatch.setenv("CWDPO_CONFIGS", str(folder))
    return folder


def test_what_a_size_says_is_laid_over_the_grid(configs: Path) -> None:
    grid = load_grid("main-small")
    assert (grid.name, grid.tables_of, grid.options) == ("main-small", "main", "--grid main-small")
    assert [cell.name for cell in grid.cells] == [
        f"{case}/{seed}" for case in ("base", "dpo", "cw_dpo") for seed in (5, 6)
    ]
    base, _, dpo, _, cw_dpo, _ = (cell.experiment for cell in grid.cells)
    assert (base.model.source, base.data.world.train, base.stage2) == ("tiny", 9, None)
    assert {cell.stage2.objective.beta for cell in (dpo, cw_dpo)} == {0.3}
    assert cw_dpo.stage2.objective.tau == 2.0
    assert (dpo.stage2.optimization.batch_size, dpo.stage2.optimization.max_length) == (4, 99), (
        "over the grid's override"
    )
    assert (dpo.stage1.negatives.count, dpo.stage2.negatives.source, dpo.stage2.negatives.count) == (1, "perturb", 2)
    assert [(one.name, one.prompt) for one in base.benchmarks] == [
        ("captions", "Describe the image briefly."), ("pope", "{question}?")
    ]  # fmt: skip


def test_set_wins_over_a_size_and_a_limit_names_the_grid(configs: Path) -> None:
    grid = load_grid("main-small", {"stage2.objective.beta": 0.5, "seeds": [1], "limit": 7, "data.world.train": 8})
    assert (grid.name, grid.tables_of) == ("main-small-limit-7", "main")
    experiment = grid.cells[-1].experiment
    assert (experiment.stage2.objective.beta, experiment.seed, experiment.data.world.train) == (0.5, 1, 8)
    assert [one.limit for one in experiment.benchmarks] == [7, 7]


def test_axes_keep_their_values_and_are_stood_in_for(configs: Path) -> None:
    negatives = "[{source: dataset}, {source: llm, endpoint: {model: y}}]"
    text = f"axes: {{stage2.objective.beta: [0.1, 0.2], stage2.negatives: {negatives}}}"
    (configs / "grids" / "main.yaml").write_text(f"{MAIN}{text}\n")
    found = {
        (cell.experiment.stage2.objective.beta, cell.experiment.stage2.negatives.source)
        for cell in load_grid("main-small").cells
        if cell.family == "dpo"
    }
    assert found == {(beta, source) for beta in (0.1, 0.2) for source in ("dataset", "perturb")}


def test_a_file_of_that_name_comes_first_and_then_the_longest_size(configs: Path) -> None:
    (configs / "grids" / "main-very.yaml").write_text(MAIN)
    (configs / "sizes" / "very-small.yaml").write_text(SMALL)
    found = find_grid("main-very-small")
    assert (found.grid.stem, found.size and found.size.stem) == ("main", "very-small")
    (configs / "sizes" / "very-small.yaml").unlink()
    found = find_grid("main-very-small")
    assert (found.grid.stem, found.size and found.size.stem) == ("main-very", "small")
    (configs / "grids" / "main-very-small.yaml").write_text(MAIN)
    assert (find_grid("main-very-small").size, load_grid("main-very-small").tables_of) == (None, "main-very-small")


def test_a_size_reaches_every_grid_that_is_included(configs: Path) -> None:
    (configs / "grids" / "twice.yaml").write_text(MAIN.replace("seeds: [0, 1, 2]", "seeds: [9]\ntables_of: main"))
    (configs / "grids" / "all.yaml").write_text("include: [main, twice]\n")
    whole, small = load_grid("all"), load_grid("all-small")
    assert [cell.name for cell in whole.cells][-1] == "twice:cw_dpo/9"
    assert (
        small.cases
        == whole.cases
        == [f"{grid}:{case}" for grid in ("main", "twice") for case in ("base", "dpo", "cw_dpo")]
    )
    assert {cell.seed for cell in small.cells} == {5, 6}
    assert [cell.experiment for cell in small.cells[:6]] == [cell.experiment for cell in load_grid("main-small").cells]
    assert load_grid("twice-small").tables_of == "main"


# ---- stand-ins

SIZE = validate(
    SizeFile,
    {
        "description": "x",
        "negatives": {
            "llm": {"source": "perturb", "count": 3},
            "sample": {"max_new_tokens": 9},
            "revised": {"source": "perturb", "of": "reference"},
            "corrective": {"writer": None},
            "perturb": {"seed": 4},
        },
        "data": {"llava": {"source": "demo_world"}},
    },
    "size.yaml",
)
LLM = {"source": "llm", "endpoint": {"model": "gpt"}}
STOOD_IN = {"source": "perturb", "count": 3}


@pytest.mark.parametrize(
    ("negatives", "expected"),
    [
        (LLM, STOOD_IN),
        ({"source": "sample", "temperature": 0.5}, {"source": "sample", "temperature": 0.5, "max_new_tokens": 9}),
        ({"source": "perturb", "count": 2}, {"source": "perturb", "count": 2, "seed": 4}),
        ({"source": "revised", "endpoint": {"model": "gpt"}}, {"source": "perturb", "of": "reference"}),
        ({"source": "beam"}, {"source": "beam"}),
        (
            {"source": "mixed", "of": {"a": {"share": 0.5, "negatives": LLM}, "b": {"negatives": {"source": "beam"}}}},
            {
                "source": "mixed",
                "of": {"a": {"share": 0.5, "negatives": STOOD_IN}, "b": {"negatives": {"source": "beam"}}},
            },
        ),
        (
            {"source": "graded", "of": {"hard": LLM, "easy": {"source": "dataset", "own": False}}},
            {"source": "graded", "of": {"hard": STOOD_IN, "easy": {"source": "dataset", "own": False}}},
        ),
        (
            {"source": "corrective", "of": LLM, "writer": {"endpoint": {"model": "gpt"}}},
            {"source": "corrective", "of": STOOD_IN, "writer": None},
        ),
    ],
)
def test_a_stand_in_stands_in_wherever_its_source_is_named(negatives: dict[str, Any], expected: dict[str, Any]) -> None:
    content = {
        "data": {"source": "llava", "root": "x", "annotations": "y", "images": ""},
        "model": {"source": "tiny"},
        "stage1": {"negatives": negatives},
        "stage2": {"objective": {"name": "cw_dpo"}, "negatives": negatives, "optimization": {"epochs": 2}},
        "benchmarks": [{"name": "captions", "data": {"source": "llava", "root": "x"}}],
    }
    found = resized(content, SIZE)
    assert found["stage1"] == {"negatives": expected}
    assert found["stage2"] == {**content["stage2"], "negatives": expected}
    assert found["data"] == found["benchmarks"][0]["data"] == {"source": "demo_world"}
    validate(Experiment, {**found, "seed": 0}, "x")


# ---- mistakes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "llm:",
            "lm:",
            "sizes/small.yaml: negatives: unknown source 'lm'; did you mean 'llm'? valid: augmented_image, beam",
        ),
        (
            "source: perturb",
            "source: pertub",
            "sizes/small.yaml: negatives: unknown source 'pertub'; did you mean 'perturb'?",
        ),
        ("karpathy:", "coco:", "sizes/small.yaml: data: unknown source 'coco'; valid: demo_world, karpathy, llava"),
        (
            "gqa:",
            "qga:",
            "sizes/small.yaml: benchmarks: unknown benchmark 'qga'; did you mean 'gqa'? valid: captions, chair",
        ),
        ("seeds: [5, 6]", "seeds: [5, 5]", "sizes/small.yaml: seeds: one occurs twice (5, 5)"),
        ("overrides:", "override:", "sizes/small.yaml: override: unknown key 'override'; did you mean 'overrides'?"),
        ("beta: 0.3", "betta: 0.3", "{sizes}/small.yaml: overrides.stage2.objective.betta: unknown key 'betta'"),
        ("count: 2", "conut: 2", "{sizes}/small.yaml: stage2.negatives.conut: unknown key 'conut'"),
        (
            "max_length: 99",
            "epochs: 9",
            "with {sizes}/small.yaml: base.stage2.optimization.epochs: the method of every",
        ),
    ],
)
def test_a_mistake_in_a_size_names_its_file_and_key(configs: Path, old: str, new: str, message: str) -> None:
    (configs / "methods" / "dpo.yaml").write_text(
        "{description: x, stage1: {}, stage2: {objective: {name: dpo}, optimization: {epochs: 1}}}"
    )
    (configs / "methods" / "cw_dpo.yaml").write_text(
        "{description: x, stage1: {}, stage2: {objective: {name: cw_dpo}, optimization: {epochs: 1}}}"
    )
    assert SMALL.count(old) == 1
    (configs / "sizes" / "small.yaml").write_text(SMALL.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_grid("main-small")
    assert message.format(sizes=configs / "sizes") in str(caught.value)


def test_an_unknown_grid_or_size_is_answered_with_both_kinds(configs: Path) -> None:
    (configs / "sizes" / "tall.yaml").write_text(SMALL)
    done = cwdpo("status", "--grid", "main-smal", CWDPO_CONFIGS=configs)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: unknown grid 'main-smal'; did you mean 'main-small'? valid: main; each also in a size of"
        f" {configs}/sizes/: -small, -tall (looked in {configs}/grids/)\n"
    )
