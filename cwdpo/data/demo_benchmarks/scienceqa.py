"""ScienceQA's format: problems in multiple choice, and which of them are the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cwdpo.data.demo_benchmarks.facts import picked
from cwdpo.data.demo_benchmarks.format import Format
from cwdpo.data.demo_benchmarks.scenes import Seen
from cwdpo.data.demo_benchmarks.writing import write_file, write_json

QUESTIONS = 24
SUBJECTS = ("natural science", "social science", "language science")


class ScienceqaFormat(Format):
    """`problems.json`, `pid_splits.json` and `images/test/<problem>/image.png`."""

    name: Literal["scienceqa"]

    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """See `Format`."""
        problems, images = {}, {}
        for number, (seen, fact) in enumerate(picked(scenes, QUESTIONS), 1):
            subject = SUBJECTS[number % len(SUBJECTS)]
            problems[str(number)] = problem("test", fact.question, *fact.choices(number), subject=subject)
            images[str(number)] = seen.png
        splits = {"train": [], "val": [], "test": [*problems]}
        write(folder, problems, splits, images)


def problem(
    split: str,
    question: str,
    choices: Sequence[str],
    answer: int,
    *,
    hint: str = "",
    image: str | None = "image.png",
    subject: str = "natural science",
) -> dict[str, Any]:
    """An entry of problems.json with all keys of the genuine one."""
    return {
        "question": question,
        "choices": [*choices],
        "answer": answer,
        "hint": hint,
        "image": image,
        "task": "closed choice",
        "grade": "grade5",
        "subject": subject,
        "topic": "geometry",
        "category": "Shapes",
        "skill": "Tell what is shown",
        "lecture": "",
        "solution": "",
        "split": split,
    }


def write(
    folder: Path,
    problems: Mapping[str, dict[str, Any]],
    splits: Mapping[str, Sequence[str]],
    images: Mapping[str, bytes],
) -> None:
    """The files, and the image of each problem that has one."""
    write_json(folder / "problems.json", problems)
    write_json(folder / "pid_splits.json", splits)
    for pid, content in images.items():
        write_file(folder / "images" / problems[pid]["split"] / pid / problems[pid]["image"], content)
