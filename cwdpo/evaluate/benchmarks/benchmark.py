"""What every benchmark offers to the stages: what is asked, and what answers are worth.

A benchmark of questions is one file with three parts: `load` (the genuine files), `ask` (the prompt) and `score` (the
official rules). `generate`, `judge` and `score` know no benchmark by name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from cwdpo.base import files
from cwdpo.base.config import Config, Neutral
from cwdpo.base.errors import DataError
from cwdpo.data.content import interleaved
from cwdpo.data.demo_benchmarks.generated import Generated
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Prompted

QUESTIONS = "questions.jsonl"
NONE_ASKED = "not available: none of"
"""Begins the reason why a score of nothing has no value."""


class Benchmark(Config):
    """What captions and questions share."""

    metrics: ClassVar[tuple[Metric, ...]]
    """Columns of the table, in order."""
    compared: ClassVar[Metric]
    """What per-item values are compared by."""
    published: ClassVar[Mapping[str, int]] = {}
    """How many items the published data has, by category ("" for all)."""
    checksums: ClassVar[Mapping[str, str]] = {}
    """MD5 of published files that are known, by name."""

    name: str
    """A literal in each benchmark."""
    decoding: Decoding = Decoding()
    """How answers are decoded."""
    limit: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Score only so many items; marked as partial wherever the score appears."""

    @abstractmethod
    def items(self, inputs: Mapping[str, Path]) -> list[Prompted]:
        """What a model is asked.

        Args:
            inputs: folders by role, as stage `generate` reads them.
        """

    @abstractmethod
    def scored(self, inputs: Mapping[str, Path], answers: Mapping[str, Mapping[str, Any]]) -> Scores:
        """What answers are worth.

        Args:
            inputs: folders by role, as stage `score` reads them.
            answers: rows of generations.jsonl by item id.
        """

    def for_generating(self) -> Self:
        """The same with what only a judge is told set back: answers do not depend on it."""
        return self

    def harness(self) -> dict[str, Any]:
        """What scores them, beside the code: versions of programs and the like; stored with the score."""
        return {}


class Questions(Benchmark):
    """A benchmark of questions about images: prepared by `cwdpo data prepare`, or made of a generated world."""

    compared: ClassVar[Metric] = Metric("correct", "accuracy")
    embedded: ClassVar[bool] = False
    """Whether images lie inside the annotation files."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Fields that decide which questions there are."""
    source: ClassVar[str]
    """What to download, in a sentence, for people."""
    references_in: ClassVar[tuple[str, ...]] = ("answer", "answers", "label")
    """Keys of `Question.truth` whose texts show a judge who sees no image what is true."""
    hub: ClassVar[tuple[str, ...] | None] = None
    """Data set of the hub that has the files in this format, and patterns of those that are needed."""

    data: Annotated[Generated | None, Neutral(None)] = None
    """A generated world whose scenes are asked about instead of a download, in the same format; None asks what was
    prepared."""
    limit: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Ask and score only so many questions, spread evenly over every category; marked as partial wherever the score
    appears. Questions that are scored together stay together."""

    @abstractmethod
    def load(self, download: Download) -> Iterable[Question]:
        """Every question, in the order of the files.

        Raises:
            DataError: names the file, the line and the key, what was found and what is valid.
        """

    @abstractmethod
    def ask(self, question: Question) -> str:
        """The user's turn; `<image N>` stands for the N-th image, images not named stand before the text."""

    @abstractmethod
    def score(self, answered: Sequence[Answered]) -> Scores:
        """Scores by the official rules, of at least one question."""

    def group(self, question: Question) -> str:
        """Questions of one group are only scored together: the turns of a circular question, the pair of one image."""
        return question.id

    def for_reading(self) -> Self:
        """The same questions with all that decides nothing about them set back."""
        fields = type(self).model_fields
        kept = {"name", *self.reads}
        return self.model_copy(update={name: fields[name].default for name in fields if name not in kept})

    def loaded(self, download: Download) -> list[Question]:
        """All questions, checked.

        Raises:
            DataError: as for `load`; there are none, an id occurs twice, or one cannot be asked.
        """
        found: dict[str, Question] = {}
        for question in self.load(download):
            if question.id in found:
                raise DataError(f"{download.root}: question '{question.id}' occurs twice; ids must be unique")
            try:
                self.prompted(question)
            except ValueError as error:
                raise DataError(f"{download.root}: question '{question.id}': {error}") from error
            found[question.id] = question
        if not found:
            raise DataError(f"{download.root}: there are no questions in these files")
        return list(found.values())

    def prompted(self, question: Question) -> Prompted:
        """A question as a model is asked it; `ValueError` where it names an image that there is not."""
        return Prompted(question.id, interleaved(self.ask(question), question.images))

    def items(self, inputs: Mapping[str, Path]) -> list[Prompted]:
        """See `Benchmark`."""
        return [self.prompted(question) for question in self.chosen(read_questions(inputs["questions"]))]

    def scored(self, inputs: Mapping[str, Path], answers: Mapping[str, Mapping[str, Any]]) -> Scores:
        """See `Benchmark`."""
        chosen = self.chosen(read_questions(inputs["questions"]))
        check_answers(answers, [question.id for question in chosen])
        unasked = {self.group(question) for question in chosen if not was_asked(answers[question.id])}
        whole = [question for question in chosen if self.group(question) not in unasked]
        left_out = len(chosen) - len(whole)
        if not whole:
            return nothing_to_score(self.metrics, left_out)
        scores = self.score([_answered(question, answers[question.id]) for question in whole])
        return replace(scores, left_out=left_out)

    def chosen(self, questions: Sequence[Question]) -> Sequence[Question]:
        """All questions, or about `limit` of them, in whole groups."""
        if self.limit is None or self.limit >= len(questions):
            return questions
        groups: dict[str, list[Question]] = {}
        for question in questions:
            groups.setdefault(self.group(question), []).append(question)
        categories: dict[str, list[str]] = {}
        for name, members in groups.items():
            categories.setdefault(members[0].category, []).append(name)
        sizes = {name: len(members) for name, members in groups.items()}
        wanted = max(1, round(self.limit * len(groups) / len(questions)))
        kept = set(_spread(list(categories.values()), wanted))
        while wanted > 1 and sum(sizes[name] for name in kept) > self.limit:
            wanted -= 1
            kept = set(_spread(list(categories.values()), wanted))
        return [question for question in questions if self.group(question) in kept]


def _spread(categories: Sequence[Sequence[str]], wanted: int) -> list[str]:
    """So many names, spread evenly over all; at least one of each category where there are enough for that."""
    total = sum(map(len, categories))
    if wanted < len(categories):
        return _evenly([name for names in categories for name in names], wanted)
    left, rest = wanted - len(categories), max(1, total - len(categories))
    # Whole shares of what is left after one each, the biggest remainders rounded up.
    exact = [left * (len(names) - 1) / rest for names in categories]
    counts = [1 + int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: int(exact[place]) - exact[place])
    for place in by_remainder[: wanted - sum(counts)]:
        counts[place] += 1
    return [name for names, count in zip(categories, counts, strict=True) for name in _evenly(names, count)]


def _evenly(names: Sequence[str], count: int) -> list[str]:
    return [names[place * len(names) // count] for place in range(count)]


def read_questions(folder: Path) -> list[Question]:
    """What stage `questions` wrote."""
    return [Question.of(row) for row in files.read_jsonl(folder / QUESTIONS)]


def was_asked(row: Mapping[str, Any]) -> bool:
    """Whether a row of generations.jsonl has an answer to the whole item: one that did not fit was not asked, and what
    official rules make of its empty text would be no score (no letter is drawn for it, no object hallucinated)."""
    return "fault" not in row


def nothing_to_score(metrics: Sequence[Metric], left_out: int) -> Scores:
    """Of items that could not be asked, each one or what it is scored with."""
    reason = f"{NONE_ASKED} {left_out:,} items could be asked"
    return Scores({one.key: None for one in metrics}, {}, {one.key: reason for one in metrics}, left_out=left_out)


def check_answers(answers: Mapping[str, object], asked: Sequence[str]) -> None:
    """Raise `DataError` where questions and answers are not the same ones."""
    known = set(asked)
    if unknown := [name for name in answers if name not in known]:
        raise DataError(f"{len(unknown)} answers to questions that there are not: {_some(unknown)}")
    if missing := [name for name in asked if name not in answers]:
        raise DataError(f"{len(missing)} questions without an answer: {_some(missing)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _answered(question: Question, row: Mapping[str, Any]) -> Answered:
    text, judgements = str(row.get("raw", row["text"])).strip(), tuple(row.get("judgements", ()))
    return Answered(question, text, judgements, tuple(row.get("later", ())))
