"""Questions of your own: a JSONL file and a folder of images, with or without answers, of one turn or several.

    {"id": "1", "image": "a.jpg", "question": "What is this?", "answer": "a boat", "category": "objects"}
    {"question_id": 2, "images": ["a.jpg", "b.jpg"], "turns": ["Compare <image 1> and <image 2>.", "Which is older?"]}

An answer may be a list: all of them are true. What has no answer is for `cwdpo compare`. The keys of LLaVA-Bench
(`question_id`, `image`, `text`, `category`) are understood, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from cwdpo.base.errors import DataError
from cwdpo.data.content import interleaved
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import mean_of, unavailable
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import Row, id_of, read_lines, text_of, texts_of
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Prompted

UNANSWERED = "not available: no question has an answer to compare with"


class Own(Questions):
    """A JSONL file of questions."""

    name: Literal["own"]
    file: str = "questions.jsonl"
    """Name of the file."""
    prompt: str = "{question}"
    """`{question}` stands for each question of a conversation."""
    decoding: Decoding = Decoding(max_new_tokens=512)

    reads: ClassVar[tuple[str, ...]] = ("file",)
    source: ClassVar[str] = (
        "nothing: write questions.jsonl, a JSON object a line with id, image, question and perhaps answer"
    )
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("accuracy", "accuracy"),)

    def load(self, download: Download) -> Iterator[Question]:
        """One question a line."""
        for where, row in read_lines(download.file(self.file), ()):
            images = row.get("images", [row["image"]] if row.get("image") is not None else [])
            if not isinstance(images, list):
                raise DataError(f"{where}: images is {images!r:.80}; expected a list of paths")
            yield Question(
                id_of(row, _either(row, ("id", "question_id"), where), where),
                tuple(download.image(image, where) for image in images),
                {"turns": _turns(row, len(images), where)},
                {"answers": _answers(row, where)},
                "" if row.get("category") is None else text_of(row, "category", where, empty=True),
            )

    def ask(self, question: Question) -> str:
        """The first turn."""
        return self._turn(question.asked["turns"][0])

    def prompted(self, question: Question) -> Prompted:
        """The first turn with the images, and the later ones."""
        later = tuple((self._turn(turn),) for turn in question.asked["turns"][1:])
        return Prompted(question.id, interleaved(self.ask(question), question.images), later)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Share of answers to the last turn that are a true one, but for case, white space and a full stop."""
        per_item = {one.question.id: _item(one) for one in answered}
        marks = [item["correct"] for item in per_item.values() if item["correct"] is not None]
        corpus = {"accuracy": mean_of(marks)}
        open_ = len(per_item) - len(marks) if marks else 0
        counts = {"questions without an answer to compare with, left out": open_} if open_ else {}
        return Scores(corpus, per_item, unavailable(corpus, UNANSWERED), counts)

    def _turn(self, text: str) -> str:
        return self.prompt.replace("{question}", text)


def _either(row: Row, keys: Sequence[str], where: str) -> str:
    """The first of these keys that the row has."""
    for key in keys:
        if key in row:
            return key
    raise DataError(f"{where}: key '{keys[0]}' is missing; found {', '.join(row) or 'no key'}")


def _turns(row: Row, images: int, where: str) -> list[str]:
    """Questions of the conversation; only the first one may name images."""
    turns = _texts(row, _either(row, ("turns", "question", "text"), where), where)
    if not turns:
        raise DataError(f"{where}: expected a question, or a list of questions, found []")
    _check_names(turns[0], images, where)
    for number, turn in enumerate(turns[1:], 2):
        _check_names(turn, 0, f"{where}, turn {number} (only the first may name images)")
    return turns


def _check_names(turn: str, images: int, where: str) -> None:
    try:
        interleaved(turn, [""] * images)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _answers(row: Row, where: str) -> list[str]:
    """All answers that are true; none where there is nothing to compare with."""
    if "answers" in row:
        return texts_of(row, "answers", where)
    return [] if row.get("answer") is None else _texts(row, "answer", where)


def _texts(row: Row, key: str, where: str) -> list[str]:
    """The one text under a key, or all of a list."""
    return texts_of(row, key, where) if isinstance(row[key], list) else [text_of(row, key, where)]


def _item(one: Answered) -> dict[str, Any]:
    said = _normalised((one.text, *one.later)[-1])
    answers = [_normalised(answer) for answer in one.question.truth["answers"]]
    return {
        "prediction": said,
        "correct": float(said in answers) if answers else None,
        "category": one.question.category,
    }


def _normalised(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
