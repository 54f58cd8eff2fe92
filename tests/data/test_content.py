"""Texts that name their images become parts in order: a picture where its number is first named."""

from __future__ import annotations

import pytest

from cwdpo.data.content import Content, Picture, interleaved, joined, pictures

A, B = Picture("a.png"), Picture("b.png")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Which is red?", (A, B, "Which is red?")),
        ("Is <image 1> like <image 2>?", ("Is ", A, " like ", B, "?")),
        ("<image 2> after <image 1>", (B, " after ", A)),
        ("<image 2> is which?", (A, B, " is which?")),
        ("<image 1><image 2>", (A, B)),
        ("<image 1>, <image 2>: is <image 1> red?", (A, ", ", B, ": is image 1 red?")),
        ("", (A, B)),
        ("a < b, <image> and <image one>", (A, B, "a < b, <image> and <image one>")),
    ],
)
def test_a_picture_stands_where_its_number_is_first_named(text: str, expected: Content) -> None:
    assert interleaved(text, ["a.png", "b.png"]) == expected


def test_numbers_have_several_digits() -> None:
    """Negative control: with one digit, image 12 would be image 1 and a 2."""
    names = [f"{number}.png" for number in range(1, 13)]
    found = interleaved("<image 12>", names)
    assert found == (*map(Picture, names[:-1]), Picture("12.png"))


@pytest.mark.parametrize("number", [0, 3])
def test_an_image_that_there_is_not_is_named(number: int) -> None:
    with pytest.raises(ValueError, match=rf"names image {number}, but there are 2"):
        interleaved(f"See <image {number}>.", ["a.png", "b.png"])


def test_other_marks_can_be_asked_for() -> None:
    assert interleaved("See {1}.", ["a.png"], r"\{(\d+)\}") == ("See ", A, ".")


def test_the_same_file_can_be_two_images() -> None:
    assert pictures(interleaved("<image 1> or <image 2>", ["a.png", "a.png"])) == ["a.png", "a.png"]


def test_without_images_there_is_text_alone() -> None:
    assert interleaved("What is two and two?", []) == ("What is two and two?",)


def test_texts_that_meet_are_one_and_pictures_stay_apart() -> None:
    assert joined(["a", "", "b", A, A, "", "c", " ", "d"]) == ("ab", A, A, "c d")
    assert joined([]) == ()


def test_pictures_are_listed_in_order() -> None:
    assert pictures((B, "and", A)) == ["b.png", "a.png"]
    assert pictures(("nothing",)) == []
