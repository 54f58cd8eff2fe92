"""What a benchmark is made of: questions, answers to them, and the scores they get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """One item of a benchmark, as its files have it; a row of questions.jsonl.

    Attributes:
        id: unique in the benchmark; where the files have no such id, one is made of what they have.
        images: paths in the image folder, in the order in which the question names them.
        asked: what the prompt is made of: question, options, hint.
        truth: what answers are scored by; never shown to a model.
        category: part of the benchmark that it is scored with (split, task, domain), or "".
    """

    id: str
    images: tuple[str, ...]
    asked: Mapping[str, Any]
    truth: Mapping[str, Any]
    category: str = ""

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @staticmethod
    def of(row: Mapping[str, Any]) -> Question:
        """From JSON."""
        return Question(**{**row, "images": tuple(row["images"])})


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with what a model answered.

    Attributes:
        text: as it was generated, line breaks and all, without white space around it.
        judgements: what a judge made of it, one for each request of `Judged.requests`; None in place of one that could
            not be used; empty where nobody judged.
        later: answers to the later turns of the conversation.
    """

    question: Question
    text: str
    judgements: tuple[Any, ...] = ()
    later: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A number of a benchmark, and how tables print it.

    Attributes:
        key: in scores.json.
        title: of its column.
        scale: the printed number is the stored one times this.
        digits: printed after the point.
        higher: whether more is better.
        optional: no column where no score has it.
        judged: whether a judge made it.
    """

    key: str
    title: str
    scale: float = 100.0
    digits: int = 1
    higher: bool = True
    optional: bool = False
    judged: bool = False


@dataclass(frozen=True)
class Scores:
    """What answers are worth; plain numbers and strings, ready for JSON.

    Attributes:
        corpus: key of each metric -> value, None where `unavailable` has the reason ("not available: ...").
        per_item: item id -> what it contributes: `prediction` (what was read out of the answer, None where nothing
            could be), `correct` (0 to 1), and whatever the corpus values can be computed from again.
        counts: what a reader must know beside the values, such as {"answers without a letter": 3}; zeros are left out.
        left_out: items that are in no value, because they, or what they are scored together with, could not be asked.
    """

    corpus: dict[str, float | None]
    per_item: dict[str, dict[str, Any]]
    unavailable: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
