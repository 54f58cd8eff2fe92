import json
from pathlib import Path

import pytest
from formats import textvqa as files

from cwdpo.base.config import read_yaml
from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks import textvqa
from cwdpo.evaluate.benchmarks.textvqa import Textvqa, agreement, normalised
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "textvqa.json").read_text(encoding="utf-8"))
BENCHMARK = Textvqa(name="textvqa")


@pytest.fixture
def root(tmp_path):
    files.write(tmp_path / "down")
    return tmp_path / "down"


def load(root):
    return {question.id: question for question in BENCHMARK.load(Download(root))}


def rewritten(root, data):
    (root / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": data}), encoding="utf-8")


def made(number, item):
    return Question(str(number), ("one.jpg",), {"question": "what is it?"}, {"answers": item["answers"]})


def test_every_question_in_the_order_of_the_file(root):
    download = Download(root)
    questions = list(BENCHMARK.load(download))
    assert [question.id for question in questions] == ["34602", "34603", "34604", "34605", "34606", "34607"]
    assert questions[0].row() == {
        "id": "34602",
        "images": ("train_images/003a8ae2ef43b901.jpg",),
        "asked": {"question": "what is the brand of this camera?"},
        "truth": {"answers": ["dakota"] * 8 + ["dakota digital"] * 2},
        "category": "",
    }
    assert len(download.images) == 3
    assert download.missing == []
    assert download.files == ["TextVQA_0.5.1_val.json"]


def test_the_prompt_starts_with_an_upper_case_letter_and_keeps_the_others(root):
    assert BENCHMARK.ask(load(root)["34604"]) == (
        "What year is it? NOT the one below\nAnswer the question using a single word or phrase."
    )


@pytest.mark.parametrize("number", range(len(GOLDEN["items"])))
def test_an_answer_is_normalised_and_scored_as_official(number):
    item = GOLDEN["items"][number]
    found = BENCHMARK.score([Answered(made(number, item), item["text"])]).per_item[str(number)]
    assert found["prediction"] == item["normalised"]
    assert found["correct"] == pytest.approx(item["correct"], abs=1e-12)


def test_all_answers_together_are_worth_the_official_value():
    found = BENCHMARK.score([Answered(made(*pair), pair[1]["text"]) for pair in enumerate(GOLDEN["items"])])
    assert found.corpus == {"accuracy": pytest.approx(GOLDEN["corpus"]["accuracy"], abs=1e-12)}


def test_no_contraction_that_was_not_held_against_the_official_table():
    forms = read_yaml(Path(textvqa.__file__).with_name("textvqa.yaml"))["contractions"]
    spellings = [spelling for spellings in forms.values() for spelling in spellings]
    assert len(spellings) == len(set(spellings)) == 112
    assert set(spellings) <= {item["text"] for item in GOLDEN["items"]}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, 0.0), (1, 9 / 30), (2, (2 * 1 + 8 * 2) / 30), (3, (3 * 2 + 7 * 3) / 30), (4, 1.0), (10, 1.0)],
)
def test_annotators_who_agree_by_hand(count, expected):
    # An annotator who said so is left out of the count against which the answer is held.
    assert agreement("yes", ["yes"] * count + ["no"] * (10 - count)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Two  dogs", "2 dogs"),
        ("coca-cola", "coca cola"),
        ("coca - cola", "coca cola"),
        ("Joe's, dont", "joe 's don't"),
        ("3.5.", "3.5"),
        ("Im", "im"),
        ("None", "0"),
        ("the", ""),
        ("stop\nsign", "stop sign"),
    ],
)
def test_normalised_by_hand(text, expected):
    assert normalised(text) == expected


def test_answers_of_the_annotators_are_normalised_too(root):
    questions = load(root)
    found = BENCHMARK.score([Answered(questions["34606"], "LEFT"), Answered(questions["34605"], "ale")])
    # "left", "Left.", "the left" and "left!" are one; two of ten said "ale".
    assert found.per_item["34606"] == {"prediction": "left", "correct": 1.0}
    assert found.per_item["34605"]["correct"] == pytest.approx(0.6)
    assert found.corpus == {"accuracy": pytest.approx(0.8)}


def test_an_image_that_is_not_there_is_listed(root):
    (root / "train_images/00a2a1d0cbd6d2e0.jpg").unlink()
    download = Download(root)
    assert len(list(BENCHMARK.load(download))) == 6
    assert set(download.missing) == {"train_images/00a2a1d0cbd6d2e0.jpg"}


@pytest.mark.parametrize("key", ["question_id", "image_id", "question", "answers"])
def test_a_missing_key_is_named(root, key):
    row = {name: value for name, value in files.DATA[1].items() if name != key}
    rewritten(root, [files.DATA[0], row])
    with pytest.raises(DataError, match=rf"TextVQA_0\.5\.1_val\.json, data\[1\]: key '{key}' is missing"):
        load(root)


def test_another_number_of_annotators_is_refused(root):
    rewritten(root, [{**files.DATA[0], "answers": ["dakota"] * 9}])
    with pytest.raises(DataError, match=r"data\[0\]: 9 answers; valid: 10"):
        load(root)


def test_a_file_without_questions_is_refused(root):
    rewritten(root, [])
    with pytest.raises(DataError, match=r"_val\.json\.data: expected a non-empty list"):
        load(root)


def test_a_question_that_occurs_twice_is_refused(root):
    rewritten(root, [files.DATA[0], files.DATA[0]])
    with pytest.raises(DataError, match="question '34602' occurs twice"):
        BENCHMARK.loaded(Download(root))


@pytest.mark.parametrize("value", [None, [], True, {"a": 1}, ""])
@pytest.mark.parametrize("key", ["question_id", "image_id", "question"])
def test_values_of_another_type_are_refused(root, key, value):
    rewritten(root, [{**files.DATA[0], key: value}])
    with pytest.raises(DataError, match=rf"data\[0\]: {key} is .*; valid: a "):
        load(root)


@pytest.mark.parametrize(("value", "found"), [(None, "answers is None"), ([None] * 10, r"answers\[0\] is None")])
def test_answers_of_another_type_are_refused(root, value, found):
    rewritten(root, [{**files.DATA[0], "answers": value}])
    with pytest.raises(DataError, match=rf"data\[0\]: {found}; valid: a "):
        load(root)
