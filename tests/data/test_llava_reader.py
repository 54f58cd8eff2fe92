"""LLaVA's conversations: what becomes a record, what is left out, and errors that name the entry."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.base.config import validate
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data import pairs
from cwdpo.data.llava import split_of
from cwdpo.data.records import Record, portion_of
from cwdpo.data.sources import Llava

BUS = "000000033471.jpg"


def turn(speaker: str, value: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value}


def entry(*texts: str, image: Any = BUS, **more: Any) -> dict[str, Any]:
    """Texts of human and gpt in turns."""
    turns = [turn(("human", "gpt")[place % 2], text) for place, text in enumerate(texts)]
    known = {} if image is None else {"image": image}
    return {"id": "000000033471", **known, "conversations": turns, **more}


QUESTION = ("<image>\nWhat are the colors of the bus?", "The bus is white and red.")
FOLLOWING = ("What is on its back?", "An advertisement.")


def source(folder: Path, **settings: Any) -> Llava:
    return Llava.model_validate({"source": "llava", "root": folder, **settings})


def read(folder: Path, content: Any, left_out: Counter[str] | None = None, **settings: Any) -> list[Record]:
    (folder / "llava_instruct_150k.json").write_text(json.dumps(content))
    return source(folder, **settings).read(folder, left_out)


def test_the_first_question_of_an_entry_is_a_record(tmp_path: Path) -> None:
    (found,) = read(tmp_path, [entry(*QUESTION, *FOLLOWING)], images="train2017")
    assert found == Record(
        f"{BUS}#0",
        BUS,
        f"train2017/{BUS}",
        "What are the colors of the bus?",
        "The bus is white and red.",
        ("The bus is white and red.",),
        (),
        "train",
        portion_of(BUS, "train", 0.75),
    )


def test_every_question_can_be_one(tmp_path: Path) -> None:
    found = read(tmp_path, [entry(*QUESTION, *FOLLOWING)], turns="all")
    assert [(record.id, record.prompt, record.chosen) for record in found] == [
        (f"{BUS}#0", "What are the colors of the bus?", "The bus is white and red."),
        (f"{BUS}#1", *FOLLOWING),
    ]


def test_entries_of_one_image_are_numbered_through(tmp_path: Path) -> None:
    """LLaVA-Instruct has three kinds of entries for an image, all under its id."""
    found = read(tmp_path, [entry(*QUESTION), entry(*QUESTION, image="2.jpg"), entry(*FOLLOWING)], turns="all")
    assert [record.id for record in found] == [f"{BUS}#0", "2.jpg#0", f"{BUS}#1"]
    assert found[0].portion == found[2].portion


@pytest.mark.parametrize(
    ("question", "prompt"),
    [
        ("What is it?\n<image>", "What is it?"),
        ("<image>\nWhich one?\nA.  a cat\nB. a dog\n\nAnswer with the letter.", None),
        ("<image>", "Describe it."),
        (" <image> \n ", "Describe it."),
    ],
)
def test_the_mark_of_the_image_is_no_part_of_the_question(tmp_path: Path, question: str, prompt: str | None) -> None:
    (found,) = read(tmp_path, [entry(question, "A cat.")], prompt="Describe it.")
    assert found.prompt == (prompt or "Which one?\nA. a cat\nB. a dog\nAnswer with the letter.")


def test_what_has_no_image_or_several_is_left_out_and_counted(tmp_path: Path) -> None:
    left_out: Counter[str] = Counter()
    content = [
        entry("Who was Plato?", "A philosopher.", image=None),
        entry(*QUESTION),
        entry(*QUESTION, image=[]),
        entry(*QUESTION, image=["1.jpg", "2.jpg"]),
        entry("<image>\n<image>\nWhat differs?", "All."),
        entry(*QUESTION, image=["3.jpg"]),
    ]
    assert [record.image for record in read(tmp_path, content, left_out)] == [BUS, "3.jpg"]
    assert left_out == {"entries without an image": 2, "entries with several images": 2}


def test_the_records_summary_says_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing: Any = lambda *_, **__: None  # noqa: E731
    content = [entry("Who was Plato?", "A philosopher.", image=None)]
    content += [entry(*QUESTION, image=f"{number}.jpg") for number in range(20)]
    (tmp_path / "llava_instruct_150k.json").write_text(json.dumps(content))
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    out = tmp_path / "out"
    spec = pairs.PairsSpec(data=source(tmp_path, check_images="exists"))
    pairs.run(StageContext(spec, {"data": tmp_path}, out, out, out, Rank(), Execution(), nothing, nothing))
    summary = files.read_json(out / "summary.json")
    assert (summary["left_out"], summary["images"]) == ({"entries without an image": 1}, 20)
    assert capsys.readouterr().err == "left out: 1 entries without an image\n"


def test_images_can_be_held_out_by_their_path(tmp_path: Path) -> None:
    content = [entry(*QUESTION, *FOLLOWING, image=f"{number}.jpg") for number in range(2000)]
    found = read(tmp_path, content, turns="all", val_share=0.1, test_share=0.2)
    counts = Counter(record.split for record in found)
    assert counts["val"] == pytest.approx(200, abs=60)  # one record an image: the first turn
    assert counts["test"] == pytest.approx(400, abs=80)
    assert counts["train"] == 2 * (2000 - counts["val"] - counts["test"])
    assert {record.portion for record in found if record.split != "train"} == {"none"}
    kept = {record.portion for record in found if record.split == "train"}
    assert kept == {"stage1", "stage2"}


def test_a_larger_share_keeps_what_was_held_out_and_stages_keep_their_shares() -> None:
    names = [f"{number}.jpg" for number in range(4000)]
    small, large = ({name for name in names if split_of(name, 0.0, share) == "test"} for share in (0.1, 0.3))
    assert small < large
    stages = Counter(portion_of(name, "train", 0.75) for name in names if name not in large)
    assert stages["stage1"] / stages.total() == pytest.approx(0.75, abs=0.03)


def test_data_without_a_held_out_split_is_refused_where_it_is_evaluated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no val or test split to evaluate on; .* test_share: 0\.01"):
        source(tmp_path).for_evaluation()
    held = source(tmp_path, test_share=0.25, turns="all", prompt="Hm?", stage1_share=0.5)
    assert held.for_evaluation() == source(tmp_path, test_share=0.25)
    with pytest.raises(ConfigError, match=r"val_share 0\.5 and test_share 0\.5 leave nothing to train on"):
        validate(Llava, {"source": "llava", "root": "x", "val_share": 0.5, "test_share": 0.5}, "x.yaml")


def test_an_epoch_takes_every_record(tmp_path: Path) -> None:
    assert not source(tmp_path, turns="all").one_per_image


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("x", r"[1]: expected an object, found str"),
        ({"image": BUS}, r"[1]: key 'conversations' is missing; found image"),
        (entry(image=BUS), r"[1].conversations: expected a non-empty list, found []"),
        (entry("Q", "A", "Q"), r"[1].conversations: the last question has no answer (3 turns)"),
        (
            entry() | {"conversations": [turn("gpt", "A"), turn("human", "Q")]},
            r"[1].conversations[0].from: expected 'human', found 'gpt'; questions and answers take turns",
        ),
        (
            entry() | {"conversations": [turn("human", "Q"), turn("bing", "A")]},
            r"[1].conversations[1].from: expected 'gpt', found 'bing'; questions and answers take turns",
        ),
        (entry() | {"conversations": [{"from": "human"}, 1]}, "[0]: key 'value' is missing; found from"),
        (entry("Q", 5), r"[1].conversations[1].value: expected text, found int"),  # type: ignore[arg-type]
        (entry("Q", " \n"), r"[1].conversations[1].value: the text is empty"),
        (entry("Q", "\ud800"), r"[1].conversations[1].value: the text holds half of a character"),
        (entry("Q \ud800", "A"), r"[1].conversations[0].value: the text holds half of a character"),
        (entry("Q", "A", image="../1.jpg"), r"[1].image: image path '../1.jpg' leaves the data folder"),
        (entry("Q", "A", image=7), r"[1].image: expected text, found int"),
    ],
)
def test_a_broken_entry_is_named(tmp_path: Path, broken: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [entry(*QUESTION), broken], turns="all")
    assert str(caught.value).startswith(f"{tmp_path}/llava_instruct_150k.json[1]")
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [{}, [], "x"])
def test_another_file_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"llava_instruct_150k\.json: expected LLaVA conversations, a non-empty list"):
        read(tmp_path, content)
