"""What holds for every benchmark of questions: its files are read, asked and scored, and nothing is silently zero."""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from cwdpo.evaluate.benchmarks import PREPARABLE, AnyQuestions
from cwdpo.evaluate.benchmarks.benchmark import QUESTIONS, Questions
from cwdpo.evaluate.items import read_items, write_items
from cwdpo.evaluate.judging.judged import NO_JUDGE, Judged
from cwdpo.evaluate.question import Answered, Question, Scores
from cwdpo.evaluate.reading.download import Download

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = {name: kind for name, kind in PREPARABLE.items() if issubclass(kind, Questions)}
OFFICIAL = sorted(KINDS.keys() - {"own"})
ANSWERS = ("", "A", "no", "The answer is B.\nOr so.", "7,000 \N{DEGREE SIGN}C")


def read(name: str, folder: Path) -> tuple[Questions, Download, list[Question]]:
    """A benchmark with the questions of its small download."""
    importlib.import_module(f"formats.{name}").write(folder / "download")
    benchmark = KINDS[name](name=name)
    assert isinstance(benchmark, Questions)
    download = Download(folder / "download", folder / "out")
    return benchmark, download, benchmark.loaded(download)


def scored(name: str, folder: Path, answers: tuple[str, ...] = ANSWERS) -> tuple[Questions, Scores]:
    """Answers of a few kinds, without a judge."""
    benchmark, _, questions = read(name, folder)
    given = [Answered(question, answers[place % len(answers)]) for place, question in enumerate(questions)]
    return benchmark, benchmark.score(given)


def test_all_are_here() -> None:
    members = get_args(get_args(AnyQuestions)[0])
    assert {get_args(kind.model_fields["name"].annotation)[0] for kind in members} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_its_files_are_read(name: str, tmp_path: Path) -> None:
    benchmark, download, questions = read(name, tmp_path)
    assert len(questions) >= 6
    assert not download.missing
    assert download.files
    home = tmp_path / ("out" if benchmark.embedded else "download")
    assert all((home / image).is_file() for question in questions for image in question.images)
    if not benchmark.embedded:
        assert {image for question in questions for image in question.images} == set(download.images)
    assert all(Question.of(json.loads(json.dumps(question.row()))) == question for question in questions)


@pytest.mark.parametrize("name", KINDS)
def test_reading_again_gives_the_same(name: str, tmp_path: Path) -> None:
    benchmark, download, questions = read(name, tmp_path)
    again = Download(download.root)
    assert list(benchmark.load(again)) == questions
    assert (again.files, again.images) == (download.files, download.images)


@pytest.mark.parametrize("name", KINDS)
def test_every_question_shows_all_of_its_images(name: str, tmp_path: Path) -> None:
    benchmark, _, questions = read(name, tmp_path)
    for question in questions:
        item = benchmark.prompted(question)
        assert Counter(item.images) == Counter(question.images)
        assert item.prompt.strip()


@pytest.mark.parametrize("name", KINDS)
def test_a_prompt_decides_nothing_about_the_questions(name: str) -> None:
    benchmark = KINDS[name](name=name)
    assert isinstance(benchmark, Questions)
    other = benchmark.model_copy(update={"prompt": "other", "limit": 3})
    assert other.for_reading() == benchmark.for_reading() == benchmark
    for field in benchmark.reads:
        assert benchmark.model_copy(update={field: "other"}).for_reading() != benchmark


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("answers", [ANSWERS, ("",)], ids=["some", "empty"])
def test_columns_are_scored_or_say_why_not(name: str, answers: tuple[str, ...], tmp_path: Path) -> None:
    benchmark, found = scored(name, tmp_path, answers)
    assert {metric.key for metric in benchmark.metrics} <= found.corpus.keys()
    for key, value in found.corpus.items():
        assert (value is None) == (key in found.unavailable), key
        assert value is None or math.isfinite(value)
    assert all(reason.startswith("not available: ") for reason in found.unavailable.values())
    assert all("prediction" in item and "correct" in item for item in found.per_item.values())
    assert all(0 <= item["correct"] <= 1 for item in found.per_item.values() if item["correct"] is not None)
    if isinstance(benchmark, Judged):
        assert NO_JUDGE in found.unavailable.values()
        assert {item["correct"] for item in found.per_item.values()} == {None}


@pytest.mark.parametrize("name", KINDS)
def test_items_survive_parquet(name: str, tmp_path: Path) -> None:
    _, found = scored(name, tmp_path)
    write_items(tmp_path, found.per_item)
    keys = {key for item in found.per_item.values() for key in item}
    expected: dict[str, Any] = {one: {key: item.get(key) for key in keys} for one, item in found.per_item.items()}
    assert read_items(tmp_path) == expected
    assert list(read_items(tmp_path)) == list(expected)


@pytest.mark.parametrize("name", KINDS)
def test_a_limit_keeps_groups_whole_and_spreads(name: str, tmp_path: Path) -> None:
    benchmark, _, questions = read(name, tmp_path)
    sizes = Counter(map(benchmark.group, questions))
    for limit in range(1, len(questions) + 1):
        chosen = benchmark.model_copy(update={"limit": limit}).chosen(questions)
        found = Counter(map(benchmark.group, chosen))
        assert chosen
        assert found.items() <= sizes.items()
        assert len(chosen) <= max(limit, max(sizes.values()))
    assert benchmark.model_copy(update={"limit": len(questions)}).chosen(questions) == questions


def many(sizes: Mapping[str, int], together: int) -> list[Question]:
    """Questions of categories, so many of each that are scored together."""
    places = [(category, place) for category, size in sizes.items() for place in range(size)]
    return [Question(f"{c}/{p // together}/{p % together}", (), {"turns": ["?"]}, {}, c) for c, p in places]


class Grouped(KINDS["own"]):  # type: ignore[misc]
    """Groups by the first two parts of an id."""

    def group(self, question: Question) -> str:
        return question.id.rpartition("/")[0]


@pytest.mark.parametrize(
    ("sizes", "together", "limit", "expected"),
    [
        ({"a": 100, "b": 100}, 1, 10, {"a": 5, "b": 5}),
        ({"a": 900, "b": 90, "c": 10}, 1, 10, {"a": 7, "b": 2, "c": 1}),  # one of each, the rest by size
        ({"a": 400, "b": 40}, 2, 20, {"a": 16, "b": 4}),
        ({"a": 8, "b": 8, "c": 8}, 4, 8, {"a": 4, "b": 4}),  # not enough for one group of each
    ],
)
def test_a_limit_takes_of_every_category(
    sizes: dict[str, int], together: int, limit: int, expected: dict[str, int]
) -> None:
    chosen = Grouped(name="own", limit=limit).chosen(many(sizes, together))
    assert Counter(question.category for question in chosen) == expected
    places = [int(question.id.split("/")[1]) for question in chosen if question.category == "a"]
    assert max(places) >= sizes["a"] / together / 2 or expected["a"] == together, "spread over the category"


def test_a_quick_check_of_mme_has_both_sums() -> None:
    """Fifty questions of fourteen tasks whose sizes differ tenfold, two of an image."""
    mme = KINDS["mme"]
    questions = [
        Question(f"{task}/{place // 2}.jpg/{place % 2 + 1}", (), {}, {"answer": "yes"}, task)
        for task, size in mme.published.items()
        for place in range(size)
    ]
    benchmark = mme(name="mme", limit=50)
    assert isinstance(benchmark, Questions)
    chosen = benchmark.chosen(questions)
    assert len(chosen) <= 50
    found = benchmark.score([Answered(question, "Yes") for question in chosen])
    assert (found.corpus["perception"], found.corpus["cognition"]) == (2000, 800)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_limit_leaves_out_is_no_zero(name: str, tmp_path: Path) -> None:
    benchmark, _, questions = read(name, tmp_path)
    limited = benchmark.model_copy(update={"limit": 1})
    found = limited.score([Answered(question, "A") for question in limited.chosen(questions)])
    assert all((value is None) == (key in found.unavailable) for key, value in found.corpus.items())


@pytest.mark.parametrize("name", OFFICIAL)
def test_its_golden_file_says_where_it_comes_from(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert golden["provenance"].keys() >= {"official", "how"}
    assert len(golden["items"]) >= 30


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_to_no_question_is_refused(name: str, tmp_path: Path) -> None:
    from cwdpo.base import files
    from cwdpo.base.errors import DataError

    benchmark, _, questions = read(name, tmp_path)
    files.write_jsonl(tmp_path / QUESTIONS, (question.row() for question in questions))
    answers = {question.id: {"text": "A"} for question in questions}
    with pytest.raises(DataError, match="1 answers to questions that there are not: nobody asked"):
        benchmark.scored({"questions": tmp_path}, {**answers, "nobody asked": {"text": "A"}})
    first = answers.pop(questions[0].id)
    assert first
    with pytest.raises(DataError, match="1 questions without an answer: "):
        benchmark.scored({"questions": tmp_path}, answers)
