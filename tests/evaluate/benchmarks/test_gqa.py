import json
from pathlib import Path

import pytest
from formats import gqa as files

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.gqa import Gqa
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gqa.json").read_text(encoding="utf-8"))
BENCHMARK = Gqa(name="gqa")


@pytest.fixture
def root(tmp_path):
    files.write(tmp_path / "down")
    return tmp_path / "down"


def load(root):
    return {question.id: question for question in BENCHMARK.load(Download(root))}


def rewritten(root, questions):
    path = root / "questions1.2/testdev_balanced_questions.json"
    path.write_text(json.dumps(questions), encoding="utf-8")


def made(number, item):
    truth = {"answer": item["answer"], "structure": item["structure"]}
    return Question(str(number), ("one.jpg",), {"question": "What is it?"}, truth)


def test_every_question_in_the_order_of_the_file(root):
    download = Download(root)
    questions = list(BENCHMARK.load(download))
    assert [question.id for question in questions] == list(files.QUESTIONS)
    assert questions[2].row() == {
        "id": "202225914",
        "images": ("images/n161313.jpg",),
        "asked": {"question": "Is the café to the left or to the right?"},
        "truth": {"answer": "left", "structure": "choose"},
        "category": "",
    }
    assert set(download.images) == {"images/n161313.jpg", "images/n235859.jpg", "images/n289505.jpg"}
    assert download.missing == []
    assert download.files == ["questions1.2/testdev_balanced_questions.json"]


def test_the_prompt(root):
    assert BENCHMARK.ask(load(root)["201307251"]) == (
        "Is it overcast?\nAnswer the question using a single word or phrase."
    )


@pytest.mark.parametrize("number", range(len(GOLDEN["items"])))
def test_an_answer_is_read_as_official(number):
    item = GOLDEN["items"][number]
    found = BENCHMARK.score([Answered(made(number, item), item["text"])]).per_item[str(number)]
    assert found["prediction"] == item["prediction"]
    assert found["correct"] == item["correct"]


def test_all_answers_together_are_worth_the_official_values():
    found = BENCHMARK.score([Answered(made(*pair), pair[1]["text"]) for pair in enumerate(GOLDEN["items"])])
    assert found.corpus == pytest.approx({key: value / 100 for key, value in GOLDEN["corpus"].items()}, abs=1e-12)
    assert set(found.corpus) == {"accuracy", "binary", "open"}


def test_four_of_six_by_hand(root):
    answers = ["No.", "Woman", "right", "YES", "yes it is", "black and white"]
    found = BENCHMARK.score([Answered(*pair) for pair in zip(load(root).values(), answers, strict=True)])
    assert found.corpus == {"accuracy": pytest.approx(4 / 6), "binary": 0.5, "open": 1.0}
    assert found.per_item["202225914"] == {
        "prediction": "right",
        "truth": "left",
        "correct": 0.0,
        "structure": "choose",
    }
    assert found.unavailable == {}


def test_open_questions_that_were_not_asked_have_no_value(root):
    found = BENCHMARK.score([Answered(load(root)["201307251"], "yes")])
    assert found.corpus == {"accuracy": 0.0, "binary": 0.0, "open": None}
    assert found.unavailable == {"open": "not available: no such question was asked"}


def test_an_image_that_is_not_there_is_listed(root):
    (root / "images/n235859.jpg").unlink()
    download = Download(root)
    assert len(list(BENCHMARK.load(download))) == 6
    assert set(download.missing) == {"images/n235859.jpg"}


@pytest.mark.parametrize("key", ["imageId", "question", "answer", "types"])
def test_a_missing_key_is_named(root, key):
    row = {name: value for name, value in files.QUESTIONS["201307251"].items() if name != key}
    rewritten(root, {"201307251": row})
    with pytest.raises(DataError, match=rf"questions\.json, question '201307251': key '{key}' is missing"):
        load(root)


def test_an_unknown_structure_is_refused(root):
    rewritten(root, {"7": files.question("n161313", "Is it?", "no", "guess")})
    with pytest.raises(DataError, match="question '7': structural is 'guess'; valid: query, verify, choose"):
        load(root)


def test_questions_without_their_structure_are_refused(root):
    rewritten(root, {"7": {**files.QUESTIONS["201307251"], "types": {"detailed": "existC"}}})
    with pytest.raises(DataError, match="question '7', types: key 'structural' is missing; found detailed"):
        load(root)


def test_a_list_of_questions_is_refused(root):
    rewritten(root, list(files.QUESTIONS.values()))
    with pytest.raises(DataError, match=r"testdev_balanced_questions\.json: expected an object, found list"):
        load(root)


@pytest.mark.parametrize("value", [None, [], True, ["a"], {"a": 1}, ""])
@pytest.mark.parametrize("key", ["imageId", "question", "answer", "types"])
def test_values_of_another_type_are_refused(root, key, value):
    rewritten(root, {"7": {**files.QUESTIONS["201307251"], key: value}})
    with pytest.raises(DataError, match=rf"question '7'(: {key} is |, types: expected an object|, types: key)"):
        load(root)
