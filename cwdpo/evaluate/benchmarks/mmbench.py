"""MMBench, English development split: multiple choice, each question asked again with its options rotated.

Liu et al. (2024), "MMBench: Is Your Multi-modal Model an All-around Player?"; rules of VLMEvalKit without a model that
matches answers ("exact matching"): what cannot be read out of an answer is wrong. Version 1.1 is a cleaned 1.0; the
"mmb" of nSFT and of most papers before 2024 is version 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import mean_of, unavailable
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import one_of, read_tsv
from cwdpo.model.decoding import Decoding

FILES = {"1.1": "MMBench_DEV_EN_V11.tsv", "1.0": "MMBench_DEV_EN.tsv"}
LETTERS = "ABCD"
COLUMNS = ("index", "question", "hint", *LETTERS, "answer", "category", "l2-category", "image", "split")
ROTATION = 1_000_000
"""What is added to the index of a question each time that its options are rotated."""
REFERENCE = 64
"""An image cell of so many characters or fewer is the index of the row that has the image."""
NOTHING = ("", "nan", "NaN")
"""Cells that hold no text."""
NONE_OF_THEM = "Z"
"""The letter for "none of the options"."""
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)


def _as_text(value: object) -> object:
    """A version as text: without quotes, YAML reads it as a number."""
    return str(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


class Mmbench(Questions):
    """`MMBench_DEV_EN_V11.tsv` or `MMBench_DEV_EN.tsv`, images inside."""

    name: Literal["mmbench"]
    version: Annotated[Literal["1.1", "1.0"], BeforeValidator(_as_text)] = "1.1"
    """Of the questions."""
    prompt: str = "{question}\nPlease select the correct answer from the options above. \n"
    """`{question}` stands for the hint, the question and its options, a line each."""
    decoding: Decoding = Decoding(max_new_tokens=128)

    embedded: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("version",)
    source: ClassVar[str] = "MMBench_DEV_EN_V11.tsv (version 1.1) or MMBench_DEV_EN.tsv (1.0) of VLMEvalKit's data"
    checksums: ClassVar[Mapping[str, str]] = {
        "MMBench_DEV_EN_V11.tsv": "30c05be8f2f347a50be25aa067248184",
        "MMBench_DEV_EN.tsv": "b6caf1133a01c6bb705cf753bb527ed8",
    }
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("circular", "circular"), Metric("vanilla", "vanilla"))

    def load(self, download: Download) -> Iterator[Question]:
        """One question a row, rotations included; ids are the indices."""
        rows: dict[str, tuple[str, dict[str, str]]] = {}
        for where, row in read_tsv(self._file(download), COLUMNS):
            index = _index(row["index"], where)
            if index in rows:
                raise DataError(f"{where}: index {index} occurs twice; it is that of {rows[index][0]} too")
            rows[index] = where, row
        images: dict[str, str] = {}
        for index, (where, row) in rows.items():
            if _turn(index)[0] not in rows:
                raise DataError(f"{where}: index {index} rotates question {_turn(index)[0]}, which is not in the file")
            owner = _owner(rows, index)
            if owner not in images:
                images[owner] = download.embedded(owner, rows[owner][1]["image"], f"{rows[owner][0]}, image")
            yield _question(index, row, images[owner], where)

    def ask(self, question: Question) -> str:
        """Hint, question and options, and what to do with them."""
        asked = question.asked
        lines = [f"Hint: {asked['hint']}"] if asked["hint"] else []
        lines += [f"Question: {asked['question']}", "Options:"]
        lines += [f"{letter}. {text}" for letter, text in asked["options"].items()]
        return self.prompt.replace("{question}", "\n".join(lines))

    def group(self, question: Question) -> str:
        """A question and its rotations."""
        return _turn(question.id)[0]

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Share of questions right in every rotation, and of those right as they are (not rotated)."""
        per_item = {one.question.id: _item(one) for one in answered}
        hits: dict[str, float] = {}
        for one in answered:
            group = self.group(one.question)
            hits[group] = min(hits.get(group, 1.0), per_item[one.question.id]["correct"])
        plain = [item["correct"] for item in per_item.values() if item["rotation"] == 0]
        corpus = {"circular": mean_of(hits.values()), "vanilla": mean_of(plain)}
        lost = sum(item["prediction"] in (None, NONE_OF_THEM) for item in per_item.values())
        return Scores(corpus, per_item, unavailable(corpus), {"answers without an option": lost} if lost else {})

    def _file(self, download: Download) -> Path:
        wanted = FILES[self.version]
        if found := download.maybe(wanted):
            return found
        for version, name in FILES.items():
            if download.maybe(name):
                raise DataError(
                    f"{download.root}: version {self.version} is asked for, which is '{wanted}', but there is only "
                    f"'{name}', which is version {version}; download the other or set version to '{version}'"
                )
        return download.file(wanted)


def read_option(text: str, options: Mapping[str, str]) -> str | None:
    """The letter that an answer names, "Z" where it says that none fits, or None."""
    return _by_letter(text, options) or _by_text(text, options)


def _by_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The only option whose letter is a word of the answer, if that first stands among its last four words."""
    if any(refusal in text for refusal in REFUSALS):
        return NONE_OF_THEM
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    return NONE_OF_THEM if not named and NONE_OF_THEM in words else None


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    """The only option whose text an answer holds, if that is at most twice as long as all options together."""
    text = text.lower()
    if len(text) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, option in options.items() if option.lower() in text]
    return found[0] if len(found) == 1 else None


def _index(text: str, where: str) -> str:
    if not re.fullmatch(r"[0-9]+", text):
        raise DataError(f"{where}: index is {text!r:.80}; valid: a whole number")
    return str(int(text))


def _turn(index: str) -> tuple[str, int]:
    """The index of the question that is not rotated, and how often this one is."""
    rotation, question = divmod(int(index), ROTATION)
    return str(question), rotation


def _owner(rows: Mapping[str, tuple[str, Mapping[str, str]]], index: str) -> str:
    """Index of the row that has the image of this one; a reference may lead to another reference."""
    where, seen = rows[index][0], [index]
    while len(cell := rows[seen[-1]][1]["image"].strip()) <= REFERENCE:
        if cell in NOTHING:
            raise DataError(f"{where}: there is no image; the cell of row {seen[-1]} is empty")
        if cell not in rows or cell in seen:
            what = "which leads back to itself" if cell in seen else "but no row has this index"
            raise DataError(f"{where}: the image of row {seen[-1]} is that of row {cell}, {what}")
        seen.append(cell)
    return seen[-1]


def _question(index: str, row: Mapping[str, str], image: str, where: str) -> Question:
    one_of(row, "split", ("dev",), where)
    if row["question"] in NOTHING:
        raise DataError(f"{where}: question is empty")
    options = {letter: row[letter] for letter in LETTERS if row[letter] not in NOTHING}
    answer = one_of(row, "answer", tuple(options), where)
    hint = None if row["hint"] in NOTHING else row["hint"]
    asked = {"hint": hint, "question": row["question"], "options": options}
    truth = {"answer": answer, "category": row["category"]}
    return Question(index, (image,), asked, truth, row["l2-category"])


def _item(one: Answered) -> dict[str, Any]:
    question = one.question
    group, rotation = _turn(question.id)
    prediction, answer = read_option(one.text, question.asked["options"]), question.truth["answer"]
    return {
        "prediction": prediction,
        "truth": answer,
        "correct": float(prediction == answer),
        "group": int(group),
        "rotation": rotation,
        "category": question.truth["category"],
        "l2-category": question.category,
    }
