"""How many real captions `perturb` can edit: `python tests/evidence/perturb.py` writes results/perturb.md (2 minutes).

The captions are COCO's, of the val2014 images, which pycocoevalcap brings along inside SPICE's jar. Nothing is
asserted, and nothing is said of how good an edit is: only whether there is one, of which kinds, and how far it is from
the caption.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import get_args

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests" / "perf")]

from measure import made_by, table  # noqa: E402

from cwdpo.data.records import clean_text  # noqa: E402
from cwdpo.negatives.perturb import Kind, edits  # noqa: E402
from cwdpo.negatives.summary import edit_distance  # noqa: E402

ANNOTATIONS = "coco/annotations/captions_val2014.json"
RESULT = Path(__file__).parent / "results" / "perturb.md"
COLUMNS = ("what may be swapped", "captions with an edit", "share", "edits of such a caption", "words apart")


@dataclass
class Row:
    """Captions that a kind of edit is possible in."""

    captions: int = 0
    edits: int = 0
    words: int = 0

    def add(self, distances: Sequence[int]) -> None:
        """Count in the edits of one caption."""
        self.captions += bool(distances)
        self.edits += len(distances)
        self.words += sum(distances)


@dataclass
class Coverage:
    """What was found.

    Attributes:
        kinds: how many captions have edits of so many kinds.
        images: images with an edit of one caption at least.
    """

    rows: dict[str, Row] = field(default_factory=lambda: {name: Row() for name in (*get_args(Kind), "any of them")})
    kinds: Counter[int] = field(default_factory=Counter)
    images: set[int] = field(default_factory=set)
    captions: int = 0

    def add(self, image: int, caption: str) -> None:
        """Count in one caption."""
        found: dict[str, list[int]] = {}
        for edit in edits(caption):
            found.setdefault(edit.kind, []).append(edit_distance(caption.split(), edit.text.split()))
        self.captions += 1
        self.kinds[len(found)] += 1
        self.images |= {image} if found else set()
        for kind, distances in found.items():
            self.rows[kind].add(distances)
        self.rows["any of them"].add([distance for distances in found.values() for distance in distances])

    def table(self) -> str:
        """A line for each kind."""
        rows = [
            (kind, f"{row.captions:,}", f"{row.captions / self.captions:.1%}", f"{row.edits / row.captions:.1f}",
             f"{row.words / row.edits:.2f}")
            for kind, row in self.rows.items()
        ]  # fmt: skip
        return table(COLUMNS, rows)


def annotations() -> list[tuple[int, str]]:
    """(image id, caption) of COCO val2014."""
    with (files("pycocoevalcap") / "spice" / "spice-1.0.jar").open("rb") as jar, zipfile.ZipFile(jar) as archive:
        found = json.loads(archive.read(ANNOTATIONS))["annotations"]
    return [(row["image_id"], clean_text(row["caption"], ANNOTATIONS)) for row in found]


def main() -> None:
    """Look at every caption, write the tables."""
    coverage, captions = Coverage(), annotations()
    for image, caption in captions:
        coverage.add(image, caption)
    images = len({image for image, _ in captions})
    several = table(
        ("kinds", "captions", "share"),
        [(kind, f"{count:,}", f"{count / coverage.captions:.1%}") for kind, count in sorted(coverage.kinds.items())],
    )
    notes = (
        f"All {coverage.captions:,} captions of the {images:,} images of COCO val2014, as pycocoevalcap brings them;"
        f" {len(coverage.images):,} of the images have one caption at least with an edit. An edit is counted where the"
        " rules offer one; whether it reads well and is wrong of the image was not judged. Words apart: words to"
        " insert, remove or replace."
        " `perturb` draws a kind first, then an edit of it; with its defaults it takes one for a caption."
    )
    text = f"# Captions that perturb can edit\n\n{coverage.table()}\n\nKinds of edits that a caption has:\n\n{several}"
    text += f"\n\n{notes}\n\n{made_by(__file__)}\n"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
