"""Where rejected responses come from, and the stage that keeps only those that are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.base.config import validate
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.records import Record, Rejected, SentenceScore, write_records
from cwdpo.data.samples import load_samples
from cwdpo.negatives import makers, stage
from cwdpo.negatives.dataset import Dataset
from cwdpo.negatives.rule import Perturb
from cwdpo.negatives.source import Source
from cwdpo.negatives.stage import NegativesSpec
from cwdpo.objectives.supply import SUPPLIES
from cwdpo.train.settings import Stage2, lacking

BALL = "A red ball on a table."


def record(
    name: str, chosen: str = BALL, references: Iterable[str] = (), rejected: Iterable[str] = (), portion: Any = "stage1"
) -> Record:
    """`name` is image and caption number, as in `3#0`."""
    image = name.partition("#")[0]
    wrong = tuple(Rejected(text, "llm", "hard") for text in rejected)
    return Record(name, image, f"{image}.jpg", "?", chosen, (chosen, *references), wrong, "train", portion)


def rejected(source: Source, records: list[Record]) -> list[tuple[Rejected, ...]]:
    """What a source that needs nothing first makes for each record."""
    assert not source.parts()
    return [offer.rejected for offer in source.offers(records, {})]


def texts(made: Iterable[tuple[Rejected, ...]]) -> list[list[str]]:
    return [[item.text for item in items] for items in made]


# ---- dataset


def test_the_datas_own_rejected_responses_come_first() -> None:
    records = [record("1#0", rejected=["One.", "Two.", "Three."]), record("2#0", "A cat.")]
    first, second = rejected(Dataset(source="dataset"), records)
    assert first == records[0].rejected  # with their source and grade
    assert [(item.text, item.source, item.grade) for item in second] == [(BALL, "other image", None)]


@pytest.mark.parametrize(("count", "expected"), [(1, ["One."]), (2, ["One.", "Two."]), (9, ["One.", "Two.", "Three."])])
def test_count_cuts_what_the_data_has(count: int, expected: list[str]) -> None:
    records = [record("1#0", rejected=["One.", "Two.", "Three."])]
    assert texts(rejected(Dataset(source="dataset", count=count), records)) == [expected]


def crowd() -> list[Record]:
    """Thirty images with two captions each, every caption once."""
    captions = [(f"{image}#{number}", f"Thing {image} {number}.") for image in range(30) for number in range(2)]
    return [record(name, text, [f"Thing {name[:-2]} {n}." for n in range(2)]) for name, text in captions]


def test_a_drawn_caption_is_anothers_images_and_no_reference() -> None:
    records = crowd()
    owner = {item.chosen: item.image_id for item in records}
    for one, items in zip(records, rejected(Dataset(source="dataset", count=3), records), strict=True):
        drawn = [item.text for item in items]
        assert len(set(drawn)) == len(drawn) == 3
        assert not set(drawn) & set(one.references)
        assert one.image_id not in {owner[text] for text in drawn}


def test_the_caption_of_another_image_that_says_the_same_is_no_negative() -> None:
    same = [record("1#0", BALL, ["A ball."]), record("2#0", BALL), record("3#0", "A ball."), record("4#0", "A cat.")]
    assert texts(rejected(Dataset(source="dataset", count=5), same))[0] == ["A cat."]


def test_where_every_caption_is_equal_there_is_none() -> None:
    assert texts(rejected(Dataset(source="dataset"), [record("1#0"), record("2#0")])) == [[], []]
    assert texts(rejected(Dataset(source="dataset"), [record("1#0"), record("1#1", "A cat.")])) == [[], []]


def test_the_answer_to_another_question_is_none_to_this_one() -> None:
    """Two images are asked for the title; nobody else is asked about romance, and of 5 the other is the same image."""
    asked = [("1#0", "Romance?", "No"), ("2#0", "Title?", "Naked Lunch"), ("3#0", "Title?", "Emma")]
    asked += [("5#0", "Author?", "Woolf"), ("5#1", "Author?", "V. Woolf")]
    records = [replace(record(name, answer), prompt=prompt) for name, prompt, answer in asked]
    assert texts(rejected(Dataset(source="dataset"), records)) == [[], ["Emma"], ["Naked Lunch"], [], []]


def test_drawn_captions_are_the_same_from_release_to_release() -> None:
    """As drawn before questions were told apart: artefacts with these captions stay what they are."""
    records = crowd()
    found = texts(rejected(Dataset(source="dataset", count=2, seed=3), records))
    assert found[:3] == [["Thing 5 0.", "Thing 9 1."], ["Thing 14 0.", "Thing 3 0."], ["Thing 12 1.", "Thing 9 0."]]


def test_prompts_are_not_gone_through_where_the_data_has_its_own() -> None:
    class Counting(list[Record]):
        passes = 0

        def __iter__(self) -> Iterator[Record]:
            self.passes += 1
            return super().__iter__()

    records = Counting([record(f"{number}#0", rejected=["One."]) for number in range(3)])
    rejected(Dataset(source="dataset"), records)
    assert records.passes == 1
    rejected(Dataset(source="dataset", own=False), records)
    assert records.passes == 3


def test_drawn_captions_follow_the_seed_and_differ_between_records() -> None:
    records = crowd()
    one, again, other = (texts(rejected(Dataset(source="dataset", seed=seed), records)) for seed in (1, 1, 2))
    assert one == again != other
    assert len({found[0] for found in one}) > 20
    assert all(len(found) == 1 for found in one)


# ---- perturb


def test_edits_are_minimal_and_say_what_they_changed() -> None:
    (items,) = rejected(Perturb(source="perturb", count=4), [record("1#0")])
    assert len({item.text for item in items}) == 4
    for item in items:
        assert item.text != BALL
        assert item.source.startswith("perturb:")
        assert item.grade is None


@pytest.mark.parametrize("kind", ["colour", "object", "relation", "count"])
def test_kinds_limit_what_is_swapped(kind: Any) -> None:
    (items,) = rejected(Perturb(source="perturb", count=50, kinds=(kind,)), [record("1#0")])
    assert {item.source for item in items} == {f"perturb:{kind}"}


def test_a_caption_without_a_known_word_gets_no_edit_and_keeps_its_place() -> None:
    made = texts(rejected(Perturb(source="perturb"), [record("1#0", "Lorem ipsum."), record("2#0")]))
    assert made[0] == []
    assert len(made[1]) == 1


def test_edits_follow_the_seed_and_the_record() -> None:
    records = [record(f"{number}#0") for number in range(20)]
    one, again, other = (texts(rejected(Perturb(source="perturb", seed=seed), records)) for seed in (1, 1, 2))
    assert one == again != other
    assert len({found[0] for found in one}) > 3  # equal captions of different records are edited differently
    assert texts(rejected(Perturb(source="perturb", seed=1), records[5:6])) == one[5:6]  # whatever else is there


def test_other_references_are_edited_and_are_the_revised_answer() -> None:
    references = ["A green cup on a bed.", "Two dogs in a car.", BALL]
    records = [record(f"{number}#0", references=references) for number in range(40)]
    made = [item for (item,) in rejected(Perturb(source="perturb", of="reference"), records)]
    assert {item.revised for item in made} == {"A green cup on a bed.", "Two dogs in a car."}
    for item in made:
        assert item.revised is not None
        assert item.text not in (item.revised, BALL)
        common = set(item.text.lower().split()) & set(item.revised.lower().split())
        assert len(common) >= len(item.revised.split()) - 2, "an edit of that reference"


def test_a_single_reference_gives_nothing_to_edit_beside_the_chosen() -> None:
    records = [record("1#0"), record("2#0", references=[BALL, BALL]), record("3#0", references=["Lorem ipsum."])]
    assert texts(rejected(Perturb(source="perturb", of="reference"), records)) == [[], [], []]


def test_where_one_reference_has_too_few_edits_the_next_one_is_edited() -> None:
    one = record("1#0", references=["Lorem ipsum.", "A dog sees three cups."])
    (items,) = rejected(Perturb(source="perturb", of="reference", kinds=("count",), count=9), [one])
    assert {item.revised for item in items} == {"A dog sees three cups."}
    both = record("1#0", references=["There are four cups.", "A dog sees three cups."])
    (items,) = rejected(Perturb(source="perturb", of="reference", kinds=("count",), count=50), [both])
    assert {item.revised for item in items} == {"There are four cups.", "A dog sees three cups."}


def test_the_drawn_reference_follows_the_seed_and_the_record() -> None:
    references = [f"A red ball near {number} cups." for number in range(2, 7)]
    records = [record(f"{number}#0", references=references) for number in range(20)]
    one, again, other = (
        [item.revised for (item,) in rejected(Perturb(source="perturb", of="reference", seed=seed), records)]
        for seed in (1, 1, 2)
    )
    assert one == again != other
    assert len(set(one)) > 2


def test_edits_of_the_chosen_caption_come_with_nothing() -> None:
    (items,) = rejected(Perturb(source="perturb", count=3), [record("1#0", references=["A green cup on a bed."])])
    assert [item.supplies for item in items] == [frozenset()] * 3


# ---- what sources provide


@pytest.mark.parametrize(
    ("negatives", "expected"),
    [
        ({"source": "dataset"}, {"revised"}),
        ({"source": "perturb"}, set()),
        ({"source": "perturb", "of": "reference"}, {"revised"}),
        ({"source": "corrective", "of": {"source": "perturb"}}, {"dialogue"}),
        ({"source": "corrective", "of": {"source": "perturb", "of": "reference"}}, {"revised", "dialogue"}),
        ({"source": "corrective", "of": {"source": "dataset"}}, {"revised", "dialogue"}),
    ],
)
def test_what_a_source_provides_is_known_from_its_settings(negatives: Any, expected: set[str]) -> None:
    spec = validate(NegativesSpec, {"negatives": negatives, "portion": "stage1"}, "x")
    assert spec.negatives.provides(frozenset({"revised"})) == expected


def test_every_supply_has_sources_that_make_it() -> None:
    assert makers("revised") == ["dataset where the data has them", "perturb with of: reference", "revised"]
    assert makers("dialogue") == ["dataset where the data has them", "corrective"]
    assert all(makers(supply) for supply in SUPPLIES)


def test_whose_need_a_source_does_not_meet_is_named_with_its_phase() -> None:
    content = {"objective": {"name": "opa_dpo"}, "negatives": {"source": "perturb"}}
    need = f"needs {SUPPLIES['revised']}; negatives 'perturb', as set here, make none"
    for phase, who in (({}, "'opa_dpo'"), ({"sft_phase": {}}, "'sft_revised' of stage2.sft_phase")):
        found = lacking(validate(Stage2, {**content, **phase}, "x"), frozenset())
        assert str(found).startswith(f"objective {who} {need}; ")


def test_wrong_settings_are_refused() -> None:
    for model, content, message in (
        (Dataset, {"source": "dataset", "count": 0}, r"count: Input should be greater than 0; found 0"),
        (Perturb, {"source": "perturb", "count": 0}, r"count: Input should be greater than 0; found 0"),
        (Perturb, {"source": "perturb", "kinds": ["size", "shape"]}, r"kinds\.1: Input should be 'colour', .*'shape'"),
        (Perturb, {"source": "perturb", "kinds": []}, r"x: kinds: .* should have at least 1 item .*; found \[\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(model, content, "x")  # type: ignore[type-var]


# ---- the stage


def run(
    folder: Path, records: list[Record], negatives: Any, portion: Any = "stage1", **settings: Any
) -> tuple[list[Any], Any]:
    """Rows and summary, as the stage writes them to `folder/out`."""
    (folder / "out").mkdir(parents=True)
    write_records(folder / "records.jsonl", records)
    spec = validate(NegativesSpec, {"negatives": negatives, "portion": portion, **settings}, "x")
    nothing = lambda *_, **__: None  # noqa: E731
    out = folder / "out"
    stage.run(StageContext(spec, {"pairs": folder}, out, out, out, Rank(), Execution(), nothing, nothing))
    return list(files.read_jsonl(out / "negatives.jsonl")), files.read_json(out / "summary.json")


def test_the_stage_writes_one_row_per_record_of_its_portion(tmp_path: Path) -> None:
    records = [
        record("1#0", rejected=["Wrong."]),
        record("2#0", "A cat.", portion="stage2"),
        record("3#0", "A dog.", portion="none"),
        record("4#0", rejected=["False.", "Wrong."]),
    ]
    rows, summary = run(tmp_path, records, {"source": "dataset"})
    item, asked = {"source": "llm", "grade": "hard"}, {"prompt": "?", "chosen": BALL}
    assert rows == [
        {"id": "1#0", "image": "1.jpg", **asked, "rejected": [{"text": "Wrong.", **item}]},
        {"id": "4#0", "image": "4.jpg", **asked, "rejected": [{"text": "False.", **item}, {"text": "Wrong.", **item}]},
    ]
    assert summary.pop("statistics")
    assert summary == {
        "records": 2,
        "without": 0,
        "negatives": 3,
        "equal_to_truth": 0,
        "repeated": 0,
        "empty": 0,
        "sources": {"llm": 3},
    }
    samples = load_samples(tmp_path, tmp_path / "out", "stage1")
    assert [sample.rejected for sample in samples] == [("Wrong.",), ("False.", "Wrong.")]


def test_captions_are_drawn_within_the_portion(tmp_path: Path) -> None:
    """Stage 2's images stay unseen in Stage 1, even as negatives."""
    unseen = [record(f"{number}#0", f"Thing {number}.", portion="stage2") for number in range(9, 30)]
    records = [record("1#0"), record("2#0", "A cat."), *unseen]
    rows, _ = run(tmp_path, records, {"source": "dataset", "count": 5})
    assert [[item["text"] for item in row["rejected"]] for row in rows] == [["A cat."], [BALL]]


def test_what_is_true_or_repeated_is_dropped_and_counted_apart(tmp_path: Path) -> None:
    truth = record("1#0", BALL, ["A ball."], rejected=["A ball.", "Wrong.", "Wrong.", "False."])
    untold = record("2#0", BALL, rejected=[BALL])
    rows, summary = run(tmp_path, [truth, untold], {"source": "dataset"})
    assert [[item["text"] for item in row["rejected"]] for row in rows] == [["Wrong.", "False."], []]
    assert (summary["negatives"], summary["without"]) == (2, 1)
    assert (summary["equal_to_truth"], summary["repeated"]) == (2, 1)


def test_sources_are_counted(tmp_path: Path) -> None:
    rows, summary = run(tmp_path, [record(f"{n}#0") for n in range(40)], {"source": "perturb", "count": 2})
    assert summary["negatives"] == sum(len(row["rejected"]) for row in rows) == sum(summary["sources"].values()) == 80
    assert set(summary["sources"]) <= {"perturb:colour", "perturb:object", "perturb:relation", "perturb:count"}
    assert len(summary["sources"]) > 1


def test_a_source_that_finds_nothing_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^negatives 'perturb' found nothing for any of 2 records$"):
        run(tmp_path, [record("1#0", "Lorem."), record("2#0", "Ipsum.")], {"source": "perturb"})
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(DataError, match=r"^negatives 'dataset' found nothing for any of 0 records$"):
        run(tmp_path / "empty", [record("1#0")], {"source": "dataset"}, portion="stage2")


def supplied(name: str, **rejected: str | None) -> Record:
    """A record with a rejected response for each keyword, whose value is its revised answer."""
    wrong = tuple(Rejected(text, "llm", revised=revised) for text, revised in rejected.items())
    return Record(name, name[:-2], "1.jpg", "?", BALL, (BALL,), wrong, "train", "stage1")


def test_what_a_rejected_response_comes_with_is_written(tmp_path: Path) -> None:
    dialogue, scores = (("Is it?", "No."),), (SentenceScore(2, True),)
    item = Rejected("Wrong.", "llm", "hard", "Right.", dialogue, scores)
    one = Record("1#0", "1", "1.jpg", "?", BALL, (BALL,), (item, Rejected("x", "llm")), "train", "stage1")
    ((row,), _) = run(tmp_path, [one], {"source": "dataset"})
    assert row["rejected"] == [
        {
            "text": "Wrong.",
            "source": "llm",
            "grade": "hard",
            "revised": "Right.",
            "dialogue": [["Is it?", "No."]],
            "scores": [{"score": 2, "image_error": True}],
        },
        {"text": "x", "source": "llm", "grade": None},
    ]


def test_what_lacks_something_required_is_dropped_and_counted(tmp_path: Path) -> None:
    records = [supplied("1#0", Wrong="Right.", False_=None), supplied("2#0", Wrong=None), supplied("3#0", No="Yes.")]
    rows, summary = run(tmp_path, records, {"source": "dataset"}, requires=["revised"])
    assert [[item["text"] for item in row["rejected"]] for row in rows] == [["Wrong"], [], ["No"]]
    assert (summary["negatives"], summary["without"], summary["lacking"]) == (2, 1, 2)
    samples = load_samples(tmp_path, tmp_path / "out", "stage1", paired=True)
    assert [sample.revised for sample in samples] == [("Right.",), ("Yes.",)]


def test_one_that_lacks_nothing_is_kept_beside_its_twin_that_does(tmp_path: Path) -> None:
    twins = (Rejected("Wrong.", "llm"), Rejected("Wrong.", "llm", revised="Right."))
    one = Record("1#0", "1", "1.jpg", "?", BALL, (BALL,), twins, "train", "stage1")
    ((row,), summary) = run(tmp_path, [one], {"source": "dataset"}, requires=["revised"])
    assert [item["revised"] for item in row["rejected"]] == ["Right."]
    assert (summary["lacking"], summary["repeated"]) == (1, 0)


def test_lacking_is_only_counted_where_something_is_required(tmp_path: Path) -> None:
    records = [supplied("1#0", Wrong="Right.")]
    assert "lacking" not in run(tmp_path / "a", records, {"source": "dataset"})[1]
    assert run(tmp_path / "b", records, {"source": "dataset"}, requires=["revised"])[1]["lacking"] == 0


def test_where_all_lack_what_is_required_the_sources_that_make_it_are_named(tmp_path: Path) -> None:
    records = [supplied("1#0", Wrong="Right.", False_=None)]
    with pytest.raises(DataError) as caught:
        run(tmp_path, records, {"source": "dataset"}, requires=["revised", "dialogue"])
    assert str(caught.value) == (
        "negatives 'dataset' found nothing for any of 1 records; "
        "2 rejected responses were left out, for training needs "
        f"{SUPPLIES['revised']} (from dataset where the data has them, perturb with of: reference, revised) and "
        f"{SUPPLIES['dialogue']} (from dataset where the data has them, corrective)"
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_requirement_is_part_of_the_identity_and_none_is_not() -> None:
    def canonical(**settings: Any) -> dict[str, Any]:
        content = {"negatives": {"source": "perturb"}, "portion": "stage1", **settings}
        return validate(NegativesSpec, content, "x").canonical()

    plain = {"negatives": {"source": "perturb", "count": 1, "seed": 0}, "portion": "stage1"}
    assert canonical() == canonical(requires=[]) == plain
    assert canonical(requires=["revised"]) == {**plain, "requires": ["revised"]}
    with pytest.raises(ConfigError, match=r"requires\.0: Input should be 'revised' or 'dialogue'; found 'dialog'"):
        canonical(requires=["dialog"])


def test_the_stage_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, [record(f"{n}#0") for n in range(9)], {"source": "perturb", "count": 2})
    first, second = ((tmp_path / name / "out" / "negatives.jsonl").read_bytes() for name in ("a", "b"))
    assert first == second
