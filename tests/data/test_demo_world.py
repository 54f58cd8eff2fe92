"""The generated world: deterministic, Karpathy-shaped, truthful where clean and wrong only where a bias says so."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.base.files import read_json, sha256_file
from cwdpo.data.demo_scenes import (
    COLOURS,
    COUNTS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    WORDS,
    Group,
    Pair,
    Single,
    Thing,
    captions,
    render,
    with_articles,
)
from cwdpo.data.demo_world import PRETRAINING_BIASES, Bias, DemoWorld, write_world

SMALL = DemoWorld(train=40, val=5, test=10, seed=3)

THING = f"({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
CANONICAL = re.compile(
    rf"an? {THING} (at|in) the ({'|'.join(PLACES)})|({'|'.join(COUNTS.values())}) {THING}s"
    rf"|an? {THING} ({'|'.join(RELATIONS)}) an? {THING}"
)


def written(world: DemoWorld, folder: Path) -> list[dict[str, Any]]:
    write_world(world, folder)
    return read_json(folder / "dataset_coco.json")["images"]


def digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_equal_worlds_give_equal_bytes_and_another_seed_gives_another_world(tmp_path: Path) -> None:
    for name, world in (("a", SMALL), ("b", SMALL), ("c", SMALL.model_copy(update={"seed": 4}))):
        write_world(world, tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not set(digests(tmp_path / "a").values()) & set(digests(tmp_path / "c").values())


def test_an_existing_folder_is_replaced(tmp_path: Path) -> None:
    write_world(SMALL, tmp_path / "world")
    records = written(SMALL.model_copy(update={"train": 4}), tmp_path / "world")
    assert len(records) == len(list((tmp_path / "world").rglob("*.jpg"))) == 19


def test_it_is_a_karpathy_file(tmp_path: Path) -> None:
    records = written(SMALL, tmp_path)
    assert read_json(tmp_path / "dataset_coco.json")["dataset"] == "coco"
    assert Counter(record["split"] for record in records) == {"train": 30, "restval": 10, "val": 5, "test": 10}
    assert [record["imgid"] for record in records] == list(range(55))
    assert len({record["cocoid"] for record in records}) == 55
    sentences = [sentence for record in records for sentence in record["sentences"]]
    assert [sentence["sentid"] for sentence in sentences] == list(range(5 * 55))
    assert [sentid for record in records for sentid in record["sentids"]] == list(range(5 * 55))
    for record in records:
        assert {sentence["imgid"] for sentence in record["sentences"]} == {record["imgid"]}
        assert all(sentence["tokens"] == sentence["raw"].split(" ") for sentence in record["sentences"])


def test_images_are_where_the_records_say_and_no_two_are_equal(tmp_path: Path) -> None:
    paths = [tmp_path / "images" / record["filepath"] / record["filename"] for record in written(SMALL, tmp_path)]
    assert len({sha256_file(path) for path in paths}) == len(paths)
    assert sorted(paths) == sorted((tmp_path / "images").rglob("*.jpg"))
    with Image.open(paths[0]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")


def test_adding_images_to_a_split_keeps_the_others(tmp_path: Path) -> None:
    few, many = (written(SMALL.model_copy(update={"train": n}), tmp_path / str(n)) for n in (4, 8))
    told = [[[sentence["raw"] for sentence in record["sentences"]] for record in records] for records in (few, many)]
    assert told[0][:4] == told[1][:4]
    assert told[0][4:] == told[1][8:]


def test_canonical_captions_are_well_formed_and_references_differ(tmp_path: Path) -> None:
    for record in written(SMALL.model_copy(update={"train": 200}), tmp_path):
        told = [sentence["raw"] for sentence in record["sentences"]]
        assert CANONICAL.fullmatch(told[0]), told[0]
        assert len(set(told)) == 5
        assert not any(re.search(r"\ba [aeiou]|\ban [^aeiou]|[^a-z ]|  ", sentence) for sentence in told)


def test_the_three_kinds_of_scene_in_words() -> None:
    red, orange = Thing("red", "circle", "large"), Thing("orange", "square", "small")
    assert Single(red, "top left").wordings()[0] == "a large red circle at the top left"
    assert Single(red, "middle").wordings()[0] == "a large red circle in the middle"
    assert Group(orange, 3).wordings()[0] == "three small orange squares"
    pair = Pair(red, orange, "to the left of").wordings()
    assert pair[0] == "a large red circle to the left of a small orange square"
    assert "a small orange square to the right of a large red circle" in pair
    assert "a large red circle and to the right of it a small orange square" in pair
    below = Pair(red, orange, "above").wordings()
    assert "a large red circle and below it a small orange square" in below


@pytest.mark.parametrize(
    "scene", [Group(Thing("blue", "square", "large"), 4), Single(Thing("red", "circle", "small"), "middle")]
)
def test_captions_start_with_the_canonical_one(scene: Group | Single) -> None:
    told = captions(scene, random.Random(0))
    assert told[0] == scene.wordings()[0]
    assert set(told) <= set(scene.wordings())


def test_the_upper_or_left_thing_comes_first() -> None:
    scene = Pair(Thing("red", "circle", "large"), Thing("blue", "circle", "large"), "above")
    image = render(scene, 64, random.Random(1))
    upper, lower = image.getpixel((32, 16)), image.getpixel((32, 48))
    assert upper[0] > upper[2]
    assert lower[2] > lower[0]


def test_things_stay_inside_the_image_and_apart() -> None:
    rng = random.Random(0)
    for kind in (Single, Group, Pair):
        for _ in range(300):
            spots = kind.draw(rng).centres(rng)
            for number, (thing, (x, y)) in enumerate(spots):
                reach = SIZES[thing.size] * 1.05
                assert reach - 0.02 < min(x, y)
                assert max(x, y) < 1.02 - reach
                for other, (u, v) in spots[:number]:
                    assert max(abs(x - u), abs(y - v)) > SIZES[thing.size] + SIZES[other.size]


def test_articles() -> None:
    assert with_articles("a orange circle above an red square") == "an orange circle above a red square"


def test_a_clean_world_and_a_biased_one_differ_only_in_the_stated_words(tmp_path: Path) -> None:
    world = SMALL.model_copy(update={"train": 300})
    clean = written(world, tmp_path / "clean")
    biased = written(world.model_copy(update={"biases": PRETRAINING_BIASES}), tmp_path / "biased")
    changes: Counter[tuple[str, str]] = Counter()
    for before, after in zip(clean, biased, strict=True):
        for old, new in zip(before["sentences"], after["sentences"], strict=True):
            pairs = zip(old["tokens"], new["tokens"], strict=True)
            changes.update((a.rstrip("s"), b.rstrip("s")) for a, b in pairs if a != b and {a, b} != {"a", "an"})
    assert set(changes) == {(bias.word, bias.written_as) for bias in PRETRAINING_BIASES}
    told = Counter(token.rstrip("s") for record in clean for s in record["sentences"] for token in s["tokens"])
    for bias in PRETRAINING_BIASES:
        assert changes[bias.word, bias.written_as] / told[bias.word] == pytest.approx(bias.share, abs=0.12)


def test_biases_do_not_chain_and_agree_within_an_image(tmp_path: Path) -> None:
    swap = (Bias(word="red", written_as="orange", share=1), Bias(word="orange", written_as="red", share=1))
    clean = written(SMALL, tmp_path / "clean")
    swapped = written(SMALL.model_copy(update={"biases": swap}), tmp_path / "swapped")
    turned = {"red": "orange", "orange": "red"}
    for before, after in zip(clean, swapped, strict=True):
        for old, new in zip(before["sentences"], after["sentences"], strict=True):
            exchanged = " ".join(turned.get(token, token) for token in old["tokens"])
            assert with_articles(exchanged) == new["raw"]


def test_a_bias_of_an_unknown_word_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"biases\.0\.word: .*'rad'; did you mean 'red'\?.*valid: above, "):
        validate(DemoWorld, {"biases": [{"word": "rad", "written_as": "blue"}]}, "world.yaml")
    assert {"red", "square", "two", "large", "above"} <= WORDS


def test_a_world_without_any_kind_of_scene_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of singles, groups and pairs"):
        validate(DemoWorld, {"singles": 0, "groups": 0, "pairs": 0}, "world.yaml")
