"""How many images, records and questions there are: counted where that is quick, as published where it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, CwdpoError
from cwdpo.base.store import Store
from cwdpo.data.demo_world import DemoWorld
from cwdpo.data.pairs import PairsSpec
from cwdpo.data.sources import Captions, Files, Llava, Nocaps, Ocrvqa, Preferences, Source
from cwdpo.evaluate.benchmarks.benchmark import Benchmark, Questions
from cwdpo.evaluate.benchmarks.captions import KarpathyCaptions
from cwdpo.evaluate.prepared import FOLDER as PREPARED
from cwdpo.evaluate.prepared import find_prepared
from cwdpo.evaluate.questions import QuestionsSpec
from cwdpo.graph import Node

READ = 10_000_000
"""Bytes of an annotation file that is read to be counted."""

PUBLISHED: dict[str, tuple[int, int, int]] = {
    "dataset_coco.json": (113_287, 5_000, 5_000),
    "dataset_flickr30k.json": (29_000, 1_014, 1_000),
    "llava_instruct_150k.json": (157_712, 0, 0),
    "llava_v1_5_mix665k.json": (624_610, 0, 0),
    "nsft_mixed15k.json": (15_000, 0, 0),
    "dataset.json": (166_022, 20_731, 20_797),
    "TextCaps_0.1_train.json": (21_953, 3_166, 0),
    "nocaps_val_4500_captions.json": (0, 4_500, 0),
}
"""Annotation file -> images of train, val and test, as published (entries with an image, of LLaVA's)."""

SOME = 10_000
"""Images of a training set of which nothing is known."""
FEW = 1_000
"""Questions of a benchmark of which nothing is known."""
EACH = 5
"""Captions or questions of an image where all are trained on."""

UNPUBLISHED = {("mmbench", "1.1"): 4_876, ("mmbench", "1.0"): 4_329, ("shr", ""): 200}
"""(benchmark, version) -> questions, rotations included, of benchmarks that state no count of their own: assumed."""


@dataclass(frozen=True)
class Counts:
    """Of one data set.

    Attributes:
        images: `stage1`, `stage2`, `val`, `test` -> images.
        records: the same -> records.
        assumed: what was taken for granted, a sentence; "" where all was counted.
    """

    images: Mapping[str, float]
    records: Mapping[str, float]
    assumed: str = ""

    def samples(self, portion: str, one_per_image: bool) -> float:
        """What an epoch trains on."""
        return (self.images if one_per_image else self.records)[portion]


@dataclass
class Sizes:
    """Counts of what the nodes of a plan read.

    Attributes:
        assumed: every assumption that was made so far, as keys.
    """

    store: Store
    assumed: dict[str, None] = field(default_factory=dict)

    @cached_property
    def _made(self) -> dict[str, Any]:
        return {}

    def of_pairs(self, node: Node) -> Counts:
        """Of the records that a stage `pairs` makes."""
        if node.id not in self._made:
            self._made[node.id] = self._noted(self._counted(node))
        found: Counts = self._made[node.id]
        return found

    def of_questions(self, node: Node) -> int:
        """Questions that a stage `questions` reads."""
        if node.id not in self._made:
            self._made[node.id] = self._asked(node)
        return int(self._made[node.id])

    def items(self, node: Node) -> float:
        """What a benchmark asks in a stage `generate`, `judge` or `score`."""
        benchmark: Benchmark = node.spec.benchmark  # type: ignore[attr-defined]
        if isinstance(benchmark, KarpathyCaptions):
            pairs = node.inputs["pairs"]
            assert isinstance(pairs, Node), "records are made by a stage"
            found = self.of_pairs(pairs).images[benchmark.split] or sum(benchmark.published.values())
        else:
            questions = node.inputs["questions"]
            assert isinstance(questions, Node), "questions are read by a stage"
            found = self.of_questions(questions)
        return min(found, benchmark.limit or found)

    def _noted(self, counts: Counts) -> Counts:
        if counts.assumed:
            self.assumed[counts.assumed] = None
        return counts

    def _counted(self, node: Node) -> Counts:
        assert isinstance(node.spec, PairsSpec), "only called with a stage of records"
        data = node.spec.data
        summary = self._summary(node)
        if summary:
            return _of_summary(summary, data)
        world = _world_of(node)
        if world:
            return _shared_out((world.train, world.val, world.test), data, _each(data))
        assert isinstance(data, Files), "what is not made of a world lies in files"
        return _read(data) or _as_published(data)

    def _summary(self, node: Node) -> dict[str, Any] | None:
        """What a finished stage has counted itself."""
        try:
            found: dict[str, Any] = files.read_json(node.artefact(self.store).files / "summary.json")
            return found
        except CwdpoError:
            return None

    def _asked(self, node: Node) -> int:
        assert isinstance(node.spec, QuestionsSpec), "only called with a stage of questions"
        benchmark: Questions = node.spec.benchmark
        if summary := self._summary(node):
            return int(sum(summary["questions"].values()))
        if world := _world_of(node):
            self.assumed["benchmarks of generated worlds: a question for each image of the test split"] = None
            return world.test
        try:
            return sum(find_prepared(benchmark, self.store.home / PREPARED).counts.values())
        except ConfigError:
            return self._known(benchmark)

    def _known(self, benchmark: Questions) -> int:
        """As published, or as good as any."""
        known = sum(benchmark.published.values())
        alike = UNPUBLISHED.get((benchmark.name, getattr(benchmark, "version", "")), 0)
        found = known or alike or int(getattr(benchmark, "images", 0)) or FEW
        how = "as published" if known else "assumed"
        self.assumed[f"{benchmark.name}: {found:,} questions, {how}"] = None
        return found


def _world_of(node: Node) -> DemoWorld | None:
    """The generated world that data is made of, through whatever stages."""
    before = node.inputs.get("data")
    if not isinstance(before, Node):
        return None
    return before.spec if isinstance(before.spec, DemoWorld) else _world_of(before)


def _of_summary(summary: Mapping[str, Any], data: Source) -> Counts:
    """Images of a portion are taken to have as many records as all have on average."""
    splits, portions = summary["splits"], summary.get("portions", {})
    records = {name: portions.get(name, 0) for name in ("stage1", "stage2")}
    records |= {name: splits.get(name, 0) for name in ("val", "test")}
    total = sum(records.values())
    each = total / summary["images"] if summary["images"] else 1.0
    held_out = records["val"] + records["test"]
    trained = max(summary["images"] - held_out, 1)
    per_image = max(1.0, (total - held_out) / trained) if _held_out_once(data) else each
    images = {name: count / per_image for name, count in records.items()}
    images |= {name: records[name] / (1 if _held_out_once(data) else per_image) for name in ("val", "test")}
    return Counts(images, records)


def _held_out_once(data: Source) -> bool:
    """Whether evaluation splits have one record an image."""
    return isinstance(data, Captions | Nocaps)


def _read(data: Files) -> Counts | None:
    """Of the annotation files themselves, where they are here and small."""
    root = data.root.expanduser()
    paths = [root / name for name in data.annotation_files]
    try:
        if sum(path.stat().st_size for path in paths) > READ:
            return _lines(paths[0], data) if isinstance(data, Preferences) else None
        records = data.read(root)
    except (OSError, CwdpoError):
        return None
    places: list[str] = [record.portion if record.split == "train" else record.split for record in records]
    images = {(record.image_id, place) for record, place in zip(records, places, strict=True)}
    counted, seen = Counter(places), Counter(place for _, place in images)
    names = ("stage1", "stage2", "val", "test")
    return Counts({name: seen[name] for name in names}, {name: counted[name] for name in names})


def _lines(path: Path, data: Preferences) -> Counts:
    """Of a large file with a record a line."""
    with open(path, "rb") as file:
        count = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))
    return _shared_out((count, 0, 0), data, 1, f"{path}: {count:,} lines, all of them of the training split")


def _as_published(data: Files) -> Counts:
    """By the name of the annotation file."""
    name = Path(data.annotations).name
    known = PUBLISHED.get(name, (SOME, FEW, FEW))
    how = "as published" if name in PUBLISHED else "assumed"
    text = f"{name}: {known[0]:,} images to train on, {known[1]:,} of val, {known[2]:,} of test, {how}"
    return _shared_out(known, data, _each(data), text)


def _each(data: Source) -> float:
    """Records of a training image."""
    if isinstance(data, Captions):
        return 1 if data.captions_per_image == "first" else EACH
    if isinstance(data, Ocrvqa):
        return 1 if data.questions_per_image == "first" else EACH
    return 2 if isinstance(data, Llava) and data.turns == "all" else 1


def _shared_out(splits: tuple[int, int, int], data: Source, each: float, assumed: str = "") -> Counts:
    """Counts of images by split, training shared out to both stages."""
    train, val, test = splits
    if isinstance(data, Llava):
        val, test = round(train * data.val_share), round(train * data.test_share)
        train -= val + test
    images = {"stage1": train * data.stage1_share, "stage2": train * (1 - data.stage1_share), "val": val, "test": test}
    images = {name: float(round(min(count, data.limit or count))) for name, count in images.items()}
    held_out = EACH if isinstance(data, Ocrvqa) else 1
    records = {name: count * (each if name in ("stage1", "stage2") else held_out) for name, count in images.items()}
    return Counts(images, records, assumed)
