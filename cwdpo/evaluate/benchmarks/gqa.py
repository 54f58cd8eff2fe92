"""GQA: compositional questions about scenes, the balanced questions of its test-dev split.

Hudson and Manning (2019), "GQA"; the answer is read as LLaVA does (convert_gqa_for_eval.py), then official eval.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from cwdpo.data.annotations import read_annotations
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import mean_of, unavailable
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import id_of, one_of, text_of, with_keys
from cwdpo.model.decoding import Decoding

STRUCTURES = ("query", "verify", "choose", "logical", "compare")
OPEN = "query"
"""Structure of questions without a choice of answers; all others are binary."""


class Gqa(Questions):
    """`testdev_balanced_questions.json` and the images of GQA."""

    name: Literal["gqa"]
    prompt: str = "{question}\nAnswer the question using a single word or phrase."
    """`{question}` stands for the question."""
    decoding: Decoding = Decoding(max_new_tokens=16)

    source: ClassVar[str] = "testdev_balanced_questions.json of GQA's questions 1.2, and GQA's images"
    published: ClassVar[Mapping[str, int]] = {"": 12578}
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "accuracy"),
        Metric("binary", "binary"),
        Metric("open", "open"),
    )

    def load(self, download: Download) -> Iterator[Question]:
        """One question for each key of the file, which is its id."""
        path = download.file("testdev_balanced_questions.json")
        for name, found in with_keys(read_annotations(path), (), str(path)).items():
            where = f"{path}, question '{name}'"
            row = with_keys(found, ("imageId", "question", "answer", "types"), where)
            types = with_keys(row["types"], ("structural",), f"{where}, types")
            structure = one_of(types, "structural", STRUCTURES, where)
            truth = {"answer": text_of(row, "answer", where), "structure": structure}
            image = download.image(f"{id_of(row, 'imageId', where)}.jpg", where)
            yield Question(name, (image,), {"question": text_of(row, "question", where)}, truth)

    def ask(self, question: Question) -> str:
        """The question, and that a word or a phrase is enough."""
        return self.prompt.replace("{question}", question.asked["question"])

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Share of answers that are equal to the true one, of all questions, of binary and of open ones."""
        per_item = {one.question.id: _item(one) for one in answered}
        items = list(per_item.values())
        corpus = {
            "accuracy": mean_of(item["correct"] for item in items),
            "binary": mean_of(item["correct"] for item in items if item["structure"] != OPEN),
            "open": mean_of(item["correct"] for item in items if item["structure"] == OPEN),
        }
        return Scores(corpus, per_item, unavailable(corpus))


def _item(one: Answered) -> dict[str, Any]:
    prediction, truth = one.text.rstrip(".").lower(), one.question.truth
    correct = float(prediction == truth["answer"])
    return {"prediction": prediction, "truth": truth["answer"], "correct": correct, "structure": truth["structure"]}
