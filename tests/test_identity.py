"""Identities: they follow what is computed and nothing else, and an upgrade does not change them by accident."""

from __future__ import annotations

import json
import shutil
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from cwdpo.base import sources
from cwdpo.base.config import Config, Place, validate
from cwdpo.base.errors import ConfigError
from cwdpo.base.identity import canonical_json, digest, seed_from
from cwdpo.base.runtime import Execution
from cwdpo.experiment import Experiment
from cwdpo.model.config import model_digest
from cwdpo.negatives.stage import NegativesSpec
from cwdpo.objectives import PreferenceObjective, SupervisedObjective
from cwdpo.pipeline import STAGES, Wired, Wiring

GOLDEN = Path(__file__).parent / "golden" / "identities.json"

ADVICE = """
Identities changed: every finished artefact of every user would be computed again.
- Not meant? A new field needs a neutral value: `Annotated[..., Neutral(value)]`; a field that says where something lies
  is `Annotated[..., Place()]`. A changed default changes what old files mean: leave it, or take the cost knowingly.
- Meant (a stage's files mean something else now)? Raise its version in cwdpo/pipeline.py, say so in the commit, and
  write the new ids with `PYTHONPATH=. python tests/test_identity.py`.
"""


# ---- small worlds of files, the same bytes everywhere


def make_files(folder: Path) -> Path:
    """A Karpathy file, a preference file, images and a model folder; bytes that only identities read."""
    for kind in ("train", "again/train", "other/train"):
        (folder / "data" / kind).mkdir(parents=True)
        for number in range(3):
            size = 10 * number + (7 if kind.startswith("other") else 0)
            (folder / "data" / kind / f"{number}.jpg").write_bytes(b"x" * size)
    images = [
        {
            "filepath": "train",
            "filename": f"{n}.jpg",
            "split": "train",
            "imgid": n,
            "sentences": [{"raw": f"Ball {n}."}],
        }
        for n in range(3)
    ]
    rows = [{"image": f"train/{n}.jpg", "chosen": f"Ball {n}.", "rejected": f"Cube {n}."} for n in range(3)]
    for name in ("dataset_coco.json", "copy.json"):
        (folder / "data" / name).write_text(json.dumps({"images": images}))
    for name in ("preferences.jsonl", "copy.jsonl"):
        (folder / "data" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, content in other_formats().items():
        for file in (name, f"copy_{name}"):
            (folder / "data" / file).write_text(json.dumps(content))
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        (model / name).write_text(json.dumps({"name": name}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    shutil.copytree(folder / "data", folder / "elsewhere" / "data")
    shutil.copytree(model, folder / "elsewhere" / "model")
    return folder


def other_formats() -> dict[str, Any]:
    """The same images in the formats of LLaVA, OCR-VQA and TextCaps."""
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A ball."}]
    cover = {"imageURL": "http://x.y/z.jpg", "questions": ["What?"], "answers": ["A ball"]}
    entry = {"caption_str": "A ball.", "reference_strs": ["A ball."]}
    return {
        "llava_instruct_150k.json": [{"image": f"train/{n}.jpg", "conversations": turns} for n in range(3)],
        "dataset.json": {f"{n}": {**cover, "split": 1} for n in range(3)},
        "TextCaps_0.1_train.json": {"data": [{**entry, "image_id": f"{n}", "set_name": "train"} for n in range(2)]},
        "TextCaps_0.1_val.json": {"data": [{**entry, "image_id": "2", "set_name": "val"}]},
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("identity"))


def experiments(files: Path) -> dict[str, dict[str, Any]]:
    """Between them, every member of every union of an experiment; each setting of each is one that matters."""
    data, model = str(files / "data"), str(files / "model")
    demo = {"source": "demo_world", "world": {"biases": [{"word": "red", "written_as": "orange"}]}}
    tiny = {"source": "tiny", "world": {"biases": [{"word": "blue", "written_as": "purple"}]}}
    karpathy = {"source": "karpathy", "root": data}
    preferences = {"source": "preferences", "root": data}
    perturb, dataset = {"source": "perturb"}, {"source": "dataset"}
    sampled = {"name": "coco", "decoding": {"strategy": "sample"}}
    beam = {"strategy": "beam", "beams": 3}
    corrective = {"source": "corrective", "of": {**perturb, "of": "reference"}}
    phase = {"sft_phase": {"objective": {"name": "sft_revised"}}}
    first = {
        name: {"stage1": {"objective": {"name": name}} | ({"negatives": corrective} if uses_rejected else {})}
        for name, uses_rejected in named(SupervisedObjective).items()
    }
    then = {
        f"then {name}": {"stage2": {"objective": {"name": name}} | ({"negatives": corrective} if uses_rejected else {})}
        for name, uses_rejected in named(PreferenceObjective).items()
    }
    phased = {"opa_dpo with its phase": {"stage2": {**then["then opa_dpo"]["stage2"], **phase}}}
    then["then ppo"]["stage2"]["rollouts"] = {"prompts": 256}
    methods = {**first, **then, **phased}
    return {
        **{name: {"data": demo, "model": tiny, "seed": 1, **method} for name, method in methods.items()},
        **{
            f"negatives {name}": {
                "data": demo,
                "model": tiny,
                "stage2": {"objective": {"name": "dpo"}, "negatives": negatives},
                "seed": 1,
            }
            for name, negatives in negatives_of(perturb, dataset).items()
        },
        "demo": {
            "data": demo,
            "model": tiny,
            "tuning": {"name": "lora"},
            "stage1": {"objective": {"name": "sft_c"}, "negatives": perturb},
            "stage2": {"objective": {"name": "cw_dpo"}, "negatives": dataset},
            "benchmarks": [{"name": "captions", "decoding": beam}, sampled],
            "seed": 1,
        },
        "files": {
            "data": karpathy,
            "model": {"source": "checkpoint", "path": model, "dtype": "float32"},
            "tuning": {"name": "full"},
            "stage1": {"objective": {"name": "sft_c"}, "negatives": dataset},
            "stage2": {"objective": {"name": "dpo"}, "negatives": perturb},
            "benchmarks": [
                {"name": "flickr30k", "data": preferences, "decoding": beam},
                {"name": "coco", "data": demo, "decoding": beam},
            ],
            "seed": 1,
        },
        "preferences": {
            "data": preferences,
            "model": tiny,
            "stage1": {"objective": {"name": "sft"}},
            "benchmarks": [{"name": "captions", "data": karpathy, "decoding": beam}],
            "seed": 1,
        },
        **{
            source: {
                "data": {"source": source, "root": data, **more},
                "model": tiny,
                "stage1": {"objective": {"name": "sft"}},
                "benchmarks": [{"name": "captions", "decoding": beam}],
                "seed": 1,
            }
            for source, more in {
                "llava": {"test_share": 0.3},
                "ocrvqa": {"images": "train"},
                "textcaps": {"images": "train"},
            }.items()
        },
        "probed": {
            "data": demo,
            "model": tiny,
            "stage1": {"objective": {"name": "sft"}},
            "stage2": {"objective": {"name": "dpo"}, "negatives": perturb},
            "probe": {"samples": 16, "influence": {"updates": 2}},
            "seed": 1,
        },
        **{
            f"steered by {rule} and {curriculum}": {
                "data": demo,
                "model": tiny,
                "stage1": {"objective": {"name": "sft"}, "early_stop": {"name": rule}},
                "stage2": {
                    "objective": {"name": "dpo"},
                    "negatives": perturb,
                    "early_stop": {"name": rule},
                    "curriculum": {"name": curriculum},
                },
                "probe": {"samples": 16, "alarms": ["squeezing"]},
                "seed": 1,
            }
            for rule, curriculum in (("margin", "ordered"), ("chosen", "sampled"))
        },
        "rounds": {
            "data": demo,
            "model": tiny,
            "stage2": {
                "objective": {"name": "dpo"},
                "negatives": negatives_of(perturb, dataset)["sample"],
                "refresh": {"rounds": 2},
            },
            "seed": 1,
        },
    }


def negatives_of(perturb: dict[str, Any], dataset: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Sources that ask the policy or stand around others."""
    asking = {
        name: {"source": name, "max_new_tokens": 32, "block": 8}
        for name in ("beam", "sample", "own_answer", "augmented_image", "self_critic")
    }
    shares = {"policy": {"share": 0.8, "negatives": asking["sample"]}, "data": {"negatives": dataset}}
    endpoint = {"model": "writer", "base_url": "http://node7:8000/v1", "prices": {"input": 1.0, "output": 2.0}}
    endpoint |= {"budget": {"tokens": 10**9, "cost": 5.0}}
    return {
        **asking,
        "llm": {"source": "llm", "endpoint": endpoint},
        "revised": {"source": "revised", "endpoint": endpoint, "max_new_tokens": 32},
        "corrective by a model": {"source": "corrective", "of": perturb, "writer": {"endpoint": endpoint}},
        "graded": {"source": "graded", "of": {"easy": {**dataset, "count": 2}, "medium": {**perturb, "edits": 2}}},
        "mixed": {"source": "mixed", "of": shares},
    }


def named(union: Any) -> dict[str, bool]:
    """Names of the objectives of a union, and whether they need rejected responses."""
    objectives = [member() for member in get_args(get_args(union)[0])]
    return {objective.name: objective.uses_rejected for objective in objectives}


def build(content: dict[str, Any]) -> Experiment:
    return validate(Experiment, content, "test")


def wire(experiment: Experiment, files: Path) -> Wired:
    return Wiring(files / "cache").wire(experiment)


def ids(experiment: Experiment, files: Path) -> set[str]:
    """Of all stages; those that only share the work of another one are no part of a result."""
    return {node.id for node in wire(experiment, files).nodes() if not node.share}


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


def parts(annotation: Any) -> Iterator[Any]:
    """Every type inside an annotation, unions and containers taken apart."""
    if get_origin(annotation) in (typing.Union, types.UnionType, tuple, list, dict, Mapping, typing.Annotated):
        for argument in get_args(annotation):
            yield from parts(argument)
    else:
        yield annotation


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
OTHER_VALUES: dict[str, Any] = {
    "Bias.word": "green",
    "Bias.written_as": "yellow",
    "Bias.share": 0.1,
    "TinyQwen.hidden_size": 192,
    "TinyQwen.heads": 8,
    "TinyQwen.key_value_heads": 1,
    "TinyQwen.vision_hidden_size": 80,
    "TinyQwen.vision_heads": 2,
    "TinyQwen.patch_size": 16,
    "TinyQwen.image_size": 96,
    "Karpathy.root": "{files}/elsewhere/data",
    "Karpathy.annotations": "copy.json",
    "Execution.alarms": ("peaking",),
    "Probe.alarms": ("peaking",),
    "Karpathy.images": "other",
    "Preferences.root": "{files}/elsewhere/data",
    "Preferences.annotations": "copy.jsonl",
    "Llava.root": "{files}/elsewhere/data",
    "Llava.annotations": "copy_llava_instruct_150k.json",
    "Llava.images": "other",
    "Ocrvqa.root": "{files}/elsewhere/data",
    "Ocrvqa.annotations": "copy_dataset.json",
    "Ocrvqa.images": "other/train",
    "Ocrvqa.image_suffix": ".jpg",
    "Textcaps.root": "{files}/elsewhere/data",
    "Textcaps.annotations": "copy_TextCaps_0.1_train.json",
    "Textcaps.val_annotations": "copy_TextCaps_0.1_val.json",
    "Textcaps.images": "other/train",
    "Checkpoint.path": "{files}/elsewhere/model",
    "Checkpoint.revision": "main",
    "Optimization.betas": (0.8, 0.99),
    "Pretraining.betas": (0.8, 0.99),
    "Perturb.kinds": ("colour",),
    "Fraction.share": 0.2,
    "Endpoint.top_p": 0.5,
    "Endpoint.base_url": "http://node8:8000/v1",
    "Endpoint.key": "OTHER_KEY",
    "Written.prompt": "Is this right: $question\n",
    "Written.kinds": ("object",),
    "Revised.prompt": "Is this right: $question\n",
    "Writer.prompt": "Is this right: $question\n",
}


def other_value(model: BaseModel, name: str, files: Path) -> Any:
    known = OTHER_VALUES.get(f"{type(model).__name__}.{name}")
    if isinstance(known, str):
        return known.format(files=files)
    if known is not None:
        return known
    value, annotation = getattr(model, name), type(model).model_fields[name].annotation
    choices = [item for part in parts(annotation) if get_origin(part) is Literal for item in get_args(part)]
    if choices:
        return next(item for item in choices if item != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 if value else 0.25
    if isinstance(value, int) or (value is None and int in parts(annotation)):
        return (value or 0) + 1
    assert isinstance(value, str), f"{type(model).__name__}.{name}: add another valid value to OTHER_VALUES"
    return value + "x"


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    head, *rest = path
    inner = changed(content[head], tuple(rest), value)
    if isinstance(head, int):
        return [inner if index == head else item for index, item in enumerate(content)]
    return {**content, head: inner}


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


# ---- digests of the code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the same name with three small modules."""
    folder = tmp_path / "cwdpo"
    (folder / "base").mkdir(parents=True)
    code = {
        "stage.py": (
            '"""A stage."""\nfrom cwdpo import other\nfrom cwdpo.base import files\nfrom cwdpo.helper import add\n'
            'WORDS = "words.yaml"\n\ndef run(x):\n    """Run it."""\n    return add(x, 1)\n'
        ),
        "helper.py": "def add(x, y):\n    import cwdpo.deep\n\n    return x + y\n",
        "other.py": "A = 1\n",
        "deep.py": "B = 1\n",
        "unrelated.py": "C = 1\n",
        "__init__.py": "",
        "base/files.py": "D = 1\n",
        "words.yaml": "a: 1\n",
        "more.yaml": "a: 1\n",
    }
    for name, text in code.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", folder)
    forget_sources()
    yield folder
    forget_sources()


def forget_sources() -> None:
    """As in a new process."""
    sources._read.cache_clear()
    sources._digests.cache_clear()


class Plain(Config):
    """A specification from outside the package."""


def changes(package: Path, name: str, old: str, new: str) -> list[str]:
    """What counts as changed after an edit of one file."""
    before = sources.source_digests("cwdpo.stage", Plain())
    path = package / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    forget_sources()
    return sources.changed_sources(before, "cwdpo.stage", Plain())


def test_the_sources_of_a_stage_are_what_it_imports_but_not_the_plumbing(package: Path) -> None:
    found = sources.source_digests("cwdpo.stage", Plain())
    assert list(found) == ["cwdpo.deep", "cwdpo.helper", "cwdpo.other", "cwdpo.stage", "cwdpo/words.yaml"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stage.py", '"""Run it."""', '"""Run it well."""'),
        ("stage.py", '"""A stage."""\n', ""),
        ("stage.py", "return add(x, 1)", "return add(\n        x,\n        1,  # one\n    )"),
        ("helper.py", "def add", "# adds\ndef add"),
        ("base/files.py", "1", "2"),
        ("unrelated.py", "1", "2"),
        ("more.yaml", "1", "2"),
    ],
)
def test_comments_docstrings_layout_and_plumbing_do_not_count(package: Path, name: str, old: str, new: str) -> None:
    assert changes(package, name, old, new) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        ("stage.py", "add(x, 1)", "add(x, 2)", ["cwdpo.stage"]),
        ("helper.py", "x + y", "x - y", ["cwdpo.helper"]),
        ("other.py", "1", "2", ["cwdpo.other"]),
        ("deep.py", "1", "2", ["cwdpo.deep"]),
        ("words.yaml", "1", "2", ["cwdpo/words.yaml"]),
        ("other.py", "A = 1", "from cwdpo.unrelated import C", ["cwdpo.other", "cwdpo.unrelated"]),
    ],
)
def test_a_change_of_code_or_of_data_it_names_counts(
    package: Path, name: str, old: str, new: str, found: list[str]
) -> None:
    assert changes(package, name, old, new) == found


def digests(stage: str, spec: dict[str, Any]) -> dict[str, str]:
    return sources.source_digests(STAGES[stage].module, STAGES[stage].spec.model_validate(spec))


def test_the_lexicon_is_a_source_of_negatives_by_rule_only() -> None:
    found = digests("negatives", {"negatives": {"source": "perturb"}, "portion": "stage1"})
    assert {"cwdpo.negatives.perturb", "cwdpo/negatives/lexicon.yaml"} <= set(found)
    assert [name for name in found if name.startswith("cwdpo.base")] == ["cwdpo.base.identity"], "seeds come from it"
    other = digests("negatives", {"negatives": {"source": "dataset"}, "portion": "stage1"})
    assert "cwdpo.negatives.dataset" in other
    assert "cwdpo/negatives/lexicon.yaml" not in other


def test_a_training_depends_on_its_own_objective_only() -> None:
    found = digests("stage2", {"policy": {"dtype": "float32"}, "objective": {"name": "cw_dpo"}})
    assert "cwdpo.objectives.cw_dpo" in found
    assert "cwdpo.objectives.dpo" not in found
    assert "cwdpo.evaluate.generate" not in found


def test_sources_inside_a_mixture_count() -> None:
    """Changing a rule of `perturb` makes a mixture with it stale, as it does `perturb` alone."""
    perturb = {"source": "perturb"}
    mixture = {"source": "mixed", "of": {"swapped": {"negatives": perturb}}}
    alone, mixed = (
        sources.source_digests(
            "cwdpo.negatives.stage", validate(NegativesSpec, {"negatives": made, "portion": "stage1"}, "x")
        )
        for made in (perturb, mixture)
    )
    assert "cwdpo/negatives/lexicon.yaml" in alone
    assert alone.items() <= mixed.items()
    assert not {"cwdpo.negatives.page", "cwdpo.negatives.summary"} & set(alone), "they only show what was made"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text(json.dumps(named_ids(make_files(Path(place))), indent=1) + "\n")
