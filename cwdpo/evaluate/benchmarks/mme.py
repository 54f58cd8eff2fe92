"""MME: pairs of yes-no questions about one image, in fourteen tasks of perception and cognition.

Fu et al. (2023), "MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models"; rules of its
eval_tool/calculation.py.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import unavailable
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import DEPTH, Download
from cwdpo.evaluate.reading.tables import one_of, read_text
from cwdpo.model.decoding import Decoding

PERCEPTION: Mapping[str, int] = {
    "existence": 60,
    "count": 60,
    "position": 60,
    "color": 60,
    "posters": 294,
    "celebrity": 340,
    "scene": 400,
    "landmark": 400,
    "artwork": 400,
    "OCR": 40,
}
COGNITION: Mapping[str, int] = {
    "commonsense_reasoning": 140,
    "numerical_calculation": 40,
    "text_translation": 40,
    "code_reasoning": 40,
}
TASKS: Mapping[str, int] = {**PERCEPTION, **COGNITION}
ENDING = "Please answer yes or no."
SUFFIXES = (".jpg", ".png", ".jpeg")


class Mme(Questions):
    """`eval_tool/Your_Results/<task>.txt` with the images of the release, or the release with its texts alone."""

    name: Literal["mme"]
    prompt: str = "{question}"
    """`{question}` stands for the question with its "Please answer yes or no.", `{bare}` for the question without."""
    decoding: Decoding = Decoding(max_new_tokens=16)

    source: ClassVar[str] = "MME_Benchmark_release_version (images and their texts), and eval_tool if it is at hand"
    published: ClassVar[Mapping[str, int]] = TASKS
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("perception", "perception", scale=1, digits=0),
        Metric("cognition", "cognition", scale=1, digits=0),
    )

    def load(self, download: Download) -> Iterator[Question]:
        """Two questions an image; ids are task, image and 1 or 2."""
        homes = _homes(download.root)
        for task in TASKS:
            listed = list(_listed(download, task, homes.get(task)))
            _check_pairs(download, task, [row.image for row in listed])
            seen = Counter[str]()
            for row in listed:
                seen[row.image] += 1
                path = download.image(f"{homes.get(task, task)}/{row.image}", row.where)
                name = f"{task}/{row.image}/{seen[row.image]}"
                yield Question(name, (path,), {"question": row.question}, {"answer": row.answer}, task)

    def ask(self, question: Question) -> str:
        """The question, which asks for yes or no once."""
        text = str(question.asked["question"]).strip()
        bare = text.removesuffix(ENDING).rstrip()
        parts = {"question": f"{bare} {ENDING}" if bare == text else text, "bare": bare}
        return re.sub(r"\{(question|bare)\}", lambda found: parts[found[1]], self.prompt)

    def group(self, question: Question) -> str:
        """Task and image."""
        return question.id.rpartition("/")[0]

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Points of each task: 100 times the share of right answers, and of images with both right; and their sums."""
        per_item = {one.question.id: _item(one, self.group(one.question)) for one in answered}
        points = {task: _points([item for item in per_item.values() if item["task"] == task]) for task in TASKS}
        sums = {"perception": _sum(points, PERCEPTION), "cognition": _sum(points, COGNITION)}
        reasons = unavailable(points)
        for key, tasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
            if empty := [task for task in tasks if points[task] is None]:
                reasons[key] = f"not available: no question of {', '.join(empty)} was asked"
        other = sum(item["prediction"] is None for item in per_item.values())
        counts = {"answers that do not begin with yes or no": other} if other else {}
        return Scores({**sums, **points}, per_item, reasons, counts)


def said(text: str) -> str | None:
    """Which of "yes" and "no" is in the first four characters of an answer; yes where both are."""
    start = text.lower()[:4]
    return next((word for word in ("yes", "no") if word in start), None)


def _item(one: Answered, pair: str) -> dict[str, Any]:
    prediction, truth = said(one.text), one.question.truth["answer"]
    correct = float(prediction == truth)
    return {"prediction": prediction, "truth": truth, "correct": correct, "task": one.question.category, "pair": pair}


def _points(items: Sequence[Mapping[str, Any]]) -> float | None:
    if not items:
        return None
    pairs: dict[str, list[float]] = {}
    for item in items:
        pairs.setdefault(item["pair"], []).append(item["correct"])
    accuracy = sum(item["correct"] for item in items) / len(items)
    return 100 * (accuracy + sum(map(all, pairs.values())) / len(pairs))


def _sum(points: Mapping[str, float | None], tasks: Mapping[str, int]) -> float | None:
    """None where one is missing: a sum over fewer tasks would look like a bad model."""
    found = [value for task in tasks if (value := points[task]) is not None]
    return sum(found) if len(found) == len(tasks) else None


class _Row(NamedTuple):
    where: str
    image: str
    question: str
    answer: str


def _homes(root: Path) -> dict[str, str]:
    """Task -> folder with its images, relative to the root: `<task>/images` where there is one, else `<task>`."""
    homes: dict[str, str] = {}
    for folder, below, _ in os.walk(root):
        path = Path(folder).relative_to(root)
        below[:] = sorted(name for name in below if len(path.parts) < DEPTH and not name.startswith("."))
        if path.name in TASKS and path.name not in homes:
            homes[path.name] = (path / "images" if (root / path / "images").is_dir() else path).as_posix()
    return homes


def _listed(download: Download, task: str, home: str | None) -> Iterator[_Row]:
    """Questions of a task, from its list if there is one, else from the texts of its images."""
    path = download.maybe(f"Your_Results/{task}.txt", f"{task}.txt")
    if path is not None:
        for where, parts in _lines(path, ("image", "question", "answer"), unread=1):
            yield _Row(where, parts[0].strip(), parts[1], _answer(parts[2], where))
    elif home is not None:
        yield from _beside(download, home)
    else:
        raise DataError(
            f"{download.root}: no file 'Your_Results/{task}.txt' and no folder '{task}' in it or {DEPTH} folders below"
        )


def _beside(download: Download, home: str) -> Iterator[_Row]:
    texts = Path(home).parent / "questions_answers_YN"  # beside images/; flat folders have theirs among the images
    folder = texts.as_posix() if (download.root / texts).is_dir() else home
    for path in download.all(f"{escape(folder)}/*.txt"):
        image = next((name for name in _images_of(path) if (download.root / home / name).is_file()), f"{path.stem}.jpg")
        for where, parts in _lines(path, ("question", "answer")):
            yield _Row(where, image, parts[0], _answer(parts[1], where))


def _images_of(path: Path) -> Iterator[str]:
    """Names that the image of a text may have."""
    return (path.stem + suffix for suffix in SUFFIXES)


def _answer(text: str, where: str) -> str:
    return one_of({"answer": text.strip().lower()}, "answer", ("yes", "no"), where)


def _lines(path: Path, columns: Sequence[str], unread: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Columns of each line that is not blank; up to `unread` more may follow: a model's answer."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where, parts = f"{path}, line {number}", line.strip().split("\t")
        if not len(columns) <= len(parts) <= len(columns) + unread:
            raise DataError(f"{where}: {len(parts)} columns; expected {', '.join(columns)}, with tabs between them")
        yield where, parts


def _check_pairs(download: Download, task: str, images: Sequence[str]) -> None:
    """Points count images with both answers right, so each image has two."""
    for image, count in Counter(images).items():
        if count != 2:
            raise DataError(f"{download.root}: {task}: {count} questions about image '{image}'; expected 2 about each")
