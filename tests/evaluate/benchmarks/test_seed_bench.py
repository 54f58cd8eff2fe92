import json
from pathlib import Path

import pytest
from formats import seed_bench as files

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.seed_bench import SeedBench
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "seed_bench.json").read_text(encoding="utf-8"))
BENCHMARK = SeedBench(name="seed_bench")


@pytest.fixture
def root(tmp_path):
    files.write(tmp_path / "down")
    return tmp_path / "down"


def load(root):
    return {question.id: question for question in BENCHMARK.load(Download(root))}


def rewritten(root, questions, types=files.TYPES):
    content = json.dumps({"questions": questions, "question_type": types})
    (root / "SEED-Bench.json").write_text(content, encoding="utf-8")


def made(number, item):
    asked = {"question": "How many?", "options": ["One", "Two", "Three", "Four"]}
    return Question(str(number), ("one",), asked, {"letter": item["answer"]}, item["dimension"])


def test_questions_about_images_in_the_order_of_the_file(root):
    download = Download(root)
    questions = list(BENCHMARK.load(download))
    assert [question.id for question in questions] == ["101669", "104933", "7", "8", "9", "10"]
    assert questions[1].row() == {
        "id": "104933",
        "images": ("SEED-Bench-image/svt_14_06.jpg",),
        "asked": {"question": "What is written?", "options": ["Café", "Bar", "Inn", "Pub"]},
        "truth": {"letter": "C"},
        "category": "Text Understanding",
    }
    assert questions[0].images == ("SEED-Bench-image/1454426_2591111986",)
    assert len(download.images) == 4
    assert download.missing == []  # videos are not asked for
    assert download.files == ["SEED-Bench.json"]


def test_the_prompt(root):
    assert BENCHMARK.ask(load(root)["101669"]) == (
        "How many towels?\nA. One\nB. Two\nC. Three\nD. Four\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_the_published_dimensions_are_all_questions_about_images():
    assert sum(BENCHMARK.published.values()) == 14233
    assert list(BENCHMARK.published) == list(files.TYPES)[:9]


@pytest.mark.parametrize("number", range(len(GOLDEN["items"])))
def test_an_answer_is_right_where_it_officially_is(number):
    item = GOLDEN["items"][number]
    found = BENCHMARK.score([Answered(made(number, item), item["text"])])
    assert found.per_item[str(number)]["correct"] == float(item["correct"])


def test_all_answers_together_are_worth_the_official_value():
    found = BENCHMARK.score([Answered(made(*pair), pair[1]["text"]) for pair in enumerate(GOLDEN["items"])])
    assert list(found.corpus) == ["accuracy"]
    assert round(100 * found.corpus["accuracy"], 2) == GOLDEN["corpus"]["accuracy"]


def test_two_of_four_by_hand(root):
    answers = {"101669": "A", "104933": "C", "7": "D. Sea", "8": "C"}
    questions = load(root)
    found = BENCHMARK.score([Answered(questions[name], text) for name, text in answers.items()])
    assert found.corpus == {"accuracy": 0.5}
    assert found.per_item["7"] == {
        "prediction": None,
        "truth": "D",
        "correct": 0.0,
        "dimension": "Scene Understanding",
    }
    assert found.per_item["8"]["prediction"] == "C"
    assert found.counts == {"answers that are not just a letter": 1}


def test_letters_only_leave_no_count(root):
    assert BENCHMARK.score([Answered(load(root)["7"], "A")]).counts == {}


def test_an_image_that_is_not_there_is_listed(root):
    (root / "SEED-Bench-image/2000_2").unlink()
    download = Download(root)
    assert len(list(BENCHMARK.load(download))) == 6
    assert download.missing == ["SEED-Bench-image/2000_2"]


@pytest.mark.parametrize("key", ["question_id", "data_type", "data_id", "choice_d", "answer", "question_type_id"])
def test_a_missing_key_is_named(root, key):
    row = {name: value for name, value in files.QUESTIONS[1].items() if name != key}
    rewritten(root, [files.QUESTIONS[0], row])
    with pytest.raises(DataError, match=rf"SEED-Bench\.json, questions\[1\]: key '{key}' is missing"):
        load(root)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"answer": "E"}, r"questions\[0\]: answer is 'E'; valid: A, B, C, D"),
        ({"answer": "a"}, r"questions\[0\]: answer is 'a'; valid: A, B, C, D"),
        ({"data_type": "audio"}, r"questions\[0\]: data_type is 'audio'; valid: image, video"),
        ({"question_type_id": 99}, r"questions\[0\]: question_type_id is 99; valid: 1 \(Scene Understanding\), 2"),
        ({"question_type_id": [1]}, r"questions\[0\]: question_type_id is \[1\]; valid: a whole number"),
        ({"question_type_id": None}, r"questions\[0\]: question_type_id is None; valid: a whole number"),
        ({"question_type_id": True}, r"questions\[0\]: question_type_id is True; valid: a whole number"),
        ({"question_id": None}, r"questions\[0\]: question_id is None; valid: a whole number, or a text"),
        ({"question_id": {}}, r"questions\[0\]: question_id is {}; valid: a whole number, or a text"),
        ({"question": []}, r"questions\[0\]: question is \[\]; valid: a text that is not empty"),
        ({"choice_b": None}, r"questions\[0\]: choice_b is None; valid: a text"),
        ({"answer": ["A"]}, r"questions\[0\]: answer is \['A'\]; valid: A, B, C, D"),
        ({"data_id": None}, r"questions\[0\]: expected text, found NoneType"),
    ],
)
def test_wrong_values_are_refused(root, keys, message):
    rewritten(root, [{**files.QUESTIONS[0], **keys}])
    with pytest.raises(DataError, match=message):
        load(root)


def test_a_file_without_the_names_of_the_dimensions_is_refused(root):
    (root / "SEED-Bench.json").write_text(json.dumps({"questions": files.QUESTIONS}), encoding="utf-8")
    with pytest.raises(DataError, match=r"SEED-Bench\.json: key 'question_type' is missing; found questions"):
        load(root)


def test_a_question_that_occurs_twice_is_refused(root):
    rewritten(root, [files.QUESTIONS[0], files.QUESTIONS[0]])
    with pytest.raises(DataError, match="question '101669' occurs twice"):
        BENCHMARK.loaded(Download(root))


@pytest.mark.parametrize("number", [None, [1], {"a": 1}, "one", True])
def test_a_dimension_without_a_number_is_refused(root, number):
    rewritten(root, files.QUESTIONS, {**files.TYPES, "Visual Reasoning": number})
    with pytest.raises(DataError, match=r"\.json, question_type: Visual Reasoning is .*; valid: a whole number"):
        load(root)


def test_the_letter_is_what_a_judge_may_see(root):
    assert set(BENCHMARK.references_in) <= load(root)["7"].truth.keys()
