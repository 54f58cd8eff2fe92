"""MMBench's format: one TSV with images inside, each question again for every rotation of its options."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import Fact, picked, rotated
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_text

COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "l2-category", "split"]
FILES = {"1.1": "MMBench_DEV_EN_V11.tsv", "1.0": "MMBench_DEV_EN.tsv"}
ROTATION = 1_000_000
"""What is added to the index of a question for each rotation of its options."""
QUESTIONS = 10
"""Each is asked two to four times."""
CATEGORIES = {
    "colour": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "shape": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "size": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "count": ("image_scene", "coarse_perception"),
    "place": ("object_localization", "finegrained_perception (instance-level)"),
}


class MmbenchFormat(Format):
    """`MMBench_DEV_EN_V11.tsv` or `MMBench_DEV_EN.tsv`."""

    name: Literal["mmbench"]
    version: Literal["1.1", "1.0"] = "1.1"

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        asked = enumerate(picked(scenes, QUESTIONS), 1)
        write_rows(folder / FILES[self.version], [row for one in asked for row in _turns(*one)])


def row(
    index: int, question: str, options: Sequence[str], answer: str, image: str, hint: str = "", **more: str
) -> dict[str, str]:
    """A row of the split "dev".

    Args:
        image: its bytes in base64, or the index of the row that has them.
    """
    lettered = dict(zip("ABCD", [*options, "", "", ""], strict=False))
    fixed = {"index": str(index), "question": question, "hint": hint, **lettered, "answer": answer, "image": image}
    return {**fixed, "category": "object_localization", "l2-category": "coarse_perception", "split": "dev", **more}


def write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Rows as pandas writes them."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def in_base64(image: bytes) -> str:
    """An image as a cell has it."""
    return base64.b64encode(image).decode()


def _turns(index: int, asked: tuple[Seen, Fact]) -> Iterator[dict[str, Any]]:
    """A question and its rotations."""
    seen, fact = asked
    options, _ = fact.choices(index)
    category, level = CATEGORIES[fact.kind]
    for turn in range(len(options)):
        turned = rotated(options, turn)
        answer, image = "ABCD"[turned.index(fact.value)], str(index) if turn else in_base64(seen.jpeg)
        more = {"category": category, "l2-category": level}
        yield row(index + turn * ROTATION, fact.question, turned, answer, image, **more)
