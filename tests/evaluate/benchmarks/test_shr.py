import json
from pathlib import Path

import pytest
from formats import shr as files

from cwdpo.base.errors import DataError
from cwdpo.data.content import Picture
from cwdpo.evaluate.benchmarks.shr import VERDICTS, Shr, distinct, sentences
from cwdpo.evaluate.judging.judged import NO_JUDGE, Unusable
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "shr.json").read_text("utf-8"))
BENCHMARK = Shr(name="shr")
NO_VERDICT = "sentences without a usable verdict, left out"


def loaded(folder):
    return {question.id: question for question in BENCHMARK.load(Download(folder))}


def with_file(folder, name, content):
    """The error of a download in which one file is otherwise."""
    files.write(folder)
    (path,) = folder.glob(f"*/{name}")
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError) as error:
        loaded(folder)
    return str(error.value)


def answered(name, text, *judgements):
    return Answered(
        Question(name, ("a.jpg",), {}, {"regions": "[0.0]: a boat\n", "facts": "It floats.\n"}), text, judgements
    )


def read(text, reply):
    try:
        return BENCHMARK.rating(answered("1", text), reply)
    except Unusable:
        return None


def official(item):
    """The official verdicts; None where none of the answer's sentences is classified."""
    found = item["classification"]
    if found is None or (found and set(found) == {None}):
        return None
    return [one if one in VERDICTS else None for one in found]


def test_loads_the_images_that_are_asked_for_in_their_order(tmp_path):
    files.write(tmp_path)
    download = Download(tmp_path)
    questions = list(BENCHMARK.load(download))
    assert [one.id for one in questions] == ["521", "2", "811", "1044", "30", "2405"]
    assert questions[0].images == ("VG/VG_100K/521.jpg",)
    assert questions[1].images == ("VG/VG_100K_2/2.jpg",)
    assert questions[0].truth["facts"] == "Two men stand on the pier.\nIt is “noon”.\n"
    assert [questions[2].truth["facts"], questions[1].truth["facts"]] == ["Nobody rows.\n", ""]
    assert download.missing == []
    assert {Path(name).name for name in download.files} == {
        "val_images_final.json", "image_data.json", "region_descriptions.json",
        "shr_factual_part1.jsonl", "shr_factual_part2.jsonl",
    }  # fmt: skip


def test_regions_are_told_as_officially(tmp_path):
    files.write(tmp_path)
    for name, question in loaded(tmp_path).items():
        assert question.truth["regions"] == GOLDEN["regions"][name]
    assert GOLDEN["regions"]["2"].split("\n")[0] == "[0.01, 0.05, 0.13, 0.17]: a boat with number 2"


def test_every_image_is_asked_for_a_description(tmp_path):
    files.write(tmp_path)
    content = BENCHMARK.prompted(loaded(tmp_path)["30"]).content
    assert content == (Picture("VG/VG_100K_2/30.jpg"), "Describe this image in detail.")
    assert (BENCHMARK.decoding.strategy, BENCHMARK.decoding.beams) == ("beam", 5)


def test_an_image_that_is_not_there_is_remembered(tmp_path):
    files.write(tmp_path)
    (tmp_path / "VG/VG_100K/811.jpg").unlink()
    download = Download(tmp_path)
    list(BENCHMARK.load(download))
    assert download.missing == ["VG/VG_100K/811.jpg"]


def test_wrong_files_are_named(tmp_path):
    wanted = [{"image_id": 2}, {"image_id": 3}]
    assert "element 2: image 3 is not in image_data.json" in with_file(tmp_path / "1", "val_images_final.json", wanted)
    wanted = [{"image_id": 2}, {"image_id": "2"}]
    assert "element 2: image 2 occurs twice" in with_file(tmp_path / "2", "val_images_final.json", wanted)
    wanted = [{"image_id": "x"}]
    assert "image_id is 'x'; valid: a whole number" in with_file(tmp_path / "3", "val_images_final.json", wanted)
    lacking = with_file(tmp_path / "4", "region_descriptions.json", files.REGIONS[:3])
    assert "element 1: image 521 is not in region_descriptions.json" in lacking
    lacking = with_file(tmp_path / "5", "image_data.json", [{**files.image_data(2), "width": 0}])
    assert "element 1: the image is 0 x 600 pixels" in lacking
    assert "line 1: 811 is 'Nobody rows.'; valid: a list of texts" in with_file(
        tmp_path / "6", "shr_factual_part2.jsonl", '{"811": "Nobody rows."}\n'
    )
    assert "element 1: key 'url' is missing" in with_file(tmp_path / "7", "image_data.json", [{"image_id": 1}])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("image_id", "url", "width", "height") for value in (None, [], [1], {"a": 1}, True)),
        *((key, value) for key in ("image_id", "width", "height") for value in ("x", "\N{SUPERSCRIPT TWO}")),
        ("width", 10**400),
        ("height", float("inf")),
    ],
)
def test_image_data_of_another_type_is_refused(tmp_path, key, value):
    rows = [{**files.image_data(2), key: value}, files.image_data(521)]
    message = with_file(tmp_path, "image_data.json", rows)
    assert f"image_data.json, element 1: {key} is {value!r:.80}; valid: " in message


@pytest.mark.parametrize("value", [None, [], {"a": 1}, True, ["x"]])
@pytest.mark.parametrize("key", ["image_id", "x", "y", "width", "height", "phrase"])
def test_regions_of_another_type_are_refused(tmp_path, key, value):
    one = files.regions(521)
    one["regions"][0] = {**one["regions"][0], key: value}
    assert f"element 1: {key} is {value!r}; valid: " in with_file(tmp_path, "region_descriptions.json", [one])


@pytest.mark.parametrize("value", [None, 5, {"a": 1}, "x", [None], [5]])
def test_no_regions_at_all_are_refused(tmp_path, value):
    message = with_file(tmp_path, "region_descriptions.json", [{"id": 521, "regions": value}])
    assert "region_descriptions.json, element 1: " in message


@pytest.mark.parametrize("value", [None, [2], True, "\N{SUPERSCRIPT TWO}", 1.5])
def test_an_id_that_is_no_number_is_refused(tmp_path, value):
    message = with_file(tmp_path, "val_images_final.json", [{"image_id": value}])
    assert f"element 1: image_id is {value!r}; valid: a whole number" in message


def test_only_verdicts_are_made_by_the_judge_who_may_see_what_is_known(tmp_path):
    assert [metric.key for metric in BENCHMARK.metrics if metric.judged] == ["shr"]
    assert BENCHMARK.compared.judged
    files.write(tmp_path)
    assert set(BENCHMARK.references_in) <= loaded(tmp_path)["521"].truth.keys()


def test_an_array_that_is_broken_off_is_named(tmp_path):
    broken = '[{"image_id": 2},\n {"image_id": '
    assert "element 2: not valid JSON" in with_file(tmp_path, "val_images_final.json", broken)


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: item["id"])
def test_sentences_and_repetition_are_the_official_ones(item):
    numbered = "".join(f"{number}. {one}\n" for number, one in enumerate(sentences(item["text"]), 1))
    assert numbered == item["numbered"]
    assert [distinct(item["text"], n) for n in (1, 2, 3, 4)] == item["distinct"]


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: item["id"])
def test_verdicts_are_read_as_officially(item):
    assert read(item["text"], item["reply"]) == official(item)


def test_corpus_values_are_the_official_ones():
    scores = BENCHMARK.score([
        answered(item["id"], item["text"], read(item["text"], item["reply"])) for item in GOLDEN["items"]
    ])  # fmt: skip
    assert scores.corpus["shr"] == pytest.approx(GOLDEN["corpus"]["shr"], abs=0.0005)
    repetition = {key: value for key, value in GOLDEN["corpus"].items() if key != "shr"}
    assert {key: scores.corpus[key] for key in repetition} == pytest.approx(repetition, abs=1e-12)
    unread = sum(len(sentences(item["text"])) for item in GOLDEN["items"] if official(item) is None)
    unread += sum((official(item) or []).count(None) for item in GOLDEN["items"])
    assert scores.counts[NO_VERDICT] == unread > 20


def test_what_cannot_be_judged_is_in_the_denominator():
    one = answered("a", "A. B. C. D", ["hallucination", "cannot judge", "correct", None])
    scores = BENCHMARK.score([one, answered("b", "E is such a long text", None)])
    assert scores.corpus["shr"] == 1 / 3
    assert scores.counts == {NO_VERDICT: 2}
    item = scores.per_item["a"]
    assert (item["sentences"], item["judged"], item["hallucinated"]) == (4, 3, 1)
    assert item["prediction"] == "hallucination, cannot judge, correct, ?"
    assert (item["correct"], scores.per_item["b"]["correct"]) == (pytest.approx(2 / 3), None)


def test_short_and_empty_answers_have_no_n_grams():
    scores = BENCHMARK.score([answered("a", "", None), answered("b", "red red", ["correct"])])
    assert [scores.corpus[f"distinct_{n}"] for n in (1, 2, 3, 4)] == [0.5, 1.0, None, None]
    assert scores.unavailable == dict.fromkeys(("distinct_3", "distinct_4"), "not available: no answer is long enough")
    assert scores.counts == {"answers of less than four words": 2}


def test_repetition_needs_no_judge():
    scores = BENCHMARK.score([answered("a", "a red boat and a red car")])
    assert scores.corpus["shr"] is None
    assert scores.unavailable == {"shr": NO_JUDGE}
    assert scores.corpus["distinct_2"] == 5 / 6
    assert (scores.per_item["a"]["correct"], scores.counts) == (None, {})


def test_where_no_sentence_could_be_judged_the_reason_is_another_one():
    scores = BENCHMARK.score([answered("a", "A boat lies in the water", None)])
    assert scores.unavailable == {"shr": "not available: no sentence was judged"}
    assert scores.counts == {NO_VERDICT: 1}


def test_the_shipped_prompt_shows_all_that_the_judge_needs():
    (text,) = BENCHMARK.requests(answered("1", "A boat. Two men.\nA boat."))
    assert "[0.0]: a boat\n" in text
    assert "It floats.\n" in text
    assert "\n1. A boat\n2. Two men\n" in text
    assert "3. " not in text
    assert "Judgement:" in text


def test_an_answer_without_a_sentence_is_not_asked_about():
    assert BENCHMARK.requests(answered("1", "...")) == []
