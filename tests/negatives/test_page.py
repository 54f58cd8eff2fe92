"""The page of drawn pairs: what stands on it, what is marked, and what it shows where something is missing."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cwdpo.negatives.page import Span, draw, marked, write_page
from cwdpo.negatives.summary import Statistics

RED = "A red ball on a bed."
BLUE = "A blue ball on a bed."


def row(number: int = 1, *rejected: dict[str, Any], **more: Any) -> dict[str, Any]:
    known = {"id": f"{number}#0", "image": f"{number}.jpg", "prompt": "What is there?", "chosen": RED}
    return {**known, "rejected": list(rejected) or [wrong()], **more}


def wrong(text: str = BLUE, source: str = "perturb:colour", **more: Any) -> dict[str, Any]:
    return {"text": text, "source": source, "grade": None, **more}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (1000, 500), (200, 30, 30)).save(folder / "1.jpg")
    return folder


def page(folder: Path, rows: Sequence[dict[str, Any]], images: Path | None = None, **more: Any) -> str:
    statistics = Statistics()
    for one in rows:
        statistics.add(one)
    write_page(folder / "page.html", rows, images, "Pairs", statistics, more.pop("about", {}), **more)
    return (folder / "page.html").read_text(encoding="utf-8")


class Seen(HTMLParser):
    """Tags that were opened and not closed, texts by the tags around them, and attributes."""

    void = ("meta", "img", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open) if data.strip() else ():
            self.texts.setdefault(tag, []).append(data.strip())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_words_are_marked_where_they_differ() -> None:
    assert list(marked(RED.split(), BLUE.split())) == [
        Span("same", "A"),
        Span("removed", "red"),
        Span("added", "blue"),
        Span("same", "ball on a bed."),
    ]
    assert list(marked(["a", "ball"], ["a", "big", "ball"])) == [
        Span("same", "a"),
        Span("added", "big"),
        Span("same", "ball"),
    ]
    assert list(marked(["a", "big", "ball"], ["a", "ball"]))[1] == Span("removed", "big")


def test_the_page_marks_words_for_eyes_and_ears(tmp_path: Path, images: Path) -> None:
    seen = Seen(page(tmp_path, [row()], images))
    assert seen.open == []
    assert seen.texts["del"][-2:] == ["removed:", "red"]
    assert seen.texts["ins"][-2:] == ["added:", "blue"]
    assert "What is there?" in seen.texts["p"]
    assert RED in seen.texts["p"]
    assert "Rejected, from perturb:colour, 1 word apart" in seen.texts["li"]


def test_the_page_stands_alone(tmp_path: Path, images: Path) -> None:
    text = page(tmp_path, [row()], images)
    seen = Seen(text)
    assert not re.search(r"(https?:)?//[a-z]", text)
    assert {name for name, _ in seen.tags} & {"link", "iframe", "object"} == set()
    (image,) = seen.attributes("img")
    assert image["src"] is not None
    assert image["src"].startswith("data:image/jpeg;base64,")
    assert "default-src 'none'" in text


def test_a_reader_without_eyes_has_language_headings_and_alternatives(tmp_path: Path, images: Path) -> None:
    seen = Seen(page(tmp_path, [row()], images))
    assert seen.attributes("html") == [{"lang": "en"}]
    assert seen.attributes("img")[0]["alt"] == f"1.jpg: {RED}"
    assert [name for name, _ in seen.tags if re.fullmatch(r"h\d", name)] == ["h1", "h2", "h2", "h3"]
    assert seen.attributes("label") == [{"for": "source"}]
    assert len(seen.attributes("caption")) == 2  # of the histogram, of the sources
    assert all(cell.get("scope") for cell in seen.attributes("th"))


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, WCAG 2.2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_contrast(tmp_path: Path) -> None:
    """At least 4.5 : 1, level AA; whatever is soft is read on the panel, too."""
    style = page(tmp_path, [row()])
    named = dict(re.findall(r"--(\w+): (#\w{6})", style))
    marks = re.findall(r"(?:del|ins) \{ color: (#\w{6}); background: (#\w{6})", style)
    assert len(marks) == 2
    for ink, ground in [*marks, (named["ink"], named["panel"]), (named["soft"], named["panel"])]:
        light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_images_are_small(tmp_path: Path, images: Path) -> None:
    source = Seen(page(tmp_path, [row()], images)).attributes("img")[0]["src"]
    assert source is not None
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert (image.format, image.size) == ("JPEG", (320, 160))


def test_a_missing_or_broken_image_leaves_a_note(tmp_path: Path, images: Path) -> None:
    (images / "2.jpg").write_text("no image")
    (images / "3.jpg").write_bytes((images / "1.jpg").read_bytes()[:400])
    seen = Seen(page(tmp_path, [row(number) for number in (1, 2, 3, 4)], images))
    assert len(seen.attributes("img")) == 1
    notes = [text for text in seen.texts["figure"] if text != "1.jpg"]
    assert notes[0] == "2.jpg is no image"
    assert notes[1].startswith("image 3.jpg cannot be read: ")
    assert notes[2] == "image 4.jpg is missing"


def test_rows_of_older_artefacts_are_shown_as_far_as_they_tell(tmp_path: Path, images: Path) -> None:
    old = {"id": "1#0", "rejected": [{"text": BLUE, "source": "dataset", "grade": None}]}
    seen = Seen(page(tmp_path, [old], images))
    assert seen.attributes("img") == []
    assert BLUE in seen.texts["li"]
    assert "Rejected, from dataset" in seen.texts["li"]


def test_nothing_of_the_data_is_taken_for_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> A & B"
    text = page(
        tmp_path,
        [row(1, wrong(evil, source='"><b>'), chosen=evil + " x", prompt=evil, id=evil, image=evil)],
        about={"<i>": {"a": evil}},
    )
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert evil in Seen(text).texts["p"]


def test_texts_with_little_in_common_are_not_mixed(tmp_path: Path) -> None:
    other = "Nothing of what is there looks like this at all."
    seen = Seen(page(tmp_path, [row(1, wrong(other))]))
    assert other in seen.texts["li"]
    assert any(text.endswith("10 words apart, little in common") for text in seen.texts["li"])
    assert len(seen.attributes("del")) == 1  # the one of the legend


def test_what_a_rejected_response_comes_with_is_shown(tmp_path: Path) -> None:
    item = wrong(
        grade="hard",
        mean_logp=-1.234,
        how={"old": ["red"], "draw": 2},
        revised="A green ball.",
        dialogue=[["Is it blue?", "No."]],
        scores=[{"score": 1, "image_error": True}, {"score": 4, "image_error": False}],
    )
    shown = " ".join(Seen(page(tmp_path, [row(1, item)])).texts["li"])
    assert "graded hard, 1 word apart, -1.23 nats per token" in shown
    assert "How: old red, draw 2" in shown
    assert "Revised: A green ball." in shown
    assert "Is it blue? No." in shown
    assert "Scores of its sentences: 1 (wrong about the image), 4" in shown


def test_statistics_are_on_the_page(tmp_path: Path) -> None:
    rows = [row(number, *([wrong(), wrong("A cat.", "llm")] if number % 2 else [wrong()])) for number in range(1000)]
    cells = Seen(page(tmp_path, rows, about={"home": "runs", "kinds": ["colour", "size"]})).texts
    assert {"1,500 (1.50 per record)", "runs", "colour, size"} <= set(cells["dd"])
    assert {"1,000", "66.7%", "500", "33.3%"} <= set(cells["td"])


def test_examples_are_drawn_by_seed_from_rows_that_have_some() -> None:
    rows = [row(number) if number % 2 else {**row(number), "rejected": []} for number in range(1, 200)]
    one, again, other = (draw(rows, 5, seed) for seed in (1, 1, 2))
    assert one == again != other
    numbers = [int(found["id"].partition("#")[0]) for found in one]
    assert numbers == sorted(numbers)
    assert all(number % 2 for number in numbers)
    assert len(draw(rows, 1000, 1)) == 100


def test_the_same_rows_make_the_same_bytes(tmp_path: Path, images: Path) -> None:
    rows = [row(number) for number in range(100)]
    assert page(tmp_path, rows, images) == page(tmp_path, rows, images)
    assert len(Seen(page(tmp_path, rows, images)).attributes("article")) == 60
    assert len(Seen(page(tmp_path, rows, images, count=7)).attributes("article")) == 7


def test_10_000_pairs_take_seconds(tmp_path: Path) -> None:
    for number in range(60):
        Image.effect_noise((640, 480), 60).save(tmp_path / f"{number}.jpg")
    rows = [row(number, image=f"{number % 60}.jpg") for number in range(10_000)]
    began = time.process_time()
    page(tmp_path, rows, tmp_path)
    assert time.process_time() - began < 10


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""


@pytest.mark.skipif(not CHROMIUM, reason="no chromium and no google-chrome on this machine")
def test_a_browser_filters_by_source(tmp_path: Path, images: Path) -> None:
    """The real script in a real browser: what is left once a source is chosen."""
    rows = [row(1), row(2, wrong("A cat.", "llm")), row(3, wrong(), wrong("A dog.", "llm"))]
    text = page(tmp_path, rows, images)
    choose = 'choice.value = "llm"; choice.dispatchEvent(new Event("change"));</script>'
    (tmp_path / "chosen.html").write_text(text.replace("</script>", choose), encoding="utf-8")
    found = {name: rendered(tmp_path / f"{name}.html") for name in ("page", "chosen")}
    assert "3 of 3 examples" in found["page"].texts["span"]
    assert "2 of 3 examples" in found["chosen"].texts["span"]
    assert hidden(found["page"]) == ([], [])
    assert hidden(found["chosen"]) == (["example-1"], ["perturb:colour", "perturb:colour"])


def rendered(path: Path) -> Seen:
    """The page after its script ran."""
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={path.parent / 'browser'}",
        "--dump-dom",
    ]
    done = subprocess.run(
        [CHROMIUM, *options, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
        env={**os.environ, "HOME": str(path.parent)},
    )
    return Seen(done.stdout)


def hidden(seen: Seen) -> tuple[list[str | None], list[str | None]]:
    """Labels of the articles and sources of the responses that are not shown."""
    gone = [attributes for _, attributes in seen.tags if "hidden" in attributes]
    articles = [item["aria-labelledby"] for item in gone if "aria-labelledby" in item]
    return articles, [item["data-source"] for item in gone if "data-source" in item]
