"""Questions of one's own: what is read, asked and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from formats import own as files

from cwdpo.base.errors import DataError
from cwdpo.data.content import Picture
from cwdpo.evaluate.benchmarks.own import UNANSWERED, Own
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

OWN = Own(name="own")


@pytest.fixture
def questions(tmp_path: Path) -> dict[str, Question]:
    files.write(tmp_path / "download")
    return {one.id: one for one in OWN.load(Download(tmp_path / "download"))}


def test_keys_of_llava_bench_are_understood(questions: dict[str, Question]) -> None:
    assert list(questions) == ["a", "2", "3", "words", "e", "f"]
    assert questions["3"].asked == {"turns": ["Which colour?"]}
    assert questions["3"].truth == {"answers": ["blue", "azure"]}
    assert questions["a"].images == ("pictures/red.png",)


def test_a_conversation_is_asked_turn_by_turn(questions: dict[str, Question]) -> None:
    item = OWN.prompted(questions["2"])
    red, blue = Picture("pictures/red.png"), Picture("pictures/blue.png")
    assert item.content == ("Is ", blue, " like ", red, "?")
    assert item.later == (("Why?",),)
    assert OWN.prompted(questions["words"]).content == ("Two and two?",)


def test_the_last_turn_counts(questions: dict[str, Question]) -> None:
    answers = {"a": " red. ", "2": "x", "3": "AZURE", "words": "5", "e": "y", "f": "I see."}
    found = OWN.score(
        [Answered(questions[name], text, (), ("Blue.",) if name == "f" else ()) for name, text in answers.items()]
    )
    assert {name: item["correct"] for name, item in found.per_item.items()} == {
        "a": 1.0, "2": None, "3": 1.0, "words": 0.0, "e": None, "f": 1.0,
    }  # fmt: skip
    assert found.corpus == {"accuracy": 0.75}
    assert found.counts == {"questions without an answer to compare with, left out": 2}


def written(folder: Path, row: dict[str, object]) -> Question:
    """The only question of a file."""
    files.write(folder)
    (folder / "questions.jsonl").write_text(json.dumps(row) + "\n")
    (question,) = OWN.load(Download(folder))
    return question


def test_each_answer_of_a_list_is_a_true_one(tmp_path: Path) -> None:
    question = written(tmp_path, {"id": 1, "question": "?", "answer": ["Blue", 7]})
    assert question.truth == {"answers": ["Blue", "7"]}
    marks = [OWN.score([Answered(question, text)]).corpus["accuracy"] for text in ("blue.", "7", "Blue 7")]
    assert marks == [1.0, 1.0, 0.0]


def test_no_answer_no_category_and_no_image_may_be_said_so(tmp_path: Path) -> None:
    question = written(tmp_path, {"id": 1, "question": "?", "answer": None, "category": None, "image": None})
    assert (question.truth, question.category, question.images) == ({"answers": []}, "", ())


def test_line_breaks_of_questions_are_kept(tmp_path: Path) -> None:
    text = "Choose.\n\n(A)  one\r\n(B)\ttwo \U0001f600"
    question = written(tmp_path, {"id": 1, "turns": [text, "Why?\nHow?"]})
    item = OWN.prompted(question)
    assert (item.content, item.later) == ((text,), (("Why?\nHow?",),))


def test_nothing_to_compare_with_is_no_zero(questions: dict[str, Question]) -> None:
    found = OWN.score([Answered(questions["2"], "x")])
    assert (found.corpus, found.unavailable) == ({"accuracy": None}, {"accuracy": UNANSWERED})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "red.png", "question": "?"}, "line 1: key 'id' is missing; found image, question"),
        ({"id": 1, "image": "red.png"}, "line 1: key 'turns' is missing; found id, image"),
        ({"id": 1, "images": "red.png", "question": "?"}, "line 1: images is 'red.png'; expected a list of paths"),
        ({"id": 1, "turns": []}, "line 1: expected a question, or a list of questions, found []"),
        ({"id": 1, "question": "What is <image 1>?"}, "line 1: the text names image 1, but there are 0"),
        ({"id": 1, "question": "?", "answers": "yes"}, "line 1: answers is 'yes'; valid: a list of texts"),
        ({"id": 1, "question": "?", "image": "../red.png"}, "leaves the data folder"),
        ({"id": 1, "question": "?", "answer": {"a": 1}}, "line 1: answer is {'a': 1}; valid: a text that is not empty"),
        ({"id": 1, "question": "?", "answer": True}, "line 1: answer is True; valid: a text that is not empty"),
        ({"id": 1, "question": "?", "answer": ["a", None]}, "line 1: answer[1] is None; valid: a text"),
        ({"id": 1, "question": None}, "line 1: question is None; valid: a text that is not empty"),
        ({"id": None, "question": "?"}, "line 1: id is None; valid: a whole number, or a text that is not empty"),
        ({"id": 1, "question": "?", "category": ["a"]}, "line 1: category is ['a']; valid: a text"),
        (
            {"id": 1, "image": "red.png", "turns": ["What is <image 1>?", "And <image 1>?"]},
            "line 1, turn 2 (only the first may name images): the text names image 1, but there are 0",
        ),
        ({"id": 1, "question": "What \ud800?"}, "line 1: question: the text holds half of a character"),
        ({"id": 1, "turns": ["What?", "\udfff"]}, "line 1: turns[1]: the text holds half of a character"),
        ({"id": 1, "question": "?", "answer": ["\ud800"]}, "line 1: answer[0]: the text holds half of a character"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, object], message: str) -> None:
    files.write(tmp_path)
    (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        list(OWN.load(Download(tmp_path)))
    assert message in str(caught.value)
    assert str(tmp_path / "questions.jsonl") in str(caught.value)
