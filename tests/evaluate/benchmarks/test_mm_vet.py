import json
from pathlib import Path

import pytest
from formats import mm_vet as files

from cwdpo.base.errors import DataError
from cwdpo.data.content import Picture
from cwdpo.evaluate.benchmarks.mm_vet import CAPABILITIES, MmVet
from cwdpo.evaluate.judging.judged import NO_JUDGE, Unusable
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mm_vet.json").read_text("utf-8"))
BENCHMARK = MmVet(name="mm_vet")


def loaded(folder):
    return {question.id: question for question in BENCHMARK.load(Download(folder))}


def fault(folder, **changed):
    """The error of a download in which one entry is otherwise."""
    files.write(folder)
    path = folder / "mm-vet" / "mm-vet.json"
    content = json.loads(path.read_text())
    entry = {**content["v1_2"], **changed}
    path.write_text(json.dumps({"v1_2": {key: value for key, value in entry.items() if value is not None}}))
    with pytest.raises(DataError) as error:
        loaded(folder)
    return str(error.value)


def asked(name, *capabilities, truth="rice"):
    return Question(name, ("a.jpg",), {"question": "What?"}, {"answer": truth, "capabilities": list(capabilities)})


def read(reply):
    try:
        return BENCHMARK.rating(Answered(asked("1", "rec"), "rice"), reply)
    except Unusable:
        return None


def test_loads_every_entry_with_its_image(tmp_path):
    files.write(tmp_path)
    download = Download(tmp_path)
    questions = list(BENCHMARK.load(download))
    assert [one.id for one in questions] == [f"v1_{number}" for number in range(7)]
    assert (download.files, download.missing) == (["mm-vet/mm-vet.json"], [])
    assert questions[0].images == ("mm-vet/images/v1_0.png",)
    assert questions[1].images == ("mm-vet/images/v1_1.jpg",)
    assert questions[0].truth == {"answer": "-2<AND>7", "capabilities": ["ocr", "math"]}
    assert questions[5].asked == {"question": "What does “exit” point to?"}


def test_the_model_is_asked_the_question_alone(tmp_path):
    files.write(tmp_path)
    prompted = BENCHMARK.prompted(loaded(tmp_path)["v1_0"])
    assert prompted.content == (Picture("mm-vet/images/v1_0.png"), "Which numbers solve it?")


def test_an_image_that_is_not_there_is_remembered(tmp_path):
    files.write(tmp_path)
    (tmp_path / "mm-vet" / "images" / "v1_4.jpg").unlink()
    download = Download(tmp_path)
    list(BENCHMARK.load(download))
    assert download.missing == ["mm-vet/images/v1_4.jpg"]


def test_wrong_entries_are_named(tmp_path):
    assert "'v1_2': key 'answer' is missing" in fault(tmp_path / "1", answer=None)
    assert "'v1_2': capability has 'smell'; valid: rec, ocr" in fault(tmp_path / "2", capability=["rec", "smell"])
    assert "'v1_2': capability is 'rec'; expected a list" in fault(tmp_path / "3", capability="rec")
    assert "'v1_2': capability is []; expected a list" in fault(tmp_path / "4", capability=[])


@pytest.mark.parametrize("value", [[], True, ["a"], {"a": 1}, ""])
@pytest.mark.parametrize("key", ["question", "answer"])
def test_values_of_another_type_are_refused(tmp_path, key, value):
    assert f"'v1_2': {key} is {value!r}; valid: a text that is not empty" in fault(tmp_path, **{key: value})


def test_a_byte_order_mark_is_no_content(tmp_path):
    files.write(tmp_path)
    path = tmp_path / "mm-vet" / "mm-vet.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(loaded(tmp_path)) == 7


def test_every_column_is_made_by_the_judge():
    assert all(metric.judged for metric in (*BENCHMARK.metrics, BENCHMARK.compared))


def test_a_file_that_is_no_object_or_no_json(tmp_path):
    (tmp_path / "mm-vet.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object, found list"):
        loaded(tmp_path)
    (tmp_path / "mm-vet.json").write_text('{"v1_0": ')
    with pytest.raises(DataError, match=r"mm-vet\.json: not valid JSON"):
        loaded(tmp_path)


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: repr(item["reply"]))
def test_replies_are_read_as_by_either_official_evaluator(item):
    official = item["vlmevalkit"] if item["mm_vet"] is None else item["mm_vet"]
    assert read(item["reply"]) == official


def test_the_golden_replies_tell_the_rules_apart():
    assert len(GOLDEN["items"]) >= 30
    assert any(item["mm_vet"] is None and item["vlmevalkit"] is not None for item in GOLDEN["items"])
    assert any(item["mm_vet"] is not None and item["vlmevalkit"] is None for item in GOLDEN["items"])


def test_corpus_values_are_the_official_ones():
    agreed = [item for item in GOLDEN["items"] if item["mm_vet"] == item["vlmevalkit"]]
    scores = BENCHMARK.score([
        Answered(asked(item["id"], *item["capability"]), "?", (item["mm_vet"],)) for item in agreed
    ])  # fmt: skip
    expected = {key: GOLDEN["corpus"][key] / 100 for key in CAPABILITIES}
    assert scores.corpus == pytest.approx({"score": GOLDEN["corpus"]["total"] / 100, **expected}, abs=1e-10)
    unread = sum(item["mm_vet"] is None for item in agreed)
    assert unread
    assert scores.counts == {"answers without a usable rating, counted as 0": unread}
    assert {metric.key for metric in BENCHMARK.metrics} == set(scores.corpus)


def test_not_a_number_is_no_rating():
    assert read("nan") is None
    with pytest.raises(Unusable, match=r"no number from 0\.0 to 1\.0"):
        BENCHMARK.rating(Answered(asked("1", "rec"), "rice"), "2")


def test_hand_scored():
    scores = BENCHMARK.score([
        Answered(asked("a", "rec", "ocr"), "x", (0.5,)),
        Answered(asked("b", "rec"), "x", (1.0,)),
        Answered(asked("c", "ocr"), "x", (None,)),
    ])  # fmt: skip
    assert (scores.corpus["score"], scores.corpus["rec"], scores.corpus["ocr"]) == (0.5, 0.75, 0.25)
    assert scores.corpus["math"] is None
    assert scores.unavailable["math"] == "not available: no such question was asked"
    assert "rec" not in scores.unavailable
    assert scores.per_item["c"] == {
        "prediction": None, "correct": 0.0,
        "rec": False, "ocr": True, "know": False, "gen": False, "spat": False, "math": False,
    }  # fmt: skip
    assert (scores.per_item["a"]["prediction"], scores.per_item["a"]["correct"]) == (0.5, 0.5)


def test_without_a_judge_nothing_is_zero():
    scores = BENCHMARK.score([Answered(asked("a", "rec"), "x")])
    assert set(scores.corpus.values()) == {None}
    assert scores.unavailable == dict.fromkeys(scores.corpus, NO_JUDGE)
    assert (scores.per_item["a"]["correct"], scores.counts) == (None, {})


@pytest.mark.parametrize("item", GOLDEN["prompts"], ids=lambda item: item["truth"])
def test_the_official_prompt_is_filled_as_officially(item, tmp_path):
    path = tmp_path / "official.txt"
    path.write_text("Grade.\n$question | $truth | $answer | \n")
    question = Question("1", ("a.jpg",), {"question": item["question"]}, {"answer": item["truth"], "capabilities": []})
    (text,) = MmVet(name="mm_vet", judge_prompt=str(path)).requests(Answered(question, item["answer"]))
    assert text == f"Grade.\n{item['asked']}"


def test_the_shipped_prompt_shows_all_that_the_judge_needs():
    (text,) = BENCHMARK.requests(Answered(asked("1", "rec", truth="$5<AND>$name"), "It costs $$9, $answer."))
    assert "Question: What?\n" in text
    assert "Reference answer: $5 <AND> $name\n" in text
    assert "Answer to grade: It costs $$9, $answer.\n" in text
    assert all(word in text for word in ("<AND>", "<OR>", "0.0", "1.0", "0.1"))
