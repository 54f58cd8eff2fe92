"""MMMU, validation split: college questions about figures in thirty subjects of six disciplines.

Yue et al. (2024), "MMMU: A Massive Multi-discipline Multimodal Understanding and Reasoning Benchmark for Expert AGI";
rules of its eval_utils.py, but for one: where that draws a letter from a global generator, the draw here goes by the
question's id, so that it depends neither on the order of the questions nor on the machine.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from cwdpo.base.errors import DataError, name_valid
from cwdpo.base.identity import seed_from
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import mean_of, unavailable
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import one_of, read_parquet, text_of
from cwdpo.model.decoding import Decoding

DISCIPLINES = {
    "art_and_design": ("Art", "Art_Theory", "Design", "Music"),
    "business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "health_and_medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "humanities_and_social_science": ("History", "Literature", "Sociology", "Psychology"),
    "tech_and_engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
SUBJECTS = [subject for subjects in DISCIPLINES.values() for subject in subjects]
IMAGES = [f"image_{number}" for number in range(1, 8)]
COLUMNS = ["id", "question", "options", "answer", "question_type", *IMAGES]
ABSENT = (None, {"bytes": None, "path": None})
INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
"""What the answer to an open question stands behind."""
NUMBERS = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",  # 1,234
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",  # 1.2e3
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",  # 12 and 1.2 and .2
)
Value = str | float


class Mmmu(Questions):
    """`validation-*.parquet` of the thirty subjects, images inside."""

    name: Literal["mmmu"]
    prompt: str = "{question}\n\n{options}\n\nAnswer with the option's letter from the given choices directly."
    """`{question}` and `{options}` stand for those of a question with options, which are lines such as `(A) red`."""
    open_prompt: str = "{question}\n\nAnswer the question using a single word or phrase."
    """`{question}` stands for a question without options."""
    decoding: Decoding = Decoding(max_new_tokens=128)

    embedded: ClassVar[bool] = True
    source: ClassVar[str] = "the validation split of the data set MMMU/MMMU (SUBJECT/validation-00000-of-00001.parquet)"
    hub: ClassVar[tuple[str, ...] | None] = ("MMMU/MMMU", "*/validation-*.parquet")
    published: ClassVar[Mapping[str, int]] = dict.fromkeys(sorted(SUBJECTS), 30)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "accuracy"),
        Metric("art_and_design", "art & design"),
        Metric("business", "business"),
        Metric("science", "science"),
        Metric("health_and_medicine", "health & medicine"),
        Metric("humanities_and_social_science", "humanities & social science"),
        Metric("tech_and_engineering", "tech & engineering"),
    )

    def load(self, download: Download) -> Iterator[Question]:
        """One question a row; the subject is part of the id."""
        for where, row in read_parquet(download.all("validation-*.parquet"), COLUMNS):
            yield _question(row, download, where)

    def ask(self, question: Question) -> str:
        """The question, its options if it has any, and how to answer."""
        asked = question.asked
        lines = [f"({letter}) {text}" for letter, text in zip(ascii_uppercase, asked["options"], strict=False)]
        parts = {"{question}": asked["question"], "{options}": "\n".join(lines)}
        prompt = self.prompt if lines else self.open_prompt
        return re.sub(r"\{question\}|\{options\}", lambda found: parts[found[0]], prompt)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Shares of right answers: every question counts the same, whatever its subject."""
        per_item = {one.question.id: _item(one) for one in answered}
        corpus = {"accuracy": mean_of(item["correct"] for item in per_item.values())}
        for discipline, subjects in DISCIPLINES.items():
            corpus[discipline] = mean_of(item["correct"] for item in per_item.values() if item["subject"] in subjects)
        drawn = sum(item["drawn"] is not None for item in per_item.values())
        silent = sum(item["prediction"] is None for item in per_item.values()) - drawn
        counts = {"answers without an option (one was drawn)": drawn, "empty answers to open questions": silent}
        counts = {what: count for what, count in counts.items() if count}
        return Scores(corpus, per_item, unavailable(corpus), counts)


def read_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter that an answer names last, or None.

    "(B)" counts before " B ", and that before an option's text, which only counts in more than five words.
    """
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    lettered = dict(zip(ascii_uppercase, options, strict=False))
    found = _last(text, {letter: f"({letter})" for letter in lettered})
    found = found or _last(text, {letter: f" {letter} " for letter in lettered})
    if found or len(text.split()) <= 5:
        return found
    return _last(text.lower(), {letter: option.lower() for letter, option in lettered.items()})


def read_open(text: str) -> list[Value]:
    """What an answer to an open question may mean: phrases that it comes to, and the numbers in them."""
    phrases = _phrases(text)
    numbers = [number for phrase in phrases for pattern in NUMBERS for number in re.findall(pattern, phrase)]
    return list(dict.fromkeys(value for found in [*phrases, *numbers] for value in normalised(found)))


def normalised(text: str) -> list[Value]:
    """A number with two decimals, or text in lower case; one character alone needs a space beside it to be found."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def agrees(found: Sequence[Value], answers: Sequence[str]) -> bool:
    """Whether a phrase that was found holds an answer, or a number that was found is one."""
    wanted = [value for answer in answers for value in normalised(answer)]
    texts = [value for value in wanted if isinstance(value, str)]
    return any(any(text in one for text in texts) if isinstance(one, str) else one in wanted for one in found)


def _question(row: Mapping[str, Any], download: Download, where: str) -> Question:
    name, subject = _named(row["id"], where)
    choice = one_of(row, "question_type", ("multiple-choice", "open"), where) == "multiple-choice"
    options = _options(row["options"], where) if choice else []
    images, place = [], {}
    for number, key in enumerate(IMAGES, 1):
        if row[key] not in ABSENT:
            images.append(_image(row[key], f"{name}_{number}", download, f"{where}, {key}"))
            place[number] = len(images)  # so that names stay right where a number is left out
    question, *options = [_renumbered(text, place, where) for text in (text_of(row, "question", where), *options)]
    asked = {"question": question, "options": options}
    return Question(name, tuple(images), asked, {"answers": _answers(row, len(options), where)}, subject)


def _named(name: object, where: str) -> tuple[str, str]:
    found = re.fullmatch(r"validation_(\w+)_\d+", str(name))
    if not found:
        raise DataError(f"{where}: id is {name!r:.80}; valid: validation_SUBJECT_NUMBER")
    if found[1] not in SUBJECTS:
        raise DataError(f"{where}: id {name} names an unknown subject {name_valid(found[1], SUBJECTS)}")
    return found[0], found[1]


def _options(text: object, where: str) -> list[str]:
    found = _list(text)
    if not found or len(found) > len(ascii_uppercase):
        raise DataError(f"{where}: options is {text!r:.80}; valid: a list of texts in Python's notation")
    return [str(option) for option in found]


def _answers(row: Mapping[str, Any], options: int, where: str) -> list[str]:
    """All answers that are right: the column holds one, or a list of them in Python's notation."""
    text = text_of(row, "answer", where)
    found = _list(text)
    answers = found if found and all(isinstance(one, str) for one in found) else [text]
    letters = ascii_uppercase[:options]
    if wrong := [one for one in answers if not one.strip() or (letters and one not in {*letters})]:
        raise DataError(
            f"{where}: answer is {wrong[0]!r:.80}; valid: {', '.join(letters) or 'texts that are not empty'}"
        )
    return answers


def _list(text: object) -> list[Any] | None:
    """A list in Python's notation; None where the text is none."""
    try:
        found = ast.literal_eval(text) if isinstance(text, str) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _image(cell: Any, name: str, download: Download, where: str) -> str:
    content = cell.get("bytes") if isinstance(cell, Mapping) else None
    if not isinstance(content, bytes) or not content:
        raise DataError(f"{where}: there are no bytes of an image; found {type(cell).__name__}")
    return download.embedded(name, content, where)


def _renumbered(text: str, place: Mapping[int, int], where: str) -> str:
    def named(found: re.Match[str]) -> str:
        number = int(found[1])
        if number not in place:
            held = ", ".join(f"image_{held}" for held in place) or "none"
            raise DataError(f"{where}: the text names <image {number}>, but the images of the row are: {held}")
        return f"<image {place[number]}>"

    return re.sub(r"<image (\d+)>", named, text)


def _last(text: str, names: Mapping[str, str]) -> str | None:
    """The letter whose name stands last in a text; of two at the same place the first."""
    places = {letter: text.rfind(name) for letter, name in names.items() if name in text}
    return max(places, key=places.__getitem__) if places else None


def _phrases(text: str) -> list[str]:
    """Ends of the lines that say what the answer is, or all of the text.

    The official pattern also ends sentences at a full stop before a capital, but only after all is in lower case.
    """
    text = text.strip().strip(".").lower()
    *lines, last = text.split("\n")
    ends = [*(_end(line, INDICATORS) for line in lines), _end(last, (*INDICATORS, "="))]
    return [end for end in ends if end not in {"", *":,.!?;'"}] or [text]


def _end(line: str, indicators: Sequence[str]) -> str:
    """What stands behind the indicator that leaves least; an empty rest gives way to that of the next indicator."""
    kept = ""
    for indicator in indicators:
        end = line.rpartition(indicator)[2].strip()
        if indicator in line and (not kept or len(end) < len(kept)):
            kept = end
    return kept


def _item(one: Answered) -> dict[str, Any]:
    question = one.question
    options, answers = question.asked["options"], question.truth["answers"]
    if options:
        found = read_letter(one.text, options)
        drawn = ascii_uppercase[seed_from("mmmu", question.id) % len(options)] if found is None else None
        right = (found or drawn) in answers
    else:
        values = read_open(one.text)
        found, drawn, right = " | ".join(map(str, values)) or None, None, agrees(values, answers)
    return {"prediction": found, "drawn": drawn, "correct": float(right), "subject": question.category}
