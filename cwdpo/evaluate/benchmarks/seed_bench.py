"""SEED-Bench: multiple choice in nine dimensions of image understanding; its questions about images, not videos.

Li et al. (2023), "SEED-Bench"; prompt and rules are those LLaVA scores it by (convert_seed_for_submission.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from cwdpo.base.errors import DataError
from cwdpo.data.annotations import list_of, read_annotations, value_of
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import mean_of
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import Row, id_of, number_of, one_of, text_of, with_keys
from cwdpo.model.decoding import Decoding

LETTERS = ("A", "B", "C", "D")
CHOICES = tuple(f"choice_{letter.lower()}" for letter in LETTERS)
KEYS = ("question_id", "question_type_id", "data_type", "data_id", "question", *CHOICES, "answer")


class SeedBench(Questions):
    """`SEED-Bench.json` and `SEED-Bench-image/<data_id>`, files without a suffix."""

    name: Literal["seed_bench"]
    prompt: str = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
    """`{question}` stands for the question, `{options}` for a line `A. one` for each of them."""
    decoding: Decoding = Decoding(max_new_tokens=16)

    source: ClassVar[str] = "SEED-Bench.json and SEED-Bench-image.zip of SEED-Bench, its first version"
    published: ClassVar[Mapping[str, int]] = {
        "Scene Understanding": 3158,
        "Instance Identity": 1831,
        "Instance Attributes": 4649,
        "Instance Location": 978,
        "Instances Counting": 2447,
        "Spatial Relation": 657,
        "Instance Interaction": 97,
        "Visual Reasoning": 331,
        "Text Understanding": 85,
    }
    references_in: ClassVar[tuple[str, ...]] = ("letter",)
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("accuracy", "accuracy"),)

    def load(self, download: Download) -> Iterator[Question]:
        """Questions about images, by `question_id`; their category is their dimension."""
        path = download.file("SEED-Bench.json")
        content = read_annotations(path)
        types = with_keys(value_of(content, "question_type", str(path)), (), f"{path}, question_type")
        dimensions = {number_of(types, name, f"{path}, question_type"): name for name in types}
        for index, entry in enumerate(list_of(content, "questions", str(path))):
            where = f"{path}, questions[{index}]"
            row = with_keys(entry, KEYS, where)
            if one_of(row, "data_type", ("image", "video"), where) == "image":
                yield _question(row, _dimension(row, dimensions, where), download, where)

    def ask(self, question: Question) -> str:
        """The question and its options, one a line."""
        options = (f"{letter}. {option}" for letter, option in zip(LETTERS, question.asked["options"], strict=True))
        return self.prompt.replace("{question}", question.asked["question"]).replace("{options}", "\n".join(options))

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Share of answers that are nothing but the right letter."""
        per_item = {one.question.id: _item(one) for one in answered}
        accuracy = mean_of(item["correct"] for item in per_item.values())
        other = sum(item["prediction"] is None for item in per_item.values())
        return Scores(
            {"accuracy": accuracy}, per_item, counts={"answers that are not just a letter": other} if other else {}
        )


def _dimension(row: Row, dimensions: Mapping[int, str], where: str) -> str:
    found = number_of(row, "question_type_id", where)
    if found not in dimensions:
        valid = ", ".join(f"{number} ({name})" for number, name in dimensions.items())
        raise DataError(f"{where}: question_type_id is {found}; valid: {valid}")
    return dimensions[found]


def _question(row: Row, dimension: str, download: Download, where: str) -> Question:
    options = [text_of(row, key, where, empty=True) for key in CHOICES]
    asked = {"question": text_of(row, "question", where), "options": options}
    truth = {"letter": one_of(row, "answer", LETTERS, where)}
    name = id_of(row, "question_id", where)
    return Question(name, (download.image(row["data_id"], where),), asked, truth, dimension)


def _item(one: Answered) -> dict[str, Any]:
    prediction = one.text if one.text in LETTERS else None
    truth, dimension = one.question.truth["letter"], one.question.category
    return {"prediction": prediction, "truth": truth, "correct": float(prediction == truth), "dimension": dimension}
