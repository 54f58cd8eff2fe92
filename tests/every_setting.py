"""Experiments with every setting there is, on small worlds of files: what tests of identities and wiring share."""

from __future__ import annotations

import json
import shutil
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from cwdpo.base.config import validate
from cwdpo.base.identity import digest
from cwdpo.evaluate.benchmarks import PREPARABLE
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.prepared import Prepared, receipt_of, settings_of
from cwdpo.experiment import Experiment
from cwdpo.graph import Wired
from cwdpo.objectives import PreferenceObjective, SupervisedObjective
from cwdpo.pipeline import Wiring

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
    write_receipts(folder)
    shutil.copytree(folder / "data", folder / "elsewhere" / "data")
    shutil.copytree(model, folder / "elsewhere" / "model")
    return folder


def write_receipts(folder: Path) -> None:
    """Of every benchmark of questions, and of each with another value of what decides which questions it has."""
    for benchmark in (kind(name=name) for name, kind in PREPARABLE.items() if issubclass(kind, Questions)):
        others = [benchmark.model_copy(update={key: other_value(benchmark, key, folder)}) for key in benchmark.reads]
        for one in (benchmark, *others):
            write_receipt(one, folder)


def write_receipt(benchmark: Questions, folder: Path) -> None:
    """A benchmark that is ready, as far as identities read what was written down of it."""
    root = str(folder / "data")
    made = Prepared(benchmark.name, settings_of(benchmark), root, digest(benchmark.name), {}, {}, 0)  # type: ignore[attr-defined]
    path = receipt_of(benchmark, folder / "benchmarks")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(made)))


def other_formats() -> dict[str, Any]:
    """The same images in the formats of LLaVA, OCR-VQA and TextCaps."""
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A ball."}]
    cover = {"imageURL": "http://x.y/z.jpg", "questions": ["What?"], "answers": ["A ball"]}
    entry = {"caption_str": "A ball.", "reference_strs": ["A ball."]}
    return {
        "llava_instruct_150k.json": [{"image": f"train/{n}.jpg", "conversations": turns} for n in range(3)],
        "dataset.json": {f"{n}": {**cover, "split": 1} for n in range(3)},
        "TextCaps_0.1_train.json": {"data": [{**entry, "image_id": f"{n}", "set_name": "train"} for n in range(2)]},
        "nocaps_val_4500_captions.json": {
            "images": [{"id": n, "file_name": f"{n}.jpg", "domain": "in-domain"} for n in range(3)],
            "annotations": [{"id": n, "image_id": n, "caption": f"Ball {n}."} for n in range(3)],
        },
        "TextCaps_0.1_val.json": {"data": [{**entry, "image_id": "2", "set_name": "val"}]},
    }


# ---- experiments


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
        "questions": {
            "data": demo,
            "model": tiny,
            "stage1": {"objective": {"name": "sft"}},
            "judge": {"model": "judge", "base_url": "http://node7:8000/v1", "prices": {"input": 1.0, "output": 2.0}}
            | {"budget": {"tokens": 10**9, "cost": 5.0}},
            "benchmarks": [
                {"name": "nocaps", "data": {"source": "nocaps", "root": data, "images": "train"}, "decoding": beam},
                *({"name": name, "decoding": beam} for name, kind in PREPARABLE.items() if issubclass(kind, Questions)),
            ],
            "seed": 1,
        },
        "generated questions": {
            "data": demo,
            "model": tiny,
            "stage1": {"objective": {"name": "sft"}},
            "benchmarks": [
                {"name": name, "data": {"source": "demo_world", "world": {"train": 0, "val": 0}}, "decoding": beam}
                for name in ("pope", "mmbench", "nocaps")
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


# ---- another value of everything


def parts(annotation: Any) -> Iterator[Any]:
    """Every type inside an annotation, unions and containers taken apart."""
    if get_origin(annotation) in (typing.Union, types.UnionType, tuple, list, dict, Mapping, typing.Annotated):
        for argument in get_args(annotation):
            yield from parts(argument)
    else:
        yield annotation


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
    "Nocaps.root": "{files}/elsewhere/data",
    "Nocaps.annotations": "copy_nocaps_val_4500_captions.json",
    "Nocaps.images": "other/train",
    "Mmhal.judge_prompt": "Is $answer right?",
    "MmVet.judge_prompt": "Is $answer right?",
    "Shr.judge_prompt": "Is $answer right?",
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
