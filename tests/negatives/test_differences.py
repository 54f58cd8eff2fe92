"""What two texts say differently, as phrases."""

from __future__ import annotations

import pytest

from cwdpo.negatives.differences import Difference, differences


@pytest.mark.parametrize(
    ("wrong", "right", "expected"),
    [
        ("A blue ball on a table.", "A red ball on a table.", [("A blue ball", "A red ball", True)]),
        ("A dog near an orange.", "A dog near a lemon.", [("an orange", "a lemon", True)]),
        ("An orange ball on a bed.", "A red ball on a bed.", [("An orange ball", "A red ball", True)]),
        ("Two red balls on a bed.", "A red ball on a bed.", [("Two red balls", "A red ball", True)]),
        ("The two red balls on a bed.", "The six red balls on a bed.", [("two red balls", "six red balls", True)]),
        ("a black and yellow cat on a bed", "a black and white cat on a bed",
         [("a black and yellow cat", "a black and white cat", True)]),
        ("A ball under a big table.", "A ball on a big table.", [("under a big table", "on a big table", False)]),
        ("A cup behind a bed.", "A cup on top of a bed.", [("behind a bed", "on top of a bed", False)]),
        ("A man leading a horse on grass.", "A man riding a horse on grass.",
         [("leading a horse", "riding a horse", False)]),
        ("A small gizmo on a bed.", "A small widget on a bed.", [("A small gizmo", "A small widget", False)]),
        ("A man, a dog and a cat.", "A man, a bird and a cat.", [("a dog", "a bird", True)]),
        ("A blue hat and two cups on a bed.", "A red hat and three cups on a bed.",
         [("A blue hat", "A red hat", True), ("two cups", "three cups", True)]),
    ],
)  # fmt: skip
def test_a_difference_is_widened_to_a_phrase(wrong: str, right: str, expected: list[tuple[str, str, bool]]) -> None:
    assert differences(wrong, right) == [Difference(*item) for item in expected]


@pytest.mark.parametrize(
    ("wrong", "right", "expected"),
    [
        ("A ball on a table with a cat.", "A ball on a table.", ("with a cat", "", False)),
        ("A ball with a cat near a door.", "A ball near a door.", ("with a cat", "", False)),
        ("A big red ball on a bed.", "A red ball on a bed.", ("A big red ball", "A red ball", True)),
        ("A ball on a table.", "A ball on a table with a cat.", ("", "with a cat", False)),
        ("A ball on a bed.", "A red ball on a bed.", ("", "A red ball", True)),
    ],
)
def test_words_too_many_or_too_few(wrong: str, right: str, expected: tuple[str, str, bool]) -> None:
    assert differences(wrong, right) == [Difference(*expected)]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("A red ball.", "A red ball."),
        ("a red ball", "A RED BALL!"),
        ("The ball on a table.", "A ball on the table."),  # articles only
        ("A black and white cat.", "A white and black cat."),  # the same words
        ("The ball is brown.", "The ball is blue."),  # "blue" alone is no phrase
        ("A cat sleeps on a sofa at night.", "A man rides a wave."),  # little in common
        ("Une balle bleue \u00e0 c\u00f4t\u00e9", "Une balle rouge \u00e0 c\u00f4t\u00e9"),
        ("\u7ea2\u8272", "\u84dd\u8272"),
        ("1", "?"),
    ],
)
def test_no_difference_that_could_be_asked_about(wrong: str, right: str) -> None:
    assert differences(wrong, right) == []
