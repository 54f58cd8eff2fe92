import base64
import json
from collections import Counter
from pathlib import Path

import pytest
from formats import mmbench as files
from pydantic import ValidationError

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.mmbench import Mmbench, read_option
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mmbench.json").read_text("utf-8"))
BENCHMARK = Mmbench(name="mmbench")


def loaded(folder, benchmark=BENCHMARK, into=None):
    return {question.id: question for question in benchmark.load(Download(folder, into))}


def failing(folder, rows):
    """The error of these rows."""
    files.write_rows(folder / files.V11, rows)
    with pytest.raises(DataError) as error:
        loaded(folder)
    return str(error.value)


def one_row(**changed):
    return {**files.row(3, "Which?", ["red", "blue"], "A", files.image(5)), **changed}


def turn(index, options, answer, text):
    options = dict(zip("ABCD", options, strict=False)) if isinstance(options, list) else options
    asked = {"hint": None, "question": "?", "options": options}
    return Answered(Question(str(index), (), asked, {"answer": answer, "category": "c"}, "l2"), text)


def of_golden(item):
    return turn(item["index"], item["options"], item["answer"], item["text"])


def test_loads_every_rotation(tmp_path):
    files.write(tmp_path)
    questions = loaded(tmp_path)
    assert list(questions) == ["7", "12", "15", "1000007", "1000012", "1000015", "2000007", "3000007"]
    assert questions["1000007"].asked == {
        "hint": None, "question": "Where is the cat?",
        "options": {"A": "right", "B": "top", "C": "below", "D": "left"},
    }  # fmt: skip
    assert questions["12"].asked["options"] == {"A": "yes", "B": "no"}
    assert questions["12"].asked["hint"] == "Read the hint.\nIt has two lines."
    assert questions["15"].asked["options"] == {"A": "1", "B": "2"}  # "nan" is what pandas writes for nothing
    assert questions["15"].asked["hint"] is None
    assert questions["12"].truth == {"answer": "A", "category": "attribute_comparison"}
    assert questions["12"].category == "finegrained_perception (cross-instance)"
    assert Counter(map(BENCHMARK.group, questions.values())) == {"7": 4, "12": 2, "15": 2}
    assert all(Question.of(json.loads(json.dumps(one.row()))) == one for one in questions.values())


def test_images_are_shared_by_reference(tmp_path):
    files.write(tmp_path)
    questions = loaded(tmp_path, into=tmp_path / "out")
    of_seven = {name for name, one in questions.items() if one.images == ("images/7.jpeg",)}
    assert of_seven == {"7", "15", "1000007", "1000015", "2000007", "3000007"}
    assert questions["1000012"].images == ("images/12.jpeg",)
    assert (tmp_path / "out/images/7.jpeg").read_bytes() == base64.b64decode(files.image(10))
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == ["12.jpeg", "7.jpeg"]


def test_prompts(tmp_path):
    files.write(tmp_path)
    questions = loaded(tmp_path)
    assert BENCHMARK.ask(questions["12"]) == (
        'Hint: Read the hint.\nIt has two lines.\nQuestion: Is "it" red?\nOptions:\nA. yes\nB. no\n'
        "Please select the correct answer from the options above. \n"
    )
    assert BENCHMARK.ask(questions["7"]).startswith(
        "Question: Where is the cat?\nOptions:\nA. left\nB. right\nC. top\n"
    )


def test_versions_are_different_files(tmp_path):
    files.write_rows(tmp_path / files.V11, [one_row()])
    files.write_rows(tmp_path / files.V10, [one_row(index="4", question="Old?")])
    assert list(loaded(tmp_path)) == ["3"]
    old = Mmbench(name="mmbench", version="1.0")
    assert list(loaded(tmp_path, old)) == ["4"]
    assert old.for_reading().version == "1.0"
    assert set(Mmbench.checksums) == {files.V11, files.V10}


@pytest.mark.parametrize(("version", "there", "other"), [("1.1", files.V10, "1.0"), ("1.0", files.V11, "1.1")])
def test_the_other_version_alone_is_refused(tmp_path, version, there, other):
    files.write_rows(tmp_path / there, [one_row()])
    with pytest.raises(DataError) as error:
        loaded(tmp_path, Mmbench(name="mmbench", version=version))
    assert f"version {version} is asked for" in str(error.value)
    assert f"there is only '{there}', which is version {other}" in str(error.value)


def test_no_version_at_all(tmp_path):
    files.write_rows(tmp_path / "MMBench_TEST_EN_V11.tsv", [one_row()])
    with pytest.raises(DataError, match=r"no file 'MMBench_DEV_EN_V11.tsv'.*MMBench_TEST_EN_V11.tsv"):
        loaded(tmp_path)


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: f"{item['index']}")
def test_reads_options_as_the_official_code(item):
    assert read_option(item["text"], item["options"]) == item["inferred"]


def test_scores_as_the_official_code():
    scores = BENCHMARK.score([of_golden(item) for item in GOLDEN["items"]])
    assert scores.corpus == pytest.approx(GOLDEN["corpus"], abs=1e-12)
    assert GOLDEN["corpus"]["circular"] < GOLDEN["corpus"]["vanilla"] < 1
    hits = {}
    for item in scores.per_item.values():  # the corpus values again, from the items alone
        hits[str(item["group"])] = min(hits.get(str(item["group"]), 1), item["correct"])
    assert hits == GOLDEN["hits"]
    lost = sum(item["inferred"] in (None, "Z") for item in GOLDEN["items"])
    assert scores.counts == {"answers without an option": lost}
    assert [metric.key for metric in Mmbench.metrics] == ["circular", "vanilla"]


def test_scores_by_hand():
    three = ["cat", "dog", "cow"]
    answered = [
        turn(5, three, "A", "A"),
        turn(6, three, "B", "Dog"),
        turn(9, ["yes", "no"], "A", "no"),
        turn(1000005, three, "B", "B"),
        turn(1000006, three, "A", "C"),
        turn(1000009, ["no", "yes"], "B", "B"),
        turn(2000005, three, "C", "(C)"),
        turn(0, ["yes", "no"], "A", "a bird"),
    ]
    scores = BENCHMARK.score(answered)
    assert scores.corpus == {"circular": 1 / 4, "vanilla": 2 / 4}  # 5; 5 and 6
    assert scores.per_item["1000006"] == {
        "prediction": "C", "truth": "A", "correct": 0.0, "group": 6, "rotation": 1,
        "category": "c", "l2-category": "l2",
    }  # fmt: skip
    assert scores.per_item["0"]["prediction"] is None
    assert scores.counts == {"answers without an option": 1}
    assert scores.unavailable == {}


def test_only_rotations_have_no_vanilla_value():
    scores = BENCHMARK.score([turn(1000005, ["a", "b"], "A", "A")])
    assert scores.corpus == {"circular": 1.0, "vanilla": None}
    assert scores.unavailable == {"vanilla": "not available: no such question was asked"}
    assert scores.counts == {}


def test_a_limit_keeps_rotations_together(tmp_path):
    files.write(tmp_path)
    questions = list(loaded(tmp_path).values())
    chosen = Mmbench(name="mmbench", limit=5).chosen(questions)
    assert {one.id for one in chosen} == {"7", "1000007", "2000007", "3000007"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (one_row(index="3.0"), "line 2: index is '3.0'; valid: a whole number"),
        (one_row(index=""), "line 2: index is ''; valid: a whole number"),
        (one_row(index="1000003"), "index 1000003 rotates question 3, which is not in the file"),
        (one_row(question=""), "line 2: question is empty"),
        (one_row(split="test"), "line 2: split is 'test'; valid: dev"),
        (one_row(answer="C"), "line 2: answer is 'C'; valid: A, B"),
        (one_row(answer=""), "line 2: answer is ''; valid: A, B"),
        (one_row(answer="B", B="nan"), "line 2: answer is 'B'; valid: A"),
        (one_row(image=""), "line 2: there is no image; the cell of row 3 is empty"),
        (one_row(image="8"), "line 2: the image of row 3 is that of row 8, but no row has this index"),
        (one_row(image="3"), "line 2: the image of row 3 is that of row 3, which leads back to itself"),
        (one_row(image="%" * 65), "line 2, image: the image is no base64"),
        (one_row(image="QUJD" * 17), "line 2, image: the image inside it cannot be decoded"),
    ],
)
def test_bad_rows(tmp_path, row, expected):
    assert expected in failing(tmp_path, [row])


def test_an_index_that_occurs_twice(tmp_path):
    error = failing(tmp_path, [one_row(), one_row(index="003")])
    assert "line 3: index 3 occurs twice; it is that of" in error
    assert "line 2 too" in error


def test_references_in_a_circle(tmp_path):
    rows = [one_row(image="4"), one_row(index="4", image="5"), one_row(index="5", image="4")]
    assert "the image of row 5 is that of row 4, which leads back to itself" in failing(tmp_path, rows)


def test_a_reference_to_a_later_row(tmp_path):
    files.write_rows(tmp_path / files.V11, [one_row(image="4"), one_row(index="4")])
    assert loaded(tmp_path)["3"].images == ("images/4.jpeg",)


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / files.V11).write_text("index\tquestion\thint\tA\tB\tC\n", "utf-8")
    with pytest.raises(DataError, match=r"MMBench_DEV_EN_V11.tsv: column 'D' is missing; found index, question"):
        loaded(tmp_path)


@pytest.mark.parametrize(("value", "version"), [(1.0, "1.0"), (1.1, "1.1"), (1, "1.0"), ("1.0", "1.0")])
def test_a_version_may_be_a_number(value, version):
    assert Mmbench(name="mmbench", version=value).version == version


@pytest.mark.parametrize("value", [True, 2, 1.2, None, "1"])
def test_other_versions_are_refused(value):
    with pytest.raises(ValidationError, match=r"Input should be '1.1' or '1.0'"):
        Mmbench(name="mmbench", version=value)
