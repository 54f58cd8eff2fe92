"""MMMU's format: a Parquet file a subject, up to seven images inside each row."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import Fact, picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_file

TEXTS = ("id", "question", "options", "explanation")
IMAGES = [f"image_{number}" for number in range(1, 8)]
LAST = ("img_type", "answer", "topic_difficulty", "question_type", "subfield")
FILE = "validation-00000-of-00001.parquet"
SUBJECTS = ("Art", "Economics", "Math", "Public_Health", "Psychology", "Computer_Science")
"""One of each discipline."""
EACH = 4
"""Questions of a subject about one image; the last one is open. One more is about two images."""


class MmmuFormat(Format):
    """`<subject>/validation-00000-of-00001.parquet` of a subject of each discipline."""

    name: Literal["mmmu"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        asked = picked(scenes, EACH * len(SUBJECTS))
        several = list(_comparable(scenes))
        for place, subject in enumerate(SUBJECTS):
            own = asked[place * EACH : (place + 1) * EACH]
            rows = [_about_one(f"{subject}_{number}", *one, number) for number, one in enumerate(own, 1)]
            if several:
                rows.append(_about_two(f"{subject}_{EACH + 1}", *several[place % len(several)]))
            write_rows(folder, subject, rows)


def cell(image: bytes, path: str) -> dict[str, Any]:
    """A cell with an image."""
    return {"bytes": image, "path": path}


def row(
    name: str, question: str, options: str, answer: str, *images: Mapping[str, Any] | None, **more: Any
) -> dict[str, Any]:
    """A row with as many images as are given, from image_1 on.

    Args:
        name: subject and number.
        options: a list in Python's notation; an empty one makes the question an open one.
    """
    kind = "open" if options == "[]" else "multiple-choice"
    texts = {"id": f"validation_{name}", "question": question, "options": options, "explanation": "", "answer": answer}
    rest = {"img_type": "['Pictures']", "topic_difficulty": "Easy", "question_type": kind, "subfield": "Shapes"}
    cells = dict(zip(IMAGES, images, strict=False))
    return {**texts, **rest, **{key: cells.get(key) for key in IMAGES}, **more}


def write_rows(folder: Path, subject: str, rows: Sequence[Mapping[str, Any]], name: str = FILE) -> None:
    """One file of a subject."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(IMAGES, image), **dict.fromkeys(LAST, pa.string())}
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(list(kinds.items()))), stream)
    write_file(folder / subject / name, stream.getvalue())


def _about_one(name: str, seen: Seen, fact: Fact, number: int) -> dict[str, Any]:
    image = cell(seen.jpeg, seen.coco_name)
    if number == EACH:
        return row(name, f"<image 1> {fact.question}", "[]", fact.value, image)
    options, place = fact.choices(number)
    return row(name, f"<image 1> {fact.question}", str(options), "ABCD"[place], image)


def _comparable(scenes: Sequence[Seen]) -> Iterator[tuple[Seen, Seen]]:
    """Neighbours that have not the same number of things."""
    for first, second in pairwise(scenes):
        if len(first.things) != len(second.things):
            yield first, second


def _about_two(name: str, first: Seen, second: Seen) -> dict[str, Any]:
    answer = "A" if len(first.things) > len(second.things) else "B"
    cells = [cell(seen.jpeg, seen.coco_name) for seen in (first, second)]
    return row(name, "Which picture has more things?", "['<image 1>', '<image 2>']", answer, *cells)
