import io
import json
from collections import Counter
from pathlib import Path

import pytest
from formats import mmmu as files
from PIL import Image

from cwdpo.base.errors import DataError
from cwdpo.data.content import Picture
from cwdpo.evaluate.benchmarks.mmmu import DISCIPLINES, SUBJECTS, Mmmu, agrees, normalised, read_letter, read_open
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mmmu.json").read_text("utf-8"))
BENCHMARK = Mmmu(name="mmmu")


def loaded(folder, into=None):
    return {question.id: question for question in BENCHMARK.load(Download(folder, into))}


def with_row(folder, **changed):
    """The error of a download of one row."""
    first = files.ROWS["Accounting"][0]
    files.write_rows(folder, "Accounting", [{**first, **changed}])
    with pytest.raises(DataError) as error:
        loaded(folder)
    return str(error.value)


def asked(name, options, answers):
    subject = name.removeprefix("validation_").rpartition("_")[0]
    return Question(name, (), {"question": "?", "options": options}, {"answers": answers}, subject)


def of_golden(item):
    answers = json.loads(item["answer"].replace("'", '"')) if item["answer"].startswith("[") else [item["answer"]]
    return Answered(asked(item["id"], item["options"], answers), item["text"])


def test_loads_the_validation_split_only(tmp_path):
    files.write(tmp_path)
    download = Download(tmp_path, tmp_path / "out")
    questions = list(BENCHMARK.load(download))
    assert download.files == [f"{subject}/validation-00000-of-00001.parquet" for subject in sorted(files.ROWS)]
    assert [one.id for one in questions] == [
        "validation_Accounting_1", "validation_Accounting_2", "validation_Accounting_3", "validation_Art_1",
        "validation_Mechanical_Engineering_1", "validation_Mechanical_Engineering_2",
    ]  # fmt: skip
    assert Counter(one.category for one in questions) == {"Accounting": 3, "Art": 1, "Mechanical_Engineering": 2}
    assert [one.truth["answers"] for one in questions] == [["B"], ["A"], ["1,250.5"], ["C"], ["1/2", "0.5"], ["[0, 1]"]]
    assert questions[0].asked["options"] == ["$6", "$7,000", "$8", "$9"]
    assert questions[3].asked["options"][3] == "It's none"
    assert questions[2].asked["options"] == []
    assert all(Question.of(json.loads(json.dumps(one.row()))) == one for one in questions)


def test_writes_the_images_as_they_are(tmp_path):
    files.write(tmp_path)
    question = loaded(tmp_path, tmp_path / "out")["validation_Art_1"]
    assert question.images == tuple(f"images/validation_Art_1_{number}.jpeg" for number in (1, 2, 3, 4))
    for number, path in enumerate(question.images):
        assert (tmp_path / "out" / path).read_bytes() == files.image(40 + number, "JPEG")["bytes"]


def test_prompt_of_choices(tmp_path):
    files.write(tmp_path)
    question = loaded(tmp_path)["validation_Accounting_1"]
    assert BENCHMARK.ask(question) == (
        "<image 1> What is the balance?\n\n(A) $6\n(B) $7,000\n(C) $8\n(D) $9\n\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_prompt_of_an_open_question(tmp_path):
    files.write(tmp_path)
    question = loaded(tmp_path)["validation_Accounting_3"]
    expected = "<image 1> How much is it?\n\nAnswer the question using a single word or phrase."
    assert BENCHMARK.ask(question) == expected


def test_braces_in_a_question_are_no_places_of_the_prompt():
    question = asked("validation_Math_1", ["{question}", "x"], ["A"])
    question = Question(question.id, (), {"question": "{options}", "options": ["{question}", "x"]}, question.truth)
    assert BENCHMARK.ask(question).startswith("{options}\n\n(A) {question}\n(B) x\n\n")


def test_images_stand_where_they_are_named(tmp_path):
    files.write(tmp_path)
    questions = loaded(tmp_path)
    options = BENCHMARK.prompted(questions["validation_Art_1"]).content
    pictures = [Picture(path) for path in questions["validation_Art_1"].images]
    assert options[:6] == (pictures[0], " Which one follows?\n\n(A) ", pictures[1], "\n(B) ", pictures[2], "\n(C) ")
    twice = BENCHMARK.prompted(questions["validation_Accounting_2"]).content
    pictures = [Picture(path) for path in questions["validation_Accounting_2"].images]
    assert twice[:4] == (pictures[2], "Compare ", pictures[0], " and ")  # one that is not named comes first
    assert twice[4:][1].startswith(". Does image 1 rise?")


def test_a_number_left_out_moves_no_name(tmp_path):
    files.write(tmp_path)
    question = loaded(tmp_path)["validation_Mechanical_Engineering_2"]
    assert [Path(path).stem[-2:] for path in question.images] == ["_1", "_3"]
    assert question.asked["question"] == "<image 1> <image 2> Which interval?"


def test_an_image_without_content_is_none(tmp_path):
    row = {**files.ROWS["Accounting"][0], "image_2": {"bytes": None, "path": None}}
    files.write_rows(tmp_path, "Accounting", [row])
    assert len(loaded(tmp_path)["validation_Accounting_1"].images) == 1


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: item["id"])
def test_reads_answers_as_the_official_code(item):
    if item["options"]:
        assert read_letter(item["text"], item["options"]) == item["parsed"]
    else:
        assert sorted(map(repr, read_open(item["text"]))) == item["parsed"]


def test_scores_as_the_official_code():
    items = [item for item in GOLDEN["items"] if item["parsed"] is not None]
    scores = BENCHMARK.score([of_golden(item) for item in items])
    assert {name: item["correct"] for name, item in scores.per_item.items()} == {
        item["id"]: float(item["correct"]) for item in items
    }
    official = {name.lower().replace(" ", "_").replace("overall", "accuracy"): value
                for name, value in GOLDEN["corpus"].items()}  # fmt: skip
    assert scores.corpus == pytest.approx(official, abs=1e-12)
    assert scores.corpus.keys() == {metric.key for metric in Mmmu.metrics}
    json.dumps([scores.per_item, scores.corpus], allow_nan=False)


def test_golden_holds_both_kinds():
    kinds = Counter(bool(item["options"]) for item in GOLDEN["items"])
    assert min(kinds[True], kinds[False]) >= 30
    assert sum(item["correct"] is False for item in GOLDEN["items"]) >= 20


def test_disciplines_hold_every_subject_once():
    assert len(SUBJECTS) == len(set(SUBJECTS)) == 30
    assert sum(Mmmu.published.values()) == 900
    assert [len(subjects) for subjects in DISCIPLINES.values()] == [4, 5, 5, 5, 4, 7]


def test_every_question_counts_the_same():
    answered = [
        Answered(asked("validation_Art_1", ["x", "y"], ["A"]), "A"),
        Answered(asked("validation_Art_2", ["x", "y"], ["A"]), "B"),
        Answered(asked("validation_Art_3", [], ["7"]), "8"),
        Answered(asked("validation_Music_1", [], ["7", "seven"]), "It is Seven."),
        Answered(asked("validation_Math_1", ["x", "y"], ["A", "B"]), "(B)"),
    ]
    scores = BENCHMARK.score(answered)
    assert scores.corpus["accuracy"] == pytest.approx(3 / 5)  # the mean of subjects would be 7 / 9
    assert scores.corpus["art_and_design"] == pytest.approx(2 / 4)
    assert scores.corpus["science"] == 1.0
    assert scores.corpus["business"] is None
    assert scores.unavailable["business"] == "not available: no such question was asked"
    assert "science" not in scores.unavailable
    assert scores.counts == {}
    assert scores.per_item["validation_Music_1"]["prediction"] == "seven"


def test_a_drawn_letter_goes_by_the_question_alone():
    names = [f"validation_Art_{number}" for number in range(1, 401)]
    answered = [Answered(asked(name, ["w", "x", "y", "z"], ["A"]), "not sure") for name in names]
    scores = BENCHMARK.score(answered)
    drawn = {name: item["drawn"] for name, item in scores.per_item.items()}
    assert set(drawn.values()) == set("ABCD")
    assert 60 < Counter(drawn.values())["A"] < 140
    assert scores.counts == {"answers without an option (one was drawn)": 400}
    assert scores.corpus["accuracy"] == Counter(drawn.values())["A"] / 400
    assert all(item["prediction"] is None for item in scores.per_item.values())
    again = BENCHMARK.score(answered[7:8]).per_item[names[7]]
    assert again == scores.per_item[names[7]]


def test_what_could_not_be_read_is_counted():
    answered = [
        Answered(asked("validation_Art_1", ["w", "x"], ["A"]), ""),
        Answered(asked("validation_Art_2", [], ["7"]), ""),
        Answered(asked("validation_Art_3", [], ["7"]), "7"),
    ]
    counts = BENCHMARK.score(answered).counts
    assert counts == {"answers without an option (one was drawn)": 1, "empty answers to open questions": 1}


def test_one_character_is_not_found_inside_a_word():
    assert normalised(" X ") == [" x", "x "]
    assert not agrees(read_open("axe"), ["X"])
    assert agrees(read_open("the axis is x"), ["X"])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"id": "test_Accounting_1"}, "row 1: id is 'test_Accounting_1'; valid: validation_SUBJECT_NUMBER"),
        ({"id": "validation_Acounting_1"}, "unknown subject 'Acounting'; did you mean 'Accounting'?"),
        ({"question": None}, "row 1: question is None; valid: a text that is not empty"),
        ({"question_type": "short-answer"}, "question_type is 'short-answer'; valid: multiple-choice, open"),
        ({"options": "[]"}, "options is '[]'; valid: a list of texts in Python's notation"),
        ({"options": "['a', "}, "options is \"['a', \"; valid"),
        ({"options": "__import__('os').getcwd()"}, "valid: a list of texts in Python's notation"),
        ({"options": None}, "options is None; valid"),
        ({"answer": "E"}, "row 1: answer is 'E'; valid: A, B, C, D"),
        ({"answer": "AB"}, "answer is 'AB'; valid: A, B, C, D"),
        ({"answer": "?"}, "answer is '?'; valid: A, B, C, D"),
        ({"answer": ""}, "row 1: answer is ''; valid: a text that is not empty"),
        ({"question_type": "open", "answer": "['1', '']"}, "answer is ''; valid: texts that are not empty"),
        ({"question": "<image 2>?"}, "the text names <image 2>, but the images of the row are: image_1"),
        ({"options": "['<image 9>', 'b']"}, "the text names <image 9>, but the images of the row are: image_1"),
        ({"image_1": None}, "the text names <image 1>, but the images of the row are: none"),
        ({"image_1": {"bytes": None, "path": "a.png"}}, "row 1, image_1: there are no bytes of an image"),
        ({"image_1": {"bytes": b"GIF89", "path": "a"}}, "row 1, image_1: the image inside it cannot be decoded"),
    ],
)
def test_bad_rows(tmp_path, changed, expected):
    assert expected in with_row(tmp_path, **changed)


def test_list_answers_of_choices_are_all_right(tmp_path):
    files.write_rows(tmp_path, "Accounting", [{**files.ROWS["Accounting"][0], "answer": "['A', 'C']"}])
    assert loaded(tmp_path)["validation_Accounting_1"].truth["answers"] == ["A", "C"]


def test_a_missing_column_is_named(tmp_path):
    import pyarrow.parquet as pq

    files.write(tmp_path)
    path = tmp_path / "Art" / "validation-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["image_7"]), path)
    with pytest.raises(DataError, match=r"Art/validation-00000-of-00001.parquet: column 'image_7' is missing"):
        loaded(tmp_path)


def test_a_download_of_the_test_split_is_refused(tmp_path):
    files.write_rows(tmp_path, "Art", files.ROWS["Art"], "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"no file 'validation-\*.parquet'.*test-00000-of-00001.parquet"):
        loaded(tmp_path)


def test_pictures_of_the_writer_are_pictures():
    with Image.open(io.BytesIO(files.image(3)["bytes"])) as picture:
        assert picture.size == (40, 30)
