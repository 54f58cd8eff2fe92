"""The one internal record type, and its file."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.errors import DataError
from cwdpo.base.lines import JsonLines, Rows
from cwdpo.objectives.supply import Supply

Split = Literal["train", "val", "test"]
Portion = Literal["stage1", "stage2", "none"]
Turn = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """How right one sentence of a rejected response is.

    Attributes:
        score: 1 (wrong) to 4 (right).
        image_error: whether what is wrong is what the sentence says of the image.
    """

    score: int
    image_error: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """A response that lost, and what it may come with.

    Attributes:
        source: where the text comes from.
        grade: how hard it was graded (hard, medium, easy).
        revised: a minimal correction of the text, or None.
        dialogue: questions that correct the text, with their answers.
        scores: one for each sentence of the text, or none.
        mean_logp: of the text under the policy that made it, nats per token; None where no policy did.
        how: how it was made, in words of its source: what was swapped, which draw it is.
    """

    text: str
    source: str
    grade: str | None = None
    revised: str | None = None
    dialogue: tuple[Turn, ...] = ()
    scores: tuple[SentenceScore, ...] = ()
    mean_logp: float | None = None
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def supplies(self) -> frozenset[Supply]:
        """What training can ask for that is here."""
        found: dict[Supply, object] = {"revised": self.revised, "dialogue": self.dialogue}
        return frozenset(supply for supply, value in found.items() if value)


@dataclass(frozen=True, slots=True)
class Record:
    """One image, one prompt, one chosen response.

    Attributes:
        id: unique in its file, `<image id>#<caption number>`.
        image_id: records of one image share it; the 75/25 split goes by it.
        image: path relative to the image folder, with forward slashes.
        references: every reference of the image, for scoring; never trained on unless chosen too.
        portion: which stage trains on it; "none" outside the training split.
        domain: part of a benchmark that the image is scored with, or None.
    """

    id: str
    image_id: str
    image: str
    prompt: str
    chosen: str
    references: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    split: Split
    portion: Portion
    domain: str | None = None


def portion_of(image_id: str, split: Split, stage1_share: float) -> Portion:
    """Stage of an image: by a hash of its id, independent of seeds, order and the rest of the data set."""
    if split != "train":
        return "none"
    fraction = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") / 2**64
    return "stage1" if fraction < stage1_share else "stage2"


def clean_text(text: object, where: str) -> str:
    """`text` with white space collapsed; raises `DataError` when it is no text or empty."""
    if not isinstance(text, str):
        raise DataError(f"{where}: expected text, found {type(text).__name__}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{where}: the text holds half of a character (a lone surrogate): {text!r}")
    cleaned = " ".join(text.split())
    if not cleaned:
        raise DataError(f"{where}: the text is empty")
    return cleaned


def relative_image(path: object, where: str) -> str:
    """A path that stays inside the image folder, normalised; raises `DataError` otherwise."""
    clean_text(path, where)
    text = str(path).replace("\\", "/")  # as it is: file names may hold any white space
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or (len(text) > 1 and text[1] == ":") or ".." in parts:
        raise DataError(f"{where}: image path '{text}' leaves the data folder; paths are relative to it, without '..'")
    return "/".join(parts)


def check_ids(records: Sequence[Record], where: str) -> None:
    """Raise `DataError` when an id occurs twice."""
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise DataError(f"{where}: id '{record.id}' occurs twice; ids must be unique")
        seen.add(record.id)


def first_images(records: Iterable[Record], count: int) -> list[Record]:
    """Records of the first `count` images of each split, and of each stage's share of the training split."""
    seen: dict[tuple[Split, Portion], set[str]] = {}
    kept = []
    for record in records:
        images = seen.setdefault((record.split, record.portion), set())
        if len(images) < count or record.image_id in images:
            images.add(record.image_id)
            kept.append(record)
    return kept


def write_records(path: Path, records: Iterable[Record]) -> None:
    """One JSON object a line."""
    files.write_jsonl(path, (_row_of(record) for record in records))


def _row_of(record: Record) -> dict[str, Any]:
    """Its JSON object, without a domain where there is none: data that knows nothing of it keeps its bytes."""
    row = asdict(record)
    if record.domain is None:
        del row["domain"]
    row["rejected"] = [rejected_row(item) for item in record.rejected]
    return row


def rejected_row(rejected: Rejected) -> dict[str, Any]:
    """Its JSON object, without what it does not come with: data that knows nothing of it keeps its bytes."""
    row = asdict(rejected)
    return {key: value for key, value in row.items() if key in _ALWAYS or value not in (None, (), {})}


_ALWAYS = ("text", "source", "grade")
"""Keys of every rejected response in a file."""


def read_records(path: Path) -> list[Record]:
    """What `write_records` wrote."""
    return [record_of(row) for row in files.read_jsonl(path)]


def open_records(path: Path, portion: Portion | None = None) -> Rows[Record]:
    """What `write_records` wrote (or one portion), each record read when it is asked for; damage is found at once."""
    lines = JsonLines(path)
    starts = (start for start, row in lines.scan() if portion in (None, row["portion"]))
    return Rows(lines, array("q", starts), record_of)


def record_of(row: dict[str, Any]) -> Record:
    """The record of one line."""
    rejected = tuple(_rejected_of(item) for item in row.pop("rejected"))
    return Record(rejected=rejected, references=tuple(row.pop("references")), **row)


def _rejected_of(row: dict[str, Any]) -> Rejected:
    dialogue, scores = dialogue_of(row.get("dialogue", ())), scores_of(row.get("scores", ()))
    return Rejected(**{**row, "dialogue": dialogue, "scores": scores})


def dialogue_of(rows: Iterable[Sequence[str]]) -> tuple[Turn, ...]:
    """The dialogue of `[question, answer]` rows."""
    return tuple((question, answer) for question, answer in rows)


def scores_of(rows: Iterable[dict[str, Any]]) -> tuple[SentenceScore, ...]:
    """The scores of `{"score", "image_error"}` rows."""
    return tuple(SentenceScore(**row) for row in rows)
