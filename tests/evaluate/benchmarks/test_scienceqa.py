import json
from pathlib import Path

import pytest
from formats import scienceqa as files

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.scienceqa import LETTERS, Scienceqa
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "scienceqa.json").read_text(encoding="utf-8"))
BENCHMARK = Scienceqa(name="scienceqa")


@pytest.fixture
def root(tmp_path):
    files.write(tmp_path / "down")
    return tmp_path / "down"


def load(root):
    return {question.id: question for question in BENCHMARK.load(Download(root))}


def changed(root, pid="11", **keys):
    problems = {**files.PROBLEMS, pid: {**files.PROBLEMS[pid], **keys}}
    (root / "problems.json").write_text(json.dumps(problems), encoding="utf-8")


def made(number, item):
    options = [f"choice {place}" for place in range(item["choices"])]
    asked = {"hint": "", "question": "Which?", "options": options}
    return Question(str(number), ("one.png",), asked, {"letter": LETTERS[item["answer"]], "subject": "natural science"})


def test_problems_of_the_test_split_that_have_an_image_in_the_order_of_the_split(root):
    download = Download(root)
    questions = list(BENCHMARK.load(download))
    assert [question.id for question in questions] == ["5", "11", "27", "30", "43", "42"]
    assert questions[1].row() == {
        "id": "11",
        "images": ("images/test/11/image.png",),
        "asked": {
            "hint": "",
            "question": "Which colony is shown?",
            "options": ["Maryland", "Virginia", "Ohio", "Vermont"],
        },
        "truth": {"letter": "D", "subject": "social science"},
        "category": "",
    }
    assert set(download.images) == {f"images/test/{pid}/image.png" for pid in ("5", "11", "27", "30", "42", "43")}
    assert download.missing == []
    assert sorted(download.files) == ["pid_splits.json", "problems.json"]


def test_the_prompt_without_a_hint(root):
    assert BENCHMARK.ask(load(root)["11"]) == (
        "Context: N/A\nQuestion: Which colony is shown?\n"
        "Options: (A) Maryland (B) Virginia (C) Ohio (D) Vermont\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_the_prompt_with_a_hint_is_cleaned_as_llava_does(root):
    assert BENCHMARK.ask(load(root)["5"]) == (
        "Context: Engineers test parachutes.\nThe figure shows one.\nQuestion: What did the test show?\n"
        "Options: (A) if it was damaged (B) how steady it was (C) whether it would swing\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_what_a_hint_has_in_braces_is_left_alone(root):
    assert BENCHMARK.ask(load(root)["27"]).startswith("Context: Look at {question}.\nQuestion: What is in the box?\n")


@pytest.mark.parametrize("number", range(len(GOLDEN["items"])))
def test_an_answer_is_read_as_official(number):
    item = GOLDEN["items"][number]
    found = BENCHMARK.score([Answered(made(number, item), item["text"])])
    expected = None if item["parsed"] == "FAILED" else item["parsed"]
    assert found.per_item[str(number)]["prediction"] == expected
    assert found.per_item[str(number)]["correct"] == float(item["correct"])


def test_all_answers_together_are_worth_the_official_value_and_what_was_not_read_is_counted():
    items = GOLDEN["items"]
    found = BENCHMARK.score([Answered(made(number, item), item["text"]) for number, item in enumerate(items)])
    assert found.corpus == {"accuracy": pytest.approx(GOLDEN["corpus"]["accuracy"] / 100, abs=1e-12)}
    lost = [item for item in items if item["index"] == -1]
    failed = sum(item["parsed"] == "FAILED" for item in lost)
    assert found.counts == {
        "answers without a letter": failed,
        "answers with a letter that is no option": len(lost) - failed,
    }
    assert failed > 20
    assert len(lost) - failed >= 3


def test_three_of_four_by_hand(root):
    answers = {"5": "B", "11": "D. Vermont", "27": "The answer is E.", "42": "A"}
    questions = load(root)
    found = BENCHMARK.score([Answered(questions[pid], text) for pid, text in answers.items()])
    assert found.corpus == {"accuracy": 0.75}
    assert found.per_item["11"] == {"prediction": "D", "truth": "D", "correct": 1.0, "subject": "social science"}
    assert found.counts == {}
    assert found.unavailable == {}


def test_an_image_that_is_not_there_is_listed(root):
    (root / "images/test/27/image.png").unlink()
    download = Download(root)
    assert len(list(BENCHMARK.load(download))) == 6
    assert download.missing == ["images/test/27/image.png"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"answer": 4}, "problem '11': answer is 4; valid: 0 to 3"),
        ({"answer": -1}, "problem '11': answer is -1; valid: 0 to 3"),
        ({"answer": "D"}, "problem '11': answer is 'D'; valid: 0 to 3"),
        ({"choices": list("abcdef")}, "problem '11': 6 choices; valid: 1 to 5"),
        ({"choices": []}, "problem '11': 0 choices; valid: 1 to 5"),
        ({"choices": None}, "problem '11': choices is None; valid: a list of texts"),
        ({"choices": ["a", None]}, r"problem '11': choices\[1\] is None; valid: a text"),
        ({"answer": True}, "problem '11': answer is True; valid: 0 to 3"),
        ({"answer": [1]}, r"problem '11': answer is \[1\]; valid: 0 to 3"),
        ({"answer": None}, "problem '11': answer is None; valid: 0 to 3"),
        ({"question": None}, "problem '11': question is None; valid: a text that is not empty"),
        ({"hint": None}, "problem '11': hint is None; valid: a text"),
        ({"image": ["image.png"]}, r"problem '11': image is \['image.png'\]; valid: a text"),
        ({"subject": {}}, "problem '11': subject is {}; valid: a text"),
    ],
)
def test_wrong_values_are_refused(root, keys, message):
    changed(root, **keys)
    with pytest.raises(DataError, match=message):
        load(root)


def test_a_missing_key_is_named(root):
    row = {key: value for key, value in files.PROBLEMS["11"].items() if key != "hint"}
    (root / "problems.json").write_text(json.dumps({**files.PROBLEMS, "11": row}), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"problems\.json, problem '11': key 'hint' is missing; found question, choices"
    ):
        load(root)


def test_a_problem_that_only_the_split_knows_is_named(root):
    (root / "pid_splits.json").write_text(json.dumps({"test": ["5", "99"]}), encoding="utf-8")
    with pytest.raises(DataError, match=r"problems\.json: problem '99' is missing, .* of pid_splits\.json names"):
        load(root)


def test_splits_without_a_test_split_are_refused(root):
    (root / "pid_splits.json").write_text(json.dumps({"train": ["1"]}), encoding="utf-8")
    with pytest.raises(DataError, match=r"pid_splits\.json: key 'test' is missing; found train"):
        load(root)


@pytest.mark.parametrize("value", [None, 5, {"5": 1}, [["5"]], [None]])
def test_a_test_split_of_another_type_is_refused(root, value):
    (root / "pid_splits.json").write_text(json.dumps({"test": value}), encoding="utf-8")
    with pytest.raises(DataError, match=r"pid_splits\.json: test(\[0\])? is "):
        load(root)


def test_the_letter_is_what_a_judge_may_see(root):
    assert set(BENCHMARK.references_in) <= load(root)["11"].truth.keys()
