import json
from pathlib import Path

import pytest
from formats import mmhal as files

from cwdpo.base.errors import DataError
from cwdpo.data.content import Picture
from cwdpo.evaluate.benchmarks.mmhal import Mmhal
from cwdpo.evaluate.judging.judged import NO_JUDGE, Unusable
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mmhal.json").read_text("utf-8"))
BENCHMARK = Mmhal(name="mmhal")


def loaded(folder):
    return {question.id: question for question in BENCHMARK.load(Download(folder))}


def fault(folder, **changed):
    """The error of a download in which the second record is otherwise."""
    files.write(folder)
    records = json.loads((folder / "response_template.json").read_text())
    changed = {**records[1], **changed}
    records[1] = {key: value for key, value in changed.items() if value is not None}
    (folder / "response_template.json").write_text(json.dumps(records))
    with pytest.raises(DataError) as error:
        loaded(folder)
    return str(error.value)


def asked(number):
    truth = {"answer": "Two.", "contents": ["Cat", "Mat"], "type": number % 8, "type_name": "counting"}
    return Question(str(number), ("a.jpg",), {"question": "How many?"}, truth)


def read(reply):
    try:
        return BENCHMARK.rating(Answered(asked(0), "Two."), reply)
    except Unusable:
        return None


def test_loads_every_record_with_the_image_of_its_address(tmp_path):
    files.write(tmp_path)
    download = Download(tmp_path)
    questions = list(BENCHMARK.load(download))
    assert [one.id for one in questions] == [str(number) for number in range(10)]
    assert [one.truth["type"] for one in questions] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
    assert questions[9].images == ("images/pic 9_o.jpg",)
    assert questions[9].truth == {
        "answer": "It is fruit 9.", "contents": ["Table", "Bowl", "Fruit 9"], "type": 1, "type_name": "adversarial",
    }  # fmt: skip
    assert (download.files, download.missing) == (["response_template.json"], [])


def test_the_model_is_asked_the_question_alone(tmp_path):
    files.write(tmp_path)
    content = BENCHMARK.prompted(loaded(tmp_path)["3"]).content
    assert content == (Picture("images/pic 3_o.jpg"), "Which fruit is number 3?")


def test_an_image_that_is_not_there_is_remembered(tmp_path):
    files.write(tmp_path)
    (tmp_path / "images" / "pic 7_o.jpg").unlink()
    download = Download(tmp_path)
    list(BENCHMARK.load(download))
    assert download.missing == ["images/pic 7_o.jpg"]


def test_wrong_records_are_named(tmp_path):
    assert "element 2: key 'gt_answer' is missing" in fault(tmp_path / "1", gt_answer=None)
    assert "element 2: image_content is 'Cat'; valid: a list of texts" in fault(tmp_path / "2", image_content="Cat")
    assert "element 2: image_src is 'https://x.org/'; expected an address" in fault(
        tmp_path / "3", image_src="https://x.org/"
    )


@pytest.mark.parametrize("value", [True, {"a": 1}, [["a"]], [None]])
@pytest.mark.parametrize("key", ["image_src", "image_content", "question", "gt_answer", "question_type"])
def test_values_of_another_type_are_refused(tmp_path, key, value):
    assert f"element 2: {key}" in fault(tmp_path, **{key: value})


@pytest.mark.parametrize("key", ["image_src", "image_content", "question", "gt_answer", "question_type"])
def test_values_that_are_null_are_refused(tmp_path, key):
    (tmp_path / "response_template.json").write_text(json.dumps([{**files.RECORDS[0], key: None}]))
    with pytest.raises(DataError, match=f"element 1: {key} is None; valid: a "):
        loaded(tmp_path)


def test_an_address_with_half_a_bracket(tmp_path):
    assert "image_src is 'http://['; expected an address" in fault(tmp_path, image_src="http://[")


def test_every_column_is_made_by_the_judge_who_may_see_the_contents(tmp_path):
    assert all(metric.judged for metric in (*BENCHMARK.metrics, BENCHMARK.compared))
    files.write(tmp_path)
    assert set(BENCHMARK.references_in) <= loaded(tmp_path)["0"].truth.keys()


def test_a_file_that_is_no_array(tmp_path):
    (tmp_path / "response_template.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"expected an array, found '{\"a\": 1}'"):
        loaded(tmp_path)


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: repr(item["reply"]))
def test_replies_are_read_as_officially(item):
    assert read(item["reply"]) == (item["rating"] if item["read"] else None)
    assert item["read"] or item["rating"] == 0


def test_corpus_values_are_the_official_ones():
    items = GOLDEN["items"]
    scores = BENCHMARK.score([
        Answered(asked(number), "?", (read(item["reply"]),)) for number, item in enumerate(items)
    ])  # fmt: skip
    corpus = {key: GOLDEN["corpus"][key] for key in ("score", "hallucination_rate")}
    assert scores.corpus == pytest.approx(corpus, abs=1e-12)
    types = [[one["rating"] for one in scores.per_item.values() if one["type"] == kind] for kind in range(8)]
    assert [sum(own) / len(own) for own in types] == pytest.approx(GOLDEN["corpus"]["types"], abs=1e-12)
    unread = sum(not item["read"] for item in items)
    assert unread
    assert scores.counts == {"answers without a usable rating, counted as 0": unread}


def test_hand_scored():
    scores = BENCHMARK.score([
        Answered(asked(number), "?", (judgement,)) for number, judgement in enumerate([6, 3, 2, 0, None])
    ])  # fmt: skip
    assert scores.corpus == pytest.approx({"score": 11 / 5, "hallucination_rate": 3 / 5})
    assert [one["correct"] for one in scores.per_item.values()] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert [one["prediction"] for one in scores.per_item.values()] == [6, 3, 2, 0, None]
    assert [one["rating"] for one in scores.per_item.values()] == [6, 3, 2, 0, 0]
    assert scores.counts == {"answers without a usable rating, counted as 0": 1}


def test_without_a_judge_nothing_is_zero():
    scores = BENCHMARK.score([Answered(asked(0), "Two.")])
    assert scores.corpus == {"score": None, "hallucination_rate": None}
    assert scores.unavailable == dict.fromkeys(scores.corpus, NO_JUDGE)
    assert (scores.per_item["0"]["rating"], scores.per_item["0"]["correct"]) == (None, None)


def test_the_shipped_prompt_shows_all_that_the_judge_needs():
    (text,) = BENCHMARK.requests(Answered(asked(0), "Three cats."))
    for line in ("What the image shows: Cat, Mat", "Question: How many?", "A person's answer: Two.", "Three cats."):
        assert line in text
    assert all(f"\n{rating}: " in text for rating in range(7))


def test_a_judge_that_repeats_the_shipped_prompt_gives_no_rating():
    (text,) = BENCHMARK.requests(Answered(asked(0), "Three cats."))
    assert read(text) is None
