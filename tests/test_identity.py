"""Identities: they follow what is computed and nothing else, and an upgrade does not change them by accident."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from every_setting import build, changed, experiments, ids, make_files, other_value, parts, wire
from pydantic import BaseModel

from cwdpo.base.config import Place
from cwdpo.base.errors import ConfigError
from cwdpo.base.identity import canonical_json, digest, seed_from
from cwdpo.base.runtime import Execution
from cwdpo.experiment import Experiment
from cwdpo.model.config import model_digest
from cwdpo.pipeline import STAGES

GOLDEN = Path(__file__).parent / "golden" / "identities.json"

ADVICE = """
Identities changed: every finished artefact of every user would be computed again.
- Not meant? A new field needs a neutral value: `Annotated[..., Neutral(value)]`; a field that says where something lies
  is `Annotated[..., Place()]`. A changed default changes what old files mean: leave it, or take the cost knowingly.
- Meant (a stage's files mean something else now)? Raise its version in cwdpo/pipeline.py, say so in the commit, and
  write the new ids with `PYTHONPATH=.:tests python tests/test_identity.py`.
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("identity"))


# ---- golden identities


def named_ids(files: Path) -> dict[str, list[str]]:
    """Experiment -> its nodes in the order of the data path, named as their folders are."""
    wired = {name: wire(build(content), files) for name, content in experiments(files).items()}
    return {name: [f"{node.stage.name}-{node.id[:16]}" for node in one.nodes()] for name, one in wired.items()}


def test_identities_are_the_golden_ones(files: Path) -> None:
    assert named_ids(files) == json.loads(GOLDEN.read_text()), ADVICE


def test_the_golden_grid_has_every_stage(files: Path) -> None:
    found = {name.rpartition("-")[0] for names in named_ids(files).values() for name in names}
    assert found == set(STAGES)


# ---- every field either changes what is computed or says where it runs


def models_in(annotation: Any) -> list[type[BaseModel]]:
    return [part for part in parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]


def reachable(model: type[BaseModel]) -> set[type[BaseModel]]:
    found, waiting = set(), [model]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [inner for field in one.model_fields.values() for inner in models_in(field.annotation)]
    return found


def is_constant(annotation: Any) -> bool:
    """A tag: a literal with one value."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def leaves(value: BaseModel, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], BaseModel, str]]:
    """(path, model, field) of everything in `value` that is no model and no tag."""
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        if isinstance(item, BaseModel):
            yield from leaves(item, (*path, name))
        elif isinstance(item, tuple) and item and isinstance(item[0], BaseModel):
            for index, member in enumerate(item):
                yield from leaves(member, (*path, name, index))
        elif isinstance(item, Mapping) and all(isinstance(member, BaseModel) for member in item.values()):
            for key, member in item.items():
                yield from leaves(member, (*path, name, key))
        elif not models_in(field.annotation) and not is_constant(field.annotation):
            yield (*path, name), value, name


# Where adding one, or the next choice, is not another valid value; {files} is the folder of `make_files`.
def is_place(model: BaseModel, name: str) -> bool:
    return any(isinstance(mark, Place) for mark in type(model).model_fields[name].metadata)


def test_every_field_changes_an_identity_or_says_where_it_runs(files: Path) -> None:
    ignored, moved, seen = [], [], set()
    for label, content in experiments(files).items():
        experiment = build(content)
        before = ids(experiment, files)
        for path, model, name in leaves(experiment):
            where = f"{label}: {'.'.join(map(str, path))}"
            value = other_value(model, name, files)
            assert value != getattr(model, name), f"{where}: OTHER_VALUES repeats the value"
            try:
                after = ids(build(changed(experiment.model_dump(), path, value)), files)
            except ConfigError:  # such as negatives that no longer make what the objective needs
                continue
            free = isinstance(model, Execution) or is_place(model, name)
            if free and after != before and where != "probed: probe.alarms":  # who looks on needs no stage afterwards
                moved.append(where)
            if not free and after == before:
                ignored.append(where)
            seen.add((type(model), name))
    assert not moved, f"these say where something runs, yet change what it is: {moved}"
    assert not ignored, (
        f"these change no identity, so a changed value would be answered with old results: {ignored}."
        " Let a stage's spec carry them, or mark them as a Place."
    )
    expected = {
        (model, name)
        for model in reachable(Experiment)
        for name, field in model.model_fields.items()
        if not models_in(field.annotation) and not is_constant(field.annotation)
    }
    missed = sorted(f"{model.__name__}.{name}" for model, name in expected - seen)
    assert not missed, f"no experiment of this file sets {missed}: add them to `experiments`"


def test_the_guard_knows_a_field_without_effect(files: Path) -> None:
    """Negatives that no objective uses change nothing: what the guard would say of a forgotten field."""
    content = {**experiments(files)["preferences"], "stage1": {"negatives": {"source": "perturb"}}}
    other = {**content, "stage1": {"negatives": {"source": "perturb", "seed": 5}}}
    assert ids(build(content), files) == ids(build(other), files)


@pytest.mark.parametrize(
    ("section", "value"), [("stage1", None), ("stage2", None), ("tuning", {"name": "full"}), ("benchmarks", [])]
)
def test_a_section_taken_out_or_replaced_is_another_experiment(files: Path, section: str, value: Any) -> None:
    content = experiments(files)["demo"]
    assert ids(build({**content, section: value}), files) != ids(build(content), files)


# ---- sharing


def by_stage(content: dict[str, Any], files: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in wire(build(content), files).nodes():
        found.setdefault(node.stage.name, []).append(node.id)
    return found


def test_seeds_share_everything_before_training(files: Path) -> None:
    content = experiments(files)["demo"]
    one, two = (by_stage({**content, "seed": seed}, files) for seed in (1, 2))
    shared = {stage for stage in one if one[stage] == two[stage]}
    assert shared == {"world", "pairs", "pretrain", "negatives"}


def test_a_stage_2_setting_leaves_stage_1_alone(files: Path) -> None:
    content = experiments(files)["demo"]
    other = changed(content, ("stage2", "objective"), {"name": "cw_dpo", "beta": 0.5})
    one, two = by_stage(content, files), by_stage(other, files)
    assert {stage for stage in one if one[stage] != two[stage]} == {"stage2", "generate", "score"}


def test_a_greedy_answer_of_the_base_model_is_shared_by_seeds_and_a_sampled_one_is_not(files: Path) -> None:
    base = {key: value for key, value in experiments(files)["demo"].items() if key not in ("stage1", "stage2")}
    for strategy, shared in (("greedy", True), ("beam", True), ("sample", False)):
        content = {**base, "benchmarks": [{"name": "coco", "decoding": {"strategy": strategy}}]}
        one, two = (by_stage({**content, "seed": seed}, files) for seed in (1, 2))
        assert (one["generate"] == two["generate"]) == shared


# ---- places


def test_a_data_folder_copied_elsewhere_is_the_same_data(files: Path) -> None:
    content = experiments(files)["files"]
    moved = changed(content, ("data", "root"), str(files / "elsewhere" / "data"))
    assert ids(build(moved), files) == ids(build(content), files)


def test_other_annotations_or_image_sizes_are_other_data(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    content = experiments(files)["files"]
    before = ids(build(content), files)
    (files / "elsewhere" / "data" / "train" / "1.jpg").write_bytes(b"y" * 11)
    moved = changed(content, ("data", "root"), str(files / "elsewhere" / "data"))
    assert ids(build(moved), files) != before
    path = files / "data" / "dataset_coco.json"
    path.write_text(path.read_text().replace("Ball 1.", "Bell 12."))
    assert ids(build(content), files) != before


def test_a_model_folder_copied_elsewhere_is_the_same_model(files: Path) -> None:
    content = experiments(files)["files"]
    moved = changed(content, ("model", "path"), str(files / "elsewhere" / "model"))
    assert ids(build(moved), files) == ids(build(content), files)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_changed_file_is_another_model(tmp_path: Path, name: str) -> None:
    files = make_files(tmp_path)
    before = model_digest(files / "model")
    path = files / "model" / name
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert model_digest(files / "model") != before
    assert model_digest(files / "elsewhere" / "model") == before


def test_what_else_lies_in_a_model_folder_does_not_matter(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    before = model_digest(files / "model")
    (files / "model" / "README.md").write_text("# A model")
    (files / "model" / ".cache").mkdir()
    assert model_digest(files / "model") == before


# ---- canonical spelling


def test_equal_values_have_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é", None, True]}) == '{"a":[1.5,"\\u00e9",null,true],"b":1}'
    # printf '{"a":1}' | sha256sum
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


def test_seeds_are_63_bits_of_a_hash() -> None:
    # printf 'a\x1f1' | sha256sum, first 8 bytes, halved
    import hashlib

    expected = int(hashlib.sha256(b"a\x1f1").hexdigest()[:16], 16) // 2
    assert seed_from("a", 1) == expected < 2**63
    assert len({seed_from("a", 1), seed_from("a1"), seed_from("a", 11), seed_from("b", 1)}) == 4


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text(json.dumps(named_ids(make_files(Path(place))), indent=1) + "\n")
