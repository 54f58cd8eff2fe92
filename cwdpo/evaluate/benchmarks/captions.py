"""Captioning of held-out images: load, prompt, score. COCO, Flickr30k and NoCaps build on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from cwdpo.base.errors import DataError
from cwdpo.data.records import Record, open_records
from cwdpo.data.sources import DataSource, Demo, Karpathy, Nocaps, Source
from cwdpo.evaluate.benchmarks.benchmark import Benchmark, nothing_to_score, was_asked
from cwdpo.evaluate.question import Metric, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.model.generate import Prompted

METRICS = {
    "bleu_4": Metric("bleu_4", "BLEU-4"),
    "meteor": Metric("meteor", "METEOR"),
    "rouge_l": Metric("rouge_l", "ROUGE-L"),
    "cider": Metric("cider", "CIDEr"),
    "spice": Metric("spice", "SPICE", optional=True),
}


class KarpathyCaptions(Benchmark):
    """Captions of held-out images against all their references."""

    data: DataSource | None = None
    """Where the images are; None takes the experiment's own data set, or what `cwdpo data prepare` made ready."""
    split: Literal["val", "test"] = "test"
    """Which split is described."""
    prompt: str = "Describe the image briefly."
    """The user's turn."""

    metrics: ClassVar[tuple[Metric, ...]] = tuple(METRICS.values())
    compared: ClassVar[Metric] = METRICS["cider"]

    @classmethod
    def is_of(cls, data: Source) -> bool:
        """Whether it describes an experiment's own data where `data` is not set; else it is what was prepared."""
        return True

    def as_made(self, data: Demo) -> DataSource | None:
        """How files are read that stage `demo_benchmark` makes of a world; None where the world is read as it is."""
        return None

    def items(self, inputs: Mapping[str, Path]) -> list[Prompted]:
        """One item per image of the split.

        Raises:
            DataError: the split is empty.
        """
        return [Prompted.about(record.image_id, record.image, self.prompt) for record in self._records(inputs)]

    def scored(self, inputs: Mapping[str, Path], answers: Mapping[str, Mapping[str, Any]]) -> Scores:
        """Score answers by image id; what cannot be computed is None with the reason."""
        texts = {name: str(row["text"]) for name, row in answers.items() if was_asked(row)}
        left_out = len(answers) - len(texts)
        if not texts:
            return nothing_to_score(self.metrics, left_out)
        records = [record for record in self._records(inputs) if record.image_id not in answers.keys() - texts.keys()]
        return replace(self.score(texts, records), left_out=left_out)

    def score(self, texts: Mapping[str, str], records: Sequence[Record]) -> Scores:
        """Score captions by image id against the references of the records."""
        from cwdpo.metrics.captions import score_captions

        references = {record.image_id: record.references for record in records}
        found = score_captions(texts, references, ("bleu", "meteor", "rouge_l", "cider", "spice"))
        return Scores(found.corpus, found.per_item, found.unavailable)

    def harness(self) -> dict[str, Any]:
        """Versions of pycocoevalcap and Java."""
        from cwdpo.metrics.captions import harness

        return harness()

    def _records(self, inputs: Mapping[str, Path]) -> Sequence[Record]:
        records = open_records(inputs["pairs"] / "records.jsonl")
        by_image = {record.image_id: record for record in reversed(records) if record.split == self.split}
        chosen = list(reversed(by_image.values()))[: self.limit]
        if not chosen:
            found = sorted({record.split for record in records})
            raise DataError(f"nothing to describe: the {self.split} split is empty; found {', '.join(found) or 'none'}")
        return chosen


class PreparedCaptions(KarpathyCaptions):
    """A published benchmark, which `cwdpo data prepare` can make ready."""

    annotations: ClassVar[str]
    """Name of its file."""
    source: ClassVar[str]
    """What to download, in a sentence, for people."""

    def prepared(self, download: Download) -> tuple[DataSource, dict[str, int]]:
        """The data set in a download, and its images by domain or split; those missing are in `download.missing`.

        Raises:
            DataError: the split is empty, or its images lie in several folders.
        """
        path = download.file(self.annotations)
        name = path.relative_to(download.root).as_posix()
        found = self.found_in(download, name)
        records = [record for record in found.read(download.root) if record.split == self.split]
        if not records:
            raise DataError(f"{path}: the {self.split} split is empty")
        data = found.model_copy(update={"images": _folder(download, records, str(path))})
        return data, dict(Counter(record.domain or record.split for record in records))

    def found_in(self, download: Download, annotations: str) -> Karpathy | Nocaps:
        """The data set of an annotation file, images not found yet."""
        return Karpathy(source="karpathy", root=download.root, annotations=annotations)


class Captions(KarpathyCaptions):
    """The held-out images of any Karpathy file, without the name of a published benchmark."""

    name: Literal["captions"]


def _folder(download: Download, records: Sequence[Record], where: str) -> str:
    """The folder that the paths of images are relative to."""
    paths = [(download.image(record.image, f"{where}, image {record.image_id}"), record.image) for record in records]
    folders = {full.removesuffix(image).strip("/") for full, image in paths if full in download.images}
    if len(folders) > 1:
        raise DataError(f"{where}: its images lie in several folders, put them into one: {', '.join(sorted(folders))}")
    return next(iter(folders), "")
