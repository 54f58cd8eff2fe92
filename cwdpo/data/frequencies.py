"""Stage `frequencies`: in how many training images' references each n-gram is, for CIDEr-D as a reward.

The documents are fixed: all images of the training split, each with all its references, whatever a run samples. One row
per n-gram that is in two images or more in frequencies.jsonl: `{"ngram": "a red ball", "images": 12}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.lines import short_hash
from cwdpo.data.records import Record, open_records
from cwdpo.metrics import ptb
from cwdpo.metrics.cider_d import CiderD

IMAGES = 10_000
"""Images whose references are tokenised together: a few seconds of Java."""


class FrequenciesSpec(Config):
    """The records are a parent, and nothing else is to be said."""


def run(context: StageContext) -> None:
    """Write frequencies.jsonl and summary.json (the number of images).

    Raises:
        NotAvailable: Java is missing.
    """
    scorer = CiderD.from_references(_tokenised(open_records(context.inputs["pairs"] / "records.jsonl")))
    ordered = sorted(scorer.document_frequency.items())
    rows = ({"ngram": " ".join(ngram), "images": count} for ngram, count in ordered)
    files.write_jsonl(context.out / "frequencies.jsonl", rows)
    files.write_json(context.out / "summary.json", {"images": scorer.documents, "tokenizer": ptb.TOKENIZER})


def load_cider(folder: Path) -> CiderD:
    """CIDEr-D with the frequencies that `run` wrote."""
    rows = files.read_jsonl(folder / "frequencies.jsonl")
    frequency = {tuple(row["ngram"].split(" ")): row["images"] for row in rows}
    return CiderD(frequency, files.read_json(folder / "summary.json")["images"])


def _tokenised(records: Iterable[Record]) -> Iterator[list[list[str]]]:
    """The references of each training image, as tokens."""
    waiting = _references(records)
    while part := list(islice(waiting, IMAGES)):
        lines = iter(ptb.tokenize([text for references in part for text in references]))
        for references in part:
            yield [next(lines).split() for _ in references]


def _references(records: Iterable[Record]) -> Iterator[Sequence[str]]:
    """Those of each training image, once."""
    seen: set[int] = set()
    for record in records:
        image = short_hash(record.image_id)
        if record.split == "train" and image not in seen:
            seen.add(image)
            yield record.references
