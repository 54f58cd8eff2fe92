"""Which samples are probed, and with which responses: a function of the records and a seed, not of their order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError, DataError, StoreError
from cwdpo.base.files import write_jsonl
from cwdpo.data.records import Record, Rejected
from cwdpo.dynamics.probe_set import chosen_samples, shuffled
from cwdpo.dynamics.rows import GRADES, KINDS
from cwdpo.dynamics.samples import NAME, ProbeSample, load_probe_set
from cwdpo.dynamics.settings import Probe, ProbeSet

CAPTIONS = 3
OWN = {"source": "dataset", "count": 1}
"""The first rejected response that comes with a record."""
GIVEN = {"source": "graded", "of": {"hard": OWN, "medium": {**OWN, "count": 2}}}
"""Hard and medium negatives are those of the records, easy ones captions of other images."""


def record(image: int, caption: int = 0, split: Any = "val", **changes: Any) -> Record:
    """One of several captions of an image, with two rejected responses."""
    name = f"{image}#{caption}"
    texts = [f"caption {number} of image {image}" for number in range(CAPTIONS)]
    rejected = tuple(Rejected(f"{grade} negative of {name}", "human") for grade in ("hard", "medium"))
    plain = Record(
        name, str(image), f"{image}.jpg", "What is it?", texts[caption], tuple(texts), rejected, split, "none"
    )
    return replace(plain, **changes)


def crowd(images: int, split: Any = "val") -> list[Record]:
    return [record(image, caption, split) for image in range(images) for caption in range(CAPTIONS)]


def asked(samples: int = 8, **changes: Any) -> ProbeSet:
    return validate(ProbeSet, {"samples": samples, "negatives": GIVEN, **changes}, "probe")


def drawn(records: Sequence[Record], **changes: Any) -> list[ProbeSample]:
    return chosen_samples(records, asked(**changes))


def images(samples: Sequence[ProbeSample]) -> list[str]:
    return [sample.image_id for sample in samples]


# ---------------------------------------------------------------------------------------------------------------------
# The draw


@pytest.mark.parametrize("order", range(5))
def test_another_order_of_the_records_draws_the_same_samples(order: int) -> None:
    """Also where the captions of an image change places."""
    records = crowd(20)
    mixed = random.Random(order).sample(records, len(records))
    assert mixed != records
    assert drawn(mixed) == drawn(records)


def test_one_sample_an_image() -> None:
    found = images(drawn(crowd(20), samples=20))
    assert len(found) == 20
    assert set(Counter(found).values()) == {1}


def test_more_samples_are_the_same_ones_and_more() -> None:
    few, many = (images(drawn(crowd(40), samples=count)) for count in (4, 12))
    assert many[:4] == few


def test_another_seed_draws_other_images_and_other_shuffles() -> None:
    records = crowd(40)
    one, other = (drawn(records, seed=seed) for seed in (0, 1))
    assert set(images(one)) != set(images(other))
    one, other = (
        {each.id: each.responses["shuffled"] for each in drawn(records, samples=40, seed=seed)} for seed in (0, 1)
    )
    assert one.keys() == other.keys()
    assert one != other


def test_every_image_is_drawn_about_as_often_as_any_other() -> None:
    """Over 400 seeds, 5 of 20 images each time: 100 times, five standard deviations are 43."""
    records = crowd(20)
    counts = Counter(image for seed in range(400) for image in images(drawn(records, samples=5, seed=seed)))
    assert sum(counts.values()) == 2000
    assert all(abs(counts[str(image)] - 100) < 43 for image in range(20))


def test_only_the_split_that_is_asked_for_is_drawn_from() -> None:
    records = [*crowd(10), *(replace(one, image_id=f"t{one.image_id}", split="test") for one in crowd(10))]
    assert {name[0] for name in images(drawn(records, samples=10, split="test"))} == {"t"}
    assert "t" not in {name[0] for name in images(drawn(records, samples=10))}
    assert drawn(records[:30], samples=10) == drawn(records, samples=10), "nor are negatives from elsewhere"


def test_where_there_are_fewer_than_asked_for_all_are_drawn() -> None:
    assert sorted(images(drawn(crowd(5), samples=8))) == list("01234")


def test_records_without_a_negative_of_every_grade_are_passed_over() -> None:
    """The images 0 to 9 have no medium one; others take their places."""
    records = [record(image, rejected=record(image).rejected[: 1 if image < 10 else 2]) for image in range(20)]
    found = list(map(int, images(drawn(records, samples=20))))
    assert sorted(found) == list(range(10, 20))
    assert list(map(int, images(drawn(records, samples=4)))) == found[:4]


@pytest.mark.parametrize(
    "records",
    [[], crowd(3, split="test"), [record(image, rejected=()) for image in range(3)], [record(0)]],
    ids=["no records", "another split", "no negatives", "no other image"],
)
def test_where_nothing_can_be_drawn_the_error_names_what_else_there_is(records: list[Record]) -> None:
    with pytest.raises(DataError, match=r"none of \d records of split 'val'.*every grade.*val, train, test.*negatives"):
        drawn(records)


# ---------------------------------------------------------------------------------------------------------------------
# The responses


def test_responses_of_a_sample_by_hand() -> None:
    found = {sample.image_id: sample for sample in drawn([record(0), record(1)])}
    sample = found["0"]
    assert (sample.id, sample.image, sample.prompt) == ("0#0", "0.jpg", "What is it?")
    assert list(sample.responses) == ["chosen", "hard", "medium", "easy", "shuffled", "other"]
    words = sample.responses["shuffled"].split()
    assert sorted(words) == ["0", "0", "caption", "image", "of"]
    assert {kind: text for kind, text in sample.responses.items() if kind != "shuffled"} == {
        "chosen": "caption 0 of image 0",
        "hard": "hard negative of 0#0",
        "medium": "medium negative of 0#0",
        "easy": "caption 0 of image 1",
        "other": "caption 0 of image 1",
    }


def test_as_training_knows_it_the_true_answer_is_chosen_and_all_else_is_rejected() -> None:
    sample = drawn(crowd(5))[0]
    assert [sample.sample.chosen, *sample.sample.rejected] == list(sample.responses.values())
    assert sample.sample.chosen == sample.responses["chosen"]


def test_no_response_but_the_true_one_is_true() -> None:
    """Of any sample: neither negatives nor controls are a caption of its image, and negatives differ."""
    records = crowd(30)
    true = {one.image_id: one.references for one in records}
    for sample in drawn(records, samples=30):
        others = [text for kind, text in sample.responses.items() if kind != "chosen"]
        assert not set(others) & set(true[sample.image_id])
        assert len({sample.responses[grade] for grade in GRADES}) == 3


def test_the_answer_of_another_image_is_left_out_where_it_is_true_here_too() -> None:
    """Image 1 has a reference that is the caption of image 0 and the other way round; image 2 is like none."""
    alike = [record(image, chosen=f"a {image}", references=("a 0", "a 1")) for image in (0, 1)]
    for seed in range(10):
        found = drawn([*alike, record(2)], seed=seed)
        assert len(found) == 3
        for sample, before in zip(found, [found[-1], *found[:-1]], strict=True):
            both_alike = {sample.image_id, before.image_id} == {"0", "1"}
            assert sample.responses.get("other") == (None if both_alike else before.responses["chosen"])


def test_an_answer_of_one_word_cannot_be_shuffled() -> None:
    found = drawn([record(image, chosen=f"word{image}", references=(f"word{image}",)) for image in range(3)])
    assert [list(sample.responses) for sample in found] == [["chosen", "hard", "medium", "easy", "other"]] * 3


def test_by_default_no_negative_needs_a_policy() -> None:
    captions = ["A red ball on a table.", "Two small dogs in a blue car.", "Three cups under a green bed."]
    records = [record(image, chosen=text, references=(text,), rejected=()) for image, text in enumerate(captions)]
    for sample in chosen_samples(records, ProbeSet()):
        assert list(sample.responses) == ["chosen", "hard", "medium", "easy", "shuffled", "other"]


TEXT = st.lists(st.sampled_from(["a", "b", "red", "ä"]), max_size=5).map(" ".join)


@settings(derandomize=True, database=None, deadline=None)
@given(text=TEXT, seed=st.integers(0, 2**63 - 1))
@example(text="a a a a a a a a a a a a a a a b", seed=0)
def test_a_shuffle_has_the_same_words_in_another_order_where_there_is_one(text: str, seed: int) -> None:
    found = shuffled(text, seed)
    assert sorted(found.split()) == sorted(text.split())
    assert found == shuffled(text, seed)
    assert (found == text) == (len(set(text.split())) < 2)


def test_two_words_always_change_places() -> None:
    assert {shuffled("a b", seed) for seed in range(3000)} == {"b a"}


def test_every_order_of_words_is_drawn() -> None:
    assert {shuffled("a b c", seed) for seed in range(100)} == {"a c b", "b a c", "b c a", "c a b", "c b a"}


# ---------------------------------------------------------------------------------------------------------------------
# Settings and file


@pytest.mark.parametrize("kind", [ProbeSet, Probe])
@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("source", ["sample", "beam", "own_answer"])
def test_a_source_that_asks_the_policy_is_refused(kind: type[ProbeSet], grade: str, source: str) -> None:
    negatives = {"source": "graded", "of": {grade: {"source": source}}}
    with pytest.raises(ConfigError, match=rf"{grade}.*'{source}' asks the policy.*valid: perturb, dataset"):
        validate(kind, {"negatives": negatives}, "probe")


@pytest.mark.parametrize("source", ["perturb", "dataset"])
def test_a_source_that_asks_nobody_is_taken(source: str) -> None:
    found = validate(ProbeSet, {"negatives": {"source": "graded", "of": {"hard": {"source": source}}}}, "probe")
    assert found.negatives.of.hard.source == source


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    """With the answer of the base model among the kinds, in their order, whatever the order in the file."""
    samples = drawn(crowd(5))
    write_jsonl(tmp_path / NAME, (sample.as_json() for sample in samples))
    assert load_probe_set(tmp_path) == samples
    answered = [
        {**sample.as_json(), "responses": {"greedy": "a", **dict(reversed(sample.responses.items()))}}
        for sample in samples
    ]
    write_jsonl(tmp_path / NAME, answered)
    assert [list(sample.responses) for sample in load_probe_set(tmp_path)] == [list(KINDS)] * 5


@pytest.mark.parametrize("line", ['{"id": "a"}', "[]", '{"id": "a", "responses": 5}', '{"responses": {}, "size": 3}'])
def test_a_line_that_is_no_sample_is_damage_of_the_file(tmp_path: Path, line: str) -> None:
    (tmp_path / NAME).write_text(line + "\n")
    with pytest.raises(StoreError, match=NAME):
        load_probe_set(tmp_path)
