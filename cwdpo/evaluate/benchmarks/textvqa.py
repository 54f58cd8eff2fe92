"""TextVQA: questions that are answered by reading text in the image; its validation split.

Singh et al. (2019), "Towards VQA Models That Can Read"; rules of the evaluator of Pythia that LLaVA uses
(m4c_evaluator.py). LLaVA also shows the model what an OCR system read in the image; this prompt does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from cwdpo.base.config import read_yaml
from cwdpo.base.errors import DataError
from cwdpo.data.annotations import list_of, read_annotations
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import mean_of
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import id_of, text_of, texts_of, with_keys
from cwdpo.model.decoding import Decoding

ANNOTATORS = 10
PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
ARTICLES = frozenset({"a", "an", "the"})
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBER_WORDS)}


class Textvqa(Questions):
    """`TextVQA_0.5.1_val.json` and `train_images/<image>.jpg`."""

    name: Literal["textvqa"]
    prompt: str = "{question}\nAnswer the question using a single word or phrase."
    """`{question}` stands for the question, its first letter in upper case."""
    decoding: Decoding = Decoding(max_new_tokens=16)

    source: ClassVar[str] = "TextVQA_0.5.1_val.json and TextVQA's images for training and validation (train_images)"
    published: ClassVar[Mapping[str, int]] = {"": 5000}
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("accuracy", "accuracy"),)

    def load(self, download: Download) -> Iterator[Question]:
        """One question for each entry of `data`; its id is `question_id`."""
        path = download.file("TextVQA_0.5.1_val.json")
        for index, entry in enumerate(list_of(read_annotations(path), "data", str(path))):
            where = f"{path}, data[{index}]"
            row = with_keys(entry, ("question_id", "image_id", "question", "answers"), where)
            answers = texts_of(row, "answers", where, empty=True)
            if len(answers) != ANNOTATORS:
                raise DataError(f"{where}: {len(answers)} answers; valid: {ANNOTATORS}, one of each annotator")
            image = download.image(f"{id_of(row, 'image_id', where)}.jpg", where)
            asked = {"question": text_of(row, "question", where)}
            yield Question(id_of(row, "question_id", where), (image,), asked, {"answers": answers})

    def ask(self, question: Question) -> str:
        """The question, which the file has in lower case, and that a word or a phrase is enough."""
        text = question.asked["question"]
        return self.prompt.replace("{question}", text[:1].upper() + text[1:])

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Mean of how far each answer agrees with the ten annotators."""
        per_item = {one.question.id: _item(one) for one in answered}
        accuracy = mean_of(item["correct"] for item in per_item.values())
        return Scores({"accuracy": accuracy}, per_item)


def normalised(text: str) -> str:
    """An answer as it is compared: lower case, digits for number words, no articles, hardly any punctuation."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    text = text.translate({ord(mark): _instead_of(mark, text) for mark in PUNCTUATION})
    # A flag that stands in the place of the count makes the official code remove no more than 32 full stops.
    text = re.sub(r"\.(?!\d)", "", text, count=32)
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_contractions().get(word, word) for word in words if word not in ARTICLES)


def agreement(prediction: str, answers: Sequence[str]) -> float:
    """Mean, over the annotators, of how many of the other ones gave this answer, three being enough for 1."""
    if prediction not in answers:
        return 0.0
    count = answers.count(prediction)
    return sum(min(1.0, (count - (answer == prediction)) / 3) for answer in answers) / len(answers)


def _instead_of(mark: str, text: str) -> str:
    """A mark next to a space anywhere vanishes everywhere; else it parts words."""
    return "" if f"{mark} " in text or f" {mark}" in text else " "


@cache
def _contractions() -> dict[str, str]:
    forms = read_yaml(Path(__file__).with_name("textvqa.yaml"))["contractions"]
    return {spelling: form for form, spellings in forms.items() for spelling in spellings}


def _item(one: Answered) -> dict[str, Any]:
    prediction = normalised(one.text)
    answers = [normalised(answer) for answer in one.question.truth["answers"]]
    return {"prediction": prediction, "correct": agreement(prediction, answers)}
