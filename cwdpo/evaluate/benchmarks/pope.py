"""POPE: is this object in the image? Three splits that differ in how absent objects were chosen.

Li et al. (2023), "Evaluating Object Hallucination in Large Vision-Language Models"; rules of its evaluate.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.shares import unavailable
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import id_of, one_of, read_lines, text_of
from cwdpo.model.decoding import Decoding

SPLITS = ("random", "popular", "adversarial")
NOT_ALL_ASKED = "not available: not all such questions were asked"
NEITHER = "answers with neither yes nor no, counted as yes"


class Pope(Questions):
    """`coco_pope_{random,popular,adversarial}.json` and the images of COCO's val2014."""

    name: Literal["pope"]
    prompt: str = "{question}\nAnswer the question using a single word or phrase."
    """`{question}` stands for the question."""
    decoding: Decoding = Decoding(max_new_tokens=16)

    source: ClassVar[str] = (
        "output/coco of the POPE repository (coco_pope_random.json, _popular, _adversarial) and COCO's val2014 images"
    )
    published: ClassVar[Mapping[str, int]] = dict.fromkeys(SPLITS, 3000)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("f1", "F1"),
        Metric("accuracy", "accuracy"),
        Metric("yes", "yes"),
        *(Metric(f"{split}_f1", f"{split} F1") for split in SPLITS),
    )

    def load(self, download: Download) -> Iterator[Question]:
        """One question a line; ids are the split and `question_id`."""
        for split in SPLITS:
            path = download.file(f"coco_pope_{split}.json")
            for where, row in read_lines(path, ("question_id", "image", "text", "label")):
                label = one_of(row, "label", ("yes", "no"), where)
                image = download.image(row["image"], where)
                name = f"{split}/{id_of(row, 'question_id', where)}"
                yield Question(name, (image,), {"question": text_of(row, "text", where)}, {"label": label}, split)

    def ask(self, question: Question) -> str:
        """The question, and that a word is enough."""
        return self.prompt.replace("{question}", question.asked["question"])

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Accuracy and F1 of "yes" in each split; the columns without a split are their means."""
        per_item = {one.question.id: _item(one) for one in answered}
        splits = {
            split: _of_split([per_item[one.question.id] for one in answered if one.question.category == split])
            for split in SPLITS
        }
        corpus = {f"{split}_{key}": value for split, found in splits.items() for key, value in found.items()}
        corpus |= {key: _mean_of_all([found[key] for found in splits.values()]) for key in ("accuracy", "f1", "yes")}
        neither = sum(says_neither(one.text) for one in answered)
        return Scores(corpus, per_item, unavailable(corpus, NOT_ALL_ASKED), {NEITHER: neither} if neither else {})


def says_yes(text: str) -> bool:
    """Whether an answer is counted as yes: its first sentence has no "No", "no" or "not" as a word."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def says_neither(text: str) -> bool:
    """Whether an answer counts as yes for want of anything else: no "yes", "no" or "not", in any case of letters."""
    words = re.findall(r"\w+", text.split(".")[0].lower())
    return not {"yes", "no", "not"} & set(words)


def _item(one: Answered) -> dict[str, Any]:
    prediction = "yes" if says_yes(one.text) else "no"
    label = one.question.truth["label"]
    return {"prediction": prediction, "truth": label, "correct": float(prediction == label)}


def _of_split(items: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    if not items:
        return {"accuracy": None, "f1": None, "yes": None}
    said = sum(item["prediction"] == "yes" for item in items)
    true = sum(item["truth"] == "yes" for item in items)
    both = sum(item["prediction"] == item["truth"] == "yes" for item in items)
    return {
        "accuracy": sum(item["correct"] for item in items) / len(items),
        # 2PR / (P + R), which is 2 TP / (said yes + is yes)
        "f1": 2 * both / (said + true) if said + true else 0.0,
        "yes": said / len(items),
    }


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """None where one is missing: the splits are not equally hard."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
