"""ScienceQA-IMG: school science in multiple choice, those questions of the test split that have an image.

Lu et al. (2022), "Learn to Explain"; prompt and rules are those LLaVA scores it by (eval_science_qa.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from cwdpo.base.errors import DataError
from cwdpo.data.annotations import read_annotations
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import mean_of
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import Row, text_of, texts_of, with_keys
from cwdpo.model.decoding import Decoding

LETTERS = ("A", "B", "C", "D", "E")
KEYS = ("question", "choices", "answer", "hint", "image", "subject")


class Scienceqa(Questions):
    """`problems.json`, `pid_splits.json` and `images/test/<problem>/image.png`."""

    name: Literal["scienceqa"]
    prompt: str = (
        "Context: {context}\nQuestion: {question}\nOptions: {options}\n"
        "Answer with the option's letter from the given choices directly."
    )
    """`{context}` stands for the hint (N/A where there is none), `{options}` for `(A) one (B) another`."""
    decoding: Decoding = Decoding(max_new_tokens=16)

    source: ClassVar[str] = (
        "data/scienceqa of the ScienceQA repository: problems.json, pid_splits.json and the images of its test split"
    )
    published: ClassVar[Mapping[str, int]] = {"": 2017}
    references_in: ClassVar[tuple[str, ...]] = ("letter",)
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("accuracy", "accuracy"),)

    def load(self, download: Download) -> Iterator[Question]:
        """Problems of the test split in its order, without those that have no image."""
        splits, path = download.file("pid_splits.json"), download.file("problems.json")
        problems = with_keys(read_annotations(path), (), str(path))
        for pid in texts_of(with_keys(read_annotations(splits), ("test",), str(splits)), "test", str(splits)):
            if pid not in problems:
                raise DataError(f"{path}: problem {pid!r:.40} is missing, which the test split of {splits.name} names")
            where = f"{path}, problem '{pid}'"
            row = with_keys(problems[pid], KEYS, where)
            if row["image"] is not None:
                yield _question(pid, row, download.image(f"{pid}/{text_of(row, 'image', where)}", where), where)

    def ask(self, question: Question) -> str:
        """Hint, question and options in one line each, double spaces made single as LLaVA does."""
        options = (f"({letter}) {option}" for letter, option in zip(LETTERS, question.asked["options"], strict=False))
        parts = {
            "context": question.asked["hint"].strip() or "N/A",
            "question": question.asked["question"],
            "options": " ".join(options).strip(),
        }
        filled = re.sub(r"\{(context|question|options)\}", lambda found: parts[found[1]], self.prompt)
        return filled.replace("  ", " ")

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Accuracy; an answer of another form than those three, or a letter that is no option, is wrong."""
        per_item = {one.question.id: _item(one) for one in answered}
        accuracy = mean_of(item["correct"] for item in per_item.values())
        return Scores({"accuracy": accuracy}, per_item, counts=_counts(answered))


def letter_of(text: str) -> str | None:
    """The letter of `B`, of `B. and more`, or of the only `The answer is B.`; None for anything else."""
    if text in LETTERS:
        return text
    if text[:1] in LETTERS and text[1:3] == ". ":
        return text[0]
    named: list[str] = re.findall(r"The answer is ([A-Z]).", text)  # any character may stand in place of the point
    return named[0] if len(named) == 1 else None


def _question(pid: str, row: Row, image: str, where: str) -> Question:
    options = texts_of(row, "choices", where, empty=True)
    if not 1 <= len(options) <= len(LETTERS):
        raise DataError(f"{where}: {len(options)} choices; valid: 1 to {len(LETTERS)}")
    answer = row["answer"]
    if isinstance(answer, bool) or answer not in range(len(options)):
        raise DataError(f"{where}: answer is {answer!r:.40}; valid: 0 to {len(options) - 1}, the place of a choice")
    hint, question = text_of(row, "hint", where, empty=True), text_of(row, "question", where)
    truth = {"letter": LETTERS[int(answer)], "subject": text_of(row, "subject", where)}
    return Question(pid, (image,), {"hint": hint, "question": question, "options": options}, truth)


def _item(one: Answered) -> dict[str, Any]:
    prediction, truth = letter_of(one.text), one.question.truth
    correct = float(prediction == truth["letter"])
    return {"prediction": prediction, "truth": truth["letter"], "correct": correct, "subject": truth["subject"]}


def _counts(answered: Sequence[Answered]) -> dict[str, int]:
    found = Counter[str]()
    for one in answered:
        letter = letter_of(one.text)
        if letter is None:
            found["answers without a letter"] += 1
        elif letter not in LETTERS[: len(one.question.asked["options"])]:
            found["answers with a letter that is no option"] += 1
    return dict(found)
