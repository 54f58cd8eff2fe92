"""OCR-VQA's dataset.json: splits, paths of the images, prompts, and errors that name the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.data.records import Record, portion_of
from cwdpo.data.sources import Ocrvqa

SHORT = "\nAnswer the question using a single word or phrase."


def cover(**changes: Any) -> dict[str, Any]:
    known = {
        "imageURL": "http://ecx.images-amazon.com/images/I/51PmXH1P3kL.jpg",
        "questions": ["Who wrote this book?", "Is this a comedy book?"],
        "answers": ["Justin Isis", "No"],
        "title": "I Wonder What Human Flesh Tastes Like",
        "split": 1,
    }
    return {key: value for key, value in (known | changes).items() if value is not None}


def source(folder: Path, **settings: Any) -> Ocrvqa:
    return Ocrvqa.model_validate({"source": "ocrvqa", "root": folder, **settings})


def read(folder: Path, content: Any, **settings: Any) -> list[Record]:
    (folder / "dataset.json").write_text(json.dumps(content))
    return source(folder, **settings).read(folder)


def test_every_question_is_a_record(tmp_path: Path) -> None:
    first, second = read(tmp_path, {"074": cover()})
    assert first == Record(
        "074#0",
        "074",
        "images/074.jpg",
        f"Who wrote this book?{SHORT}",
        "Justin Isis",
        ("Justin Isis",),
        (),
        "train",
        portion_of("074", "train", 0.75),
    )
    assert (second.id, second.prompt, second.chosen) == ("074#1", f"Is this a comedy book?{SHORT}", "No")


def test_splits_are_numbers(tmp_path: Path) -> None:
    found = read(tmp_path, {str(number): cover(split=number) for number in (1, 2, 3)})
    assert [record.split for record in found] == ["train", "train", "val", "val", "test", "test"]


def test_training_can_take_one_question_an_image_and_evaluation_keeps_all(tmp_path: Path) -> None:
    content = {"1": cover(), "3": cover(split=3)}
    assert [record.id for record in read(tmp_path, content, questions_per_image="first")] == ["1#0", "3#0", "3#1"]
    assert len(read(tmp_path, content, questions_per_image="draw")) == 4
    assert [source(tmp_path, questions_per_image=how).one_per_image for how in ("first", "draw", "all")] == [
        False,
        True,
        False,
    ]
    cut = source(tmp_path, questions_per_image="first", prompt="{question} Say it.", stage1_share=0.5)
    assert cut.for_evaluation() == source(tmp_path)


@pytest.mark.parametrize(
    ("url", "settings", "image"),
    [
        ("http://x.y/a.b/51.gif", {}, "images/1.gif"),
        ("http://x.y/51.jpg?size=large.png", {}, "images/1.jpg"),
        ("http://x.y/51.gif", {"image_suffix": ".jpg"}, "images/1.jpg"),
        (None, {"image_suffix": ".jpg", "images": "ocr_vqa/images"}, "ocr_vqa/images/1.jpg"),
    ],
)
def test_an_image_is_named_by_its_key(tmp_path: Path, url: str | None, settings: dict[str, Any], image: str) -> None:
    assert {record.image for record in read(tmp_path, {"1": cover(imageURL=url)}, **settings)} == {image}


def test_the_prompt_stands_around_the_question(tmp_path: Path) -> None:
    found = read(tmp_path, {"1": cover(questions=["What {x} is it?"], answers=["A"])}, prompt="Q: {question} A:")
    assert found[0].prompt == "Q: What {x} is it? A:"
    with pytest.raises(ConfigError, match=r"prompt: .*must hold \{question\}"):
        validate(Ocrvqa, {"source": "ocrvqa", "root": "x", "prompt": "Answer."}, "x.yaml")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([], "'2': expected an object, found list"),
        (cover(split=None), "'2': key 'split' is missing; found imageURL, questions, answers, title"),
        (cover(split=4), "'2', split: unknown split '4'; valid: 1, 2, 3"),
        (cover(questions=[]), "'2'.questions: expected a non-empty list, found []"),
        (cover(answers=["No"]), "'2': 2 questions, but 1 answers"),
        (cover(answers=["No", ""]), "'2', answers[1]: the text is empty"),
        (cover(questions=["Who?", 3]), "'2', questions[1]: expected text, found int"),
        (cover(imageURL=None), "'2': key 'imageURL' is missing"),
        (
            cover(imageURL="http://x.y/z"),
            "'2', imageURL: 'http://x.y/z' has no ending such as .jpg; say data.image_suf",
        ),
    ],
)
def test_a_broken_cover_is_named(tmp_path: Path, broken: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"1": cover(), "2": broken})
    assert str(caught.value).startswith(f"{tmp_path}/dataset.json, {message}")


def test_a_key_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image path 'images/\.\./\.\./1\.jpg' leaves the data folder"):
        read(tmp_path, {"../../1": cover()})


@pytest.mark.parametrize("content", [[], {}, "x"])
def test_another_file_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"dataset\.json: expected OCR-VQA's dataset\.json, a non-empty object"):
        read(tmp_path, content)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json: not valid JSON"):
        source(tmp_path).read(tmp_path)
