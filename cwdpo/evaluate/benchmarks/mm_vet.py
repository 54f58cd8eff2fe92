"""MM-Vet: open questions that need several abilities at once, rated from 0 to 1 by a judge.

Yu et al. (2023), "MM-Vet: Evaluating Large Multimodal Models for Integrated Capabilities"; rules of its
mm-vet_evaluator.py. With the shipped judge prompt the columns are by the rules only; `judge_prompt` takes the official
text, whose last line is then `$question | $truth | $answer | `.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from cwdpo.base.errors import DataError
from cwdpo.data.annotations import read_annotations
from cwdpo.evaluate.benchmarks.shares import mean_of, unavailable
from cwdpo.evaluate.judging.judged import NO_JUDGE, Judged, Unusable, nobody_judged
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.tables import text_of, with_keys
from cwdpo.model.decoding import Decoding

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


class MmVet(Judged):
    """`mm-vet.json` and its folder of images."""

    name: Literal["mm_vet"]
    prompt: str = "{question}"
    """`{question}` stands for the question."""
    decoding: Decoding = Decoding(max_new_tokens=1024)

    shipped: ClassVar[str] = "mm_vet.txt"
    source: ClassVar[str] = "mm-vet.zip of the MM-Vet repository: mm-vet.json and the folder images"
    published: ClassVar[Mapping[str, int]] = {"": 218}
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("score", "total", judged=True),
        *(Metric(one, one, judged=True) for one in CAPABILITIES),
    )
    compared: ClassVar[Metric] = Metric("correct", "rating", judged=True)

    def load(self, download: Download) -> Iterator[Question]:
        """One question an entry; ids are those of the file."""
        path = download.file("mm-vet.json")
        for name, row in with_keys(read_annotations(path), (), str(path)).items():
            where = f"{path}, '{name}'"
            with_keys(row, ("imagename", "question", "answer", "capability"), where)
            image = download.image(row["imagename"], where)
            truth = {"answer": text_of(row, "answer", where), "capabilities": _capabilities(row, where)}
            yield Question(str(name), (image,), {"question": text_of(row, "question", where)}, truth)

    def ask(self, question: Question) -> str:
        """The question as it is."""
        return self.prompt.replace("{question}", question.asked["question"])

    def texts(self, answered: Answered) -> Mapping[str, str]:
        """The true answer with white space around its <AND> and <OR>."""
        truth = answered.question.truth["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        return {"question": answered.question.asked["question"], "truth": truth, "answer": answered.text}

    def rating(self, answered: Answered, reply: str) -> float:
        """The number that the reply is, or begins with; from 0 to 1."""
        for text in (reply.split(" ")[0], reply):
            number = _number(text)
            if number is not None and 0.0 <= number <= 1.0:  # also refuses NaN
                return number
        raise Unusable("it is no number from 0.0 to 1.0")

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Means of the ratings, of all and of those that need a capability; what could not be read counts as 0."""
        judged = not nobody_judged(answered)
        per_item = {one.question.id: _item(one, judged) for one in answered}
        if not judged:
            keys = [metric.key for metric in self.metrics]
            return Scores(dict.fromkeys(keys), per_item, dict.fromkeys(keys, NO_JUDGE))
        items = list(per_item.values())
        corpus = {"score": mean_of(item["correct"] for item in items)}
        corpus |= {one: mean_of(item["correct"] for item in items if item[one]) for one in CAPABILITIES}
        unread = sum(item["prediction"] is None for item in items)
        counts = {"answers without a usable rating, counted as 0": unread} if unread else {}
        return Scores(corpus, per_item, unavailable(corpus), counts)


def _capabilities(row: Mapping[str, Any], where: str) -> list[str]:
    found = row["capability"]
    valid = ", ".join(CAPABILITIES)
    if not isinstance(found, list) or not found:
        raise DataError(f"{where}: capability is {found!r:.80}; expected a list of some of {valid}")
    for one in found:
        if one not in CAPABILITIES:
            raise DataError(f"{where}: capability has {one!r:.80}; valid: {valid}")
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _item(one: Answered, judged: bool) -> dict[str, Any]:
    rating = one.judgements[0] if one.judgements else None
    needed = {name: name in one.question.truth["capabilities"] for name in CAPABILITIES}
    return {"prediction": rating, "correct": (rating or 0.0) if judged else None, **needed}
