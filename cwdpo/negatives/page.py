"""A page that shows what will be trained on: drawn pairs with their images, what differs marked, and the statistics.

One HTML file that asks for nothing from outside, so that it can be mailed, printed and read on a phone.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from cwdpo.base import files
from cwdpo.negatives.summary import Statistics, edit_distance

if TYPE_CHECKING:
    from jinja2 import Template

EXAMPLES = 60
"""Records on a page unless another number is asked for."""
PIXELS = 320
"""Longer side of an image on the page, at most."""
READABLE = 5
"""Two texts that differ in so many words at most are always shown as one with marks."""

Row = Mapping[str, Any]
"""A row of `negatives.jsonl`."""


def write_page(
    path: Path,
    rows: Sequence[Row],
    images: Path | None,
    title: str,
    statistics: Statistics,
    about: Mapping[str, Any],
    count: int = EXAMPLES,
    seed: int = 0,
) -> None:
    """Write the page of some pairs; the same bytes for the same rows, images and seed.

    Args:
        rows: `{"id", "image", "prompt", "chosen", "rejected": [...]}`; all but `id` and `rejected` may be missing. Only
            rows with a rejected response are shown; no more of them are read than are needed.
        images: folder that image paths are relative to; None shows the page without images.
        statistics: of all rows.
        about: what else to say of the pairs, a line each, such as the settings of their source.
        count: records shown, at most.
    """
    drawn = [_example(row, images) for row in draw(rows, count, seed)]
    sources = sorted({rejected.row["source"] for example in drawn for rejected in example.rejected})
    page = _template().render(title=title, about=about, summary=statistics.as_json(), examples=drawn, sources=sources)
    files.write_text(path, page)


def draw(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Up to `count` rows with a rejected response, drawn by seed, in the order of the file."""
    order = random.Random(f"examples:{seed}").sample(range(len(rows)), len(rows))
    found = ((place, row) for place in order if (row := rows[place])["rejected"])
    return [row for _, row in sorted(islice(found, count), key=lambda item: item[0])]


# ---- what the template is given


@dataclass(frozen=True)
class Span:
    """Words that both texts have, or only one of them: removed from the chosen one, added in the rejected one."""

    kind: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True)
class ShownRejected:
    """A rejected response beside its chosen one.

    Attributes:
        spans: the chosen text with its changes; the rejected text as it is where `far`.
        distance: words between both; None where the chosen one is not known.
        far: the texts have too little in common to be shown as one.
    """

    row: Row
    spans: tuple[Span, ...]
    distance: int | None
    far: bool


@dataclass(frozen=True)
class Example:
    """A record on the page.

    Attributes:
        thumbnail: a data URI; None where `note` says why there is no image.
    """

    row: Row
    thumbnail: str | None
    note: str
    rejected: tuple[ShownRejected, ...]


def _example(row: Row, images: Path | None) -> Example:
    name = row.get("image")
    if images is None or name is None:
        thumbnail, note = None, "no image: these rows do not say which" if name is None else f"image {name} not read"
    else:
        thumbnail, note = _thumbnail(images / name)
    return Example(row, thumbnail, note, tuple(_shown(row.get("chosen"), item) for item in row["rejected"]))


def _shown(chosen: str | None, item: Row) -> ShownRejected:
    words, truth = item["text"].split(), (chosen or "").split()
    if chosen is None:
        return ShownRejected(item, (Span("same", item["text"]),), None, far=False)
    distance = edit_distance(truth, words)
    if distance > READABLE and 2 * distance > max(len(truth), len(words)):
        return ShownRejected(item, (Span("same", item["text"]),), distance, far=True)
    return ShownRejected(item, tuple(marked(truth, words)), distance, far=False)


def marked(chosen: Sequence[str], rejected: Sequence[str]) -> Iterator[Span]:
    """The words of both texts in order, those of one of them alone marked."""
    from rapidfuzz.distance import Levenshtein

    for step in Levenshtein.opcodes(chosen, rejected):
        before = " ".join(chosen[step.src_start : step.src_end])
        after = " ".join(rejected[step.dest_start : step.dest_end])
        if step.tag == "equal":
            yield Span("same", before)
            continue
        if before:
            yield Span("removed", before)
        if after:
            yield Span("added", after)


def _thumbnail(path: Path) -> tuple[str | None, str]:
    """A data URI of a small JPEG, or None and why there is none."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (PIXELS, PIXELS))  # JPEG files are decoded no larger than needed
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((PIXELS, PIXELS))
    except FileNotFoundError:
        return None, f"image {path.name} is missing"
    except UnidentifiedImageError:
        return None, f"{path.name} is no image"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return None, f"image {path.name} cannot be read: {error}"
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", ""


# ---- the template


def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["said"] = _said
    return environment.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))


def _said(value: Any) -> str:
    """A number as a reader wants it, a text as it is, texts one after the other, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return json.dumps(value, ensure_ascii=False, default=str)
