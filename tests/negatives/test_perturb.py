"""Hand-written expectations for the rule-based rejected captions."""

from __future__ import annotations

import re

import pytest

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.negatives.lexicon import Lexicon, article, index, lexicon
from cwdpo.negatives.perturb import edits, perturb, perturb_many

# caption, kind, an edit that must be among its edits
EXPECTED = [
    # Shape worlds.
    ("A red circle above a blue square.", "colour", "A green circle above a blue square."),
    ("A red circle above a blue square.", "colour", "An orange circle above a blue square."),
    ("A red circle above a blue square.", "object", "A red triangle above a blue square."),
    ("A red circle above a blue square.", "object", "A red circle above a blue hexagon."),
    ("A red circle above a blue square.", "relation", "A red circle below a blue square."),
    ("A red circle above a blue square.", "count", "Two red circles above a blue square."),
    ("A red circle above a blue square.", "count", "A red circle above three blue squares."),
    ("an orange heart", "colour", "a purple heart"),
    ("an orange heart", "object", "an orange crescent"),
    ("a star", "object", "an oval"),
    ("one square", "count", "two squares"),
    ("Two red circles", "count", "One red circle"),
    ("Two red crosses", "object", "Two red pentagons"),
    ("Five hexagons.", "object", "Five crosses."),
    ("Five hexagons.", "count", "Four hexagons."),
    ("The small green ring is to the left of the star.", "size", "The large green ring is to the left of the star."),
    (
        "The small green ring is to the left of the star.",
        "relation",
        "The small green ring is to the right of the star.",
    ),
    ("There is a purple ring below a diamond.", "count", "There are two purple rings below a diamond."),
    ("A circle is left of a square", "relation", "A circle is right of a square"),
    ("A blue circle contains a red star.", "count", "Two blue circles contain a red star."),
    ("The circle is red and the square is blue.", "colour", "The circle is red and the square is green."),
    ("A cross inside a circle", "relation", "A cross outside a circle"),
    ("a larger triangle than the square", "size", "a smaller triangle than the square"),
    # COCO-like captions.
    ("Two dogs are running on the beach.", "count", "One dog is running on the beach."),
    ("Two dogs are running on the beach.", "count", "Three dogs are running on the beach."),
    ("Two dogs are running on the beach.", "action", "Two dogs are walking on the beach."),
    ("Two dogs are running on the beach.", "object", "Two sheep are running on the beach."),
    ("One dog is sleeping on a couch.", "count", "Two dogs are sleeping on a couch."),
    ("One dog is sleeping on a couch.", "relation", "One dog is sleeping under a couch."),
    ("There are two cats on a couch.", "count", "There is one cat on a couch."),
    ("A man has two dogs.", "count", "A man has one dog."),
    ("A man has two dogs.", "count", "Two men have two dogs."),
    ("2 dogs are playing", "count", "3 dogs are playing"),
    ("2 dogs are playing", "count", "1 dog is playing"),
    ("Several people sitting at tables", "count", "Two people sitting at tables"),
    ("An elephant walks down a road.", "object", "A zebra walks down a road."),
    ("An elephant walks down a road.", "action", "An elephant runs down a road."),
    ("An elephant walks down a road.", "count", "Three elephants walk down a road."),
    ("Two women are standing.", "object", "Two men are standing."),
    ("Two women are standing.", "count", "One woman is standing."),
    ("Three knives on a table", "object", "Three forks on a table"),
    ("a person riding a bicycle", "action", "a person pushing a bicycle"),
    ("a person riding a bicycle", "object", "a person riding a motorcycle"),
    ("a person riding a bicycle", "count", "two people riding a bicycle"),
    ("A MAN RIDES A HORSE.", "object", "A WOMAN RIDES A HORSE."),
    ("a bowl of oranges", "object", "a bowl of apples"),
    ("An orange cat on a bed.", "colour", "A black cat on a bed."),
    ("an orange and white cat", "colour", "a gray and white cat"),
    ("An orange on a table.", "object", "An apple on a table."),
    ("A black and white dog", "colour", "A brown and white dog"),
    ("A small boat near a large ship", "size", "A large boat near a large ship"),
    ("A very tall building", "size", "A very short building"),
    ("A bus parked in front of a building.", "relation", "A bus parked behind a building."),
    ("A bus parked in front of a building.", "action", "A bus moving in front of a building."),
    ("In front of a house is a tree", "relation", "Behind a house is a tree"),
    ("A man skiing down a slope", "relation", "A man skiing up a slope"),
    ("a cup on the left side of the table", "relation", "a cup on the right side of the table"),
    ("people playing tennis", "object", "people playing soccer"),
    ("A woman holding an umbrella", "object", "A woman holding a backpack"),
    ("A woman holding an umbrella", "action", "A woman dropping an umbrella"),
    ("A man is wearing a tie.", "action", "A man is holding a tie."),
    ("a hot dog on a plate", "object", "a pizza on a plate"),
    ("A red fire hydrant", "object", "A red parking meter"),
    ("a teddy bear sitting on a chair", "object", "a doll sitting on a chair"),
    ("A sheep is grazing", "count", "Two sheep are grazing"),
    ("Trees with a mountain in the background", "relation", "Trees with a mountain in the foreground"),
    ("A glass of milk and a sandwich.", "object", "A glass of coffee and a sandwich."),
    ("a girl walks in the snow", "object", "a girl walks in the sand"),
    ("A child rides a horse", "object", "A man rides a horse"),
]

# caption, words that stay whatever else changes
TRAPS = [
    ("An orange on a table.", "colour", "orange"),
    ("an apple, an orange and a banana", "colour", "orange"),
    ("a glass of orange juice", "colour", "orange"),
    ("an orange cat", "object", "orange"),
    ("The food that was left on the plate", "relation", "left"),
    ("What is left of the cake", "relation", "left of"),
    ("A man left a restaurant", "relation", "left"),
    ("A car right next to a tree", "relation", "right"),
    ("A lot of dogs", "count", "a"),
    ("One of the dogs is asleep", "count", "one"),
    ("A group of dogs", "count", "a"),
    ("a hot dog on a plate", "object", "dog"),
    ("A dog house in a yard", "object", "dog"),
    ("A pizza box on a table", "object", "pizza"),
    ("two cat toys", "object", "cat"),
    ("an apple tree in a field", "object", "apple"),
    ("a teddy bear on a bed", "object", "bear"),
    ("A fire hydrant on a street", "object", "fire"),
    ("cars stopped at a red light", "colour", "red"),
    ("a glass of red wine", "colour", "red"),
    ("A black and white photo of a dog", "colour", "black"),
    ("A photo in black and white", "colour", "white"),
    ("a black man on a bench", "colour", "black"),
    ("A long haired cat", "size", "long"),
    ("a little bit of cake", "size", "little"),
    ("a dog as big as a horse", "size", "big"),
    ("A horse drawn carriage", "object", "horse"),
    ("A wall mounted clock", "object", "wall"),
    ("running water in a sink", "action", "running"),
    ("A man in running shoes", "action", "running"),
    ("a man catching a wave", "action", "catching"),
    ("people cross a street", "object", "cross"),
    ("A town square", "object", "square"),
    ("a heart shaped cake", "object", "heart"),
    ("A two story house", "count", "two"),
    ("A knife and fork", "count", "a"),
    ("A dog with its head up", "count", "a"),
    ("Two dogs, one black and one white", "count", "two"),
    ("A dog on a couch is asleep", "count", "a"),
    ("A man that is tall", "count", "a"),
    ("This is a dog", "count", "a"),
    ("a building under construction", "relation", "under"),
]

CAPTIONS = sorted({caption for caption, _, _ in EXPECTED} | {caption for caption, _, _ in TRAPS})


@pytest.mark.parametrize(("caption", "kind", "text"), EXPECTED)
def test_an_expected_edit_is_found(caption, kind, text):
    assert text in [edit.text for edit in edits(caption) if edit.kind == kind]


@pytest.mark.parametrize(("caption", "kind", "word"), TRAPS)
def test_a_trap_is_left_alone(caption, kind, word):
    assert word not in [edit.old for edit in edits(caption) if edit.kind == kind]


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """The words of both texts between their common beginning and their common end."""
    old, new = before.lower().split(), after.lower().split()
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return old, new


@pytest.mark.parametrize("caption", CAPTIONS)
def test_every_edit_differs_in_one_place(caption):
    found = edits(caption)
    for edit in found:
        old, new = changed(caption, edit.text)
        # At most a verb, a number or article, two adjectives and a noun: "is a large red circle".
        assert 1 <= max(len(old), len(new)) <= 5
        assert edit.old in caption.lower()
        assert edit.new in edit.text.lower()
    assert len({edit.text for edit in found} | {caption}) == len(found) + 1


@pytest.mark.parametrize("caption", CAPTIONS)
def test_articles_capitals_and_punctuation_are_kept(caption):
    for edit in edits(caption):
        assert edit.text[0].isupper() == caption[0].isupper() or caption[0].isdigit()
        assert edit.text.isupper() == caption.isupper()
        assert re.findall(r"[^\w\s]", edit.text) == re.findall(r"[^\w\s]", caption)
        assert not re.search(r"\ba [aeio]|\ban [^aeiouh]", edit.text.lower())


@pytest.mark.parametrize(
    ("caption", "never"),
    [
        ("A man on a bike", ["person", "bicycle", "guy"]),
        ("A person on a sofa", ["man", "woman", "couch"]),
        ("A child with a cake", ["kid", "boy", "girl", "cupcake"]),
        ("A vehicle on a road", ["car", "truck", "street"]),
        ("a square", ["rectangle", "diamond"]),
        ("a circle", ["oval", "ring"]),
        ("a gray cube", ["silver", "grey"]),
        ("A man brushing his teeth", ["woman", "girl"]),
        ("A dog next to a cat", ["a cat next to a cat"]),
        ("A clock above a door", ["on top of", "over"]),
    ],
)
def test_synonyms_hypernyms_and_contradictions_are_avoided(caption, never):
    assert not [edit for edit in edits(caption) for word in never if word in (edit.new, edit.text.lower())]


def test_all_edits_of_a_short_caption():
    assert [(edit.kind, edit.text) for edit in edits("two cubes")] == [
        ("count", "one cube"),
        ("count", "three cubes"),
        ("count", "four cubes"),
        ("object", "two spheres"),
        ("object", "two cylinders"),
        ("object", "two cones"),
        ("object", "two pyramids"),
    ]


@pytest.mark.parametrize("caption", ["", "...", "Lorem ipsum", "a couple of", "and", "A"])
def test_a_caption_without_known_words_has_no_edit(caption):
    assert edits(caption) == []
    assert perturb(caption, seed=0) is None
    assert perturb_many(caption, seed=0, count=3) == []


def test_draws_are_deterministic_and_follow_the_seed():
    caption = "A red circle above a blue square."
    assert [perturb(caption, seed) for seed in range(20)] == [perturb(caption, seed) for seed in range(20)]
    assert len({perturb(caption, seed) for seed in range(20)}) > 5


def test_kinds_are_drawn_uniformly_although_some_have_more_edits():
    drawn = [perturb("A red circle above a square.", seed).kind for seed in range(400)]
    counts = {kind: drawn.count(kind) for kind in set(drawn)}
    assert set(counts) == {"colour", "count", "object", "relation"}
    # Binomial(400, 1/4): 100 expected, standard deviation 8.7.
    assert all(60 < count < 140 for count in counts.values())


def test_one_seed_draws_different_kinds_in_different_captions():
    drawn = {perturb(f"A {colour} circle above a square.", seed=0).kind for colour in ("red", "blue", "green", "pink")}
    assert len(drawn) > 1


def test_kinds_can_be_restricted():
    caption = "A red circle above a blue square."
    assert {perturb(caption, seed, kinds={"relation"}).new for seed in range(5)} == {"below"}
    assert perturb(caption, seed=0, kinds={"action"}) is None
    assert {edit.kind for edit in perturb_many(caption, seed=0, count=50, kinds=["colour", "count"])} == {
        "colour",
        "count",
    }


def test_many_draws_are_distinct_and_start_with_the_single_one():
    caption = "Two dogs are running on the beach."
    drawn = perturb_many(caption, seed=3, count=5)
    assert len({edit.text for edit in drawn}) == 5
    assert drawn[0] == perturb(caption, seed=3)
    assert len(perturb_many(caption, seed=3, count=10_000)) == len(edits(caption))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("apple", "an"),
        ("circle", "a"),
        ("orange", "an"),
        ("umbrella", "an"),
        ("urinal", "a"),
        ("one", "a"),
        ("oven", "an"),
    ],
)
def test_articles_follow_the_sound(word, expected):
    assert article(word) == expected


@pytest.mark.parametrize(
    ("noun", "plural"),
    [("bus", "buses"), ("box", "boxes"), ("puppy", "puppies"), ("fire hydrant", "fire hydrants"), ("sheep", "sheep"),
     ("police officer", "police officers"), ("knife", "knives"), ("toy", "toys"), ("bow tie", "bow ties")],
)  # fmt: skip
def test_plurals(noun, plural):
    assert index().plural(noun) == plural


@pytest.mark.parametrize(("base", "third", "ing"), [("ride", "rides", "riding"), ("fly", "flies", "flying"),
                                                    ("lie down", "lies down", "lying down"), ("sit", "sits", "sitting"),
                                                    ("catch", "catches", "catching")])  # fmt: skip
def test_verb_forms(base, third, ing):
    assert index().forms(base) == (base, third, ing)


def test_the_lexicon_is_consistent():
    words = lexicon()
    nouns = {word for group in words.objects.values() for entry in group.words for word in entry.split("/")}
    for wide, narrow in words.covers.items():
        assert {wide, *narrow} <= nouns
    for group in words.objects.values():
        listed = [word for entry in group.words for word in entry.split("/")]
        assert len(listed) == len(set(listed))
    assert {source for group in words.actions.values() for source in group.sources} <= {
        word for group in words.actions.values() for entry in group.verbs for word in entry.split("/")
    }


def test_a_damaged_lexicon_names_the_key():
    content = lexicon().model_dump() | {"colors": ["red"]}
    with pytest.raises(ConfigError, match=r"lexicon: colors: unknown key 'colors'; did you mean 'colours'"):
        validate(Lexicon, content, "lexicon")
