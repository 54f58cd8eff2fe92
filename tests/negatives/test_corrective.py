"""Corrective dialogues by rule: what is wrong is denied, what is right affirmed, and nothing true is denied."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from endpoints import Standin, ask, serving, texts_of

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.data.records import Record, Rejected, Turn
from cwdpo.negatives.codebook import codebook, corrections
from cwdpo.negatives.corrective import Corrective
from cwdpo.negatives.source import Made
from cwdpo.negatives.stage import NegativesSpec

RED, BLUE = "A red ball on a table.", "A blue ball on a table."


def record(
    chosen: str = RED,
    *rejected: str,
    prompt: str = "Describe the image briefly.",
    references: Sequence[str] = (),
    name: str = "1#0",
) -> Record:
    wrong = tuple(Rejected(text, "llm", "hard") for text in rejected)
    return Record(name, name[:-2], "1.jpg", prompt, chosen, (chosen, *references), wrong, "train", "stage1")


def corrective(of: Any = None, **settings: Any) -> Corrective:
    return Corrective.model_validate({"source": "corrective", "of": of or {"source": "dataset"}, **settings})


def offered(source: Corrective, records: Sequence[Record], made: Made | None = None) -> list[tuple[Rejected, ...]]:
    return [offer.rejected for offer in source.offers(records, made or {})]


def turns(one: Record, rejected: Rejected | None = None) -> list[Turn]:
    return corrections(one, rejected or one.rejected[0], random.Random(0))


def by_answer(dialogue: Sequence[Turn], word: str) -> list[str]:
    return [question for question, answer in dialogue if answer.startswith(word)]


# ---- what is asked


@pytest.mark.parametrize("seed", range(20))
def test_a_caption_is_asked_about_by_phrase_and_as_a_whole(seed: int) -> None:
    one = record(RED, BLUE)
    found = corrections(one, one.rejected[0], random.Random(seed))
    asked = [("a blue ball", "a red ball"), ("a red ball",) * 2, (BLUE, RED), (RED, "")]
    assert len(found) == 4
    for (question, answer), (about, told), word in zip(found, asked, ("No", "Yes", "No", "Yes"), strict=True):
        assert about in question
        assert told in answer
        assert re.match(rf"{word}\b", answer)


def test_short_answers_to_a_question_are_asked_again_both_ways() -> None:
    one = record("Travel.", "Cookbook.", prompt="What kind of book is this? Answer with one word.")
    no, yes = turns(one)
    assert no[0] == "What kind of book is this? Is it Cookbook?"
    assert no[1] in ("No.", "No, it is Travel.")
    assert yes[0] == "What kind of book is this? Is it Travel?"
    assert yes[1] in ("Yes.", "Yes, it is Travel.")


def test_yes_and_no_are_asked_about_as_answers() -> None:
    one = record("no", "Yes.", prompt="Is there a cat?")
    assert turns(one) == [("Is there a cat? Is the right answer Yes?", "No."),
                          ("Is there a cat? Is the right answer no?", "Yes.")]  # fmt: skip


def test_short_texts_are_captions_where_nothing_was_asked() -> None:
    found = turns(record("A red ball", "A blue ball"))
    assert len(found) == 4
    assert not any("Is it" in question for question, _ in found)


def test_a_whole_answer_is_asked_about_with_its_question() -> None:
    one = record("It is a dog of some kind.", "Nobody knows.", prompt="What is this?")
    (no, told), (yes, _) = turns(one)
    assert no == 'What is this? Is this answer right: "Nobody knows."?'
    assert told == "No. It is a dog of some kind."
    assert yes == 'What is this? Is this answer right: "It is a dog of some kind."?'


def test_the_revised_answer_is_what_is_right() -> None:
    one = record("Some red thing.")
    found = turns(one, Rejected("A blue ball near a bed.", "llm", revised="A red ball near a bed."))
    assert [question for question, _ in found if "a red ball" in question]
    assert not any("Some red thing." in text for turn in found for text in turn)


@pytest.mark.parametrize(
    ("wrong", "denied"), [("A sofa near a bed.", 2), ("A big couch near a bed.", 2), ("A couch near a bed.", 1)]
)
def test_what_another_reference_says_is_not_denied(wrong: str, denied: int) -> None:
    one = record("A chair near a bed.", wrong, references=["The couch is red."])
    assert len(by_answer(turns(one), "No")) == denied
    assert len(by_answer(turns(one), "Yes")) == 2


def test_what_stands_elsewhere_in_the_right_text_is_not_denied() -> None:
    found = turns(record("A cat and the dog near a bed.", "A dog and the dog near a bed."))
    (no,) = by_answer(found, "No")
    assert "A dog and the dog near a bed." in no
    assert len(by_answer(found, "Yes")) == 2


def test_too_many_words_are_denied_and_missing_ones_affirmed() -> None:
    (question, answer), *rest = turns(record("A ball on a table.", "A ball on a table with a cat."))
    assert "with a cat" in question
    assert answer in ("No, the image does not show that.", "No, that is not in the image.")
    assert len(rest) == 2
    (question, answer), *rest = turns(record("A ball on a table with a cat.", "A ball on a table."))
    assert "with a cat" in question
    assert answer.startswith("Yes")
    assert len(rest) == 2


def test_braces_and_quotes_in_a_text_stay() -> None:
    found = turns(record('A {red} "ball".', "A {0} %s cube and nothing else in it."))
    assert found[0][0].count("A {0} %s cube and nothing else in it.") == 1
    assert found[0][1].endswith('A {red} "ball".')


def test_the_codebook_denies_and_affirms() -> None:
    book = codebook()
    pairs = [getattr(book, name) for name in type(book).model_fields if name != "extra"]
    for no, yes in [*((pair.no, pair.yes) for pair in pairs), (book.extra, [])]:
        assert all("{wrong}" in question and answer.startswith("No") for question, answer in no)
        assert all("{right}" in question and answer.startswith("Yes") for question, answer in yes)
        assert not any("{wrong}" in answer for _, answer in [*no, *yes])
        assert not any("{right}" in question for question, _ in no)


# ---- the source


def test_every_rejected_response_keeps_what_it_is_and_gets_a_dialogue() -> None:
    one = record(RED, BLUE, "Nothing at all.")
    ((first, second),) = offered(corrective(), [one])
    assert [(item.text, item.source, item.grade) for item in (first, second)] == [
        (BLUE, "llm", "hard"),
        ("Nothing at all.", "llm", "hard"),
    ]
    assert (len(first.dialogue), len(second.dialogue)) == (4, 2)


def test_the_records_keep_their_places() -> None:
    records = [record("Lorem ipsum.", name="1#0"), record(RED, name="2#0")]
    nothing, (item,) = offered(corrective({"source": "perturb"}), records)
    assert nothing == ()
    assert item.source.startswith("perturb:")
    assert item.dialogue


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_dialogue_is_no_longer_than_asked_for(limit: int) -> None:
    one = record("A blue hat and two cups on a bed.", "A red hat and three cups on a bed.")
    (((item),),) = offered(corrective(turns=limit), [one])
    assert len(item.dialogue) == limit
    assert len(set(item.dialogue)) == limit
    assert len(by_answer(item.dialogue, "No")) == (limit + 1) // 2


def crowd() -> list[Record]:
    return [record(RED, BLUE, name=f"{number}#0") for number in range(60)]


def test_no_comes_first_about_as_often_as_yes() -> None:
    first = [items[0].dialogue[0][1].startswith("No") for items in offered(corrective(), crowd())]
    assert 15 < sum(first) < 45


def test_dialogues_follow_the_seed_and_the_record() -> None:
    one, again, other = (offered(corrective(seed=seed), crowd()) for seed in (1, 1, 2))
    assert one == again != other
    assert len({items[0].dialogue for items in one}) > 20
    assert offered(corrective(seed=1), crowd()[5:6]) == one[5:6]  # whatever else is there


def test_a_dialogue_of_the_data_is_replaced() -> None:
    own = Rejected(BLUE, "llm", dialogue=(("Why?", "Because."),))
    one = Record("1#0", "1", "1.jpg", "?", RED, (RED,), (own,), "train", "stage1")
    (((item),),) = offered(corrective(), [one])
    assert ("Why?", "Because.") not in item.dialogue


def test_what_stands_inside_goes_on_to_matter() -> None:
    inner = {"source": "perturb", "of": "reference", "kinds": ["colour"]}
    one = record("A round thing.", references=["A red ball near a bed."])
    (((item),),) = offered(corrective(inner), [one])
    assert item.revised == "A red ball near a bed."
    assert any("a red ball" in question for question in by_answer(item.dialogue, "Yes"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"of": {"source": "corrective"}}, r"of: unknown source 'corrective'; valid: augmented_image, .*dataset, "),
        ({}, r"of: is required"),
        ({"of": {"source": "perturb", "count": 0}}, r"negatives\.of\.count: Input should be greater than 0; found 0"),
        ({"of": {"source": "dataset"}, "turns": 0}, r"negatives\.turns: Input should be greater than 0; found 0"),
        (
            {"of": {"source": "dataset"}, "writer": "llm"},
            r"negatives\.writer: expected rule, or a mapping.*; found 'llm'",
        ),
    ],
)
def test_wrong_settings_are_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(NegativesSpec, {"negatives": {"source": "corrective", **content}, "portion": "stage1"}, "x")


def test_the_identity_leaves_room_for_other_writers() -> None:
    spec = corrective({"source": "dataset"}).canonical()
    assert spec == {"source": "corrective", "of": {"source": "dataset", "seed": 0}, "turns": 5, "seed": 0}


# ---- written by a model


def dialogue(body: Mapping[str, Any]) -> str:
    """Two questions that repeat what was wrong and what is right."""
    found = re.search(r"true answer:\n(.*)\n\nThis is a wrong answer:\n(.*)", texts_of(body)[0])
    assert found
    turns = [{"question": f"Is it {found[2]}?", "answer": "No."}, {"question": f"Is it {found[1]}?", "answer": "Yes."}]
    return json.dumps({"dialogue": turns})


@pytest.fixture
def standin() -> Iterator[Standin]:
    with serving(Standin(dialogue)) as server:
        yield server


def with_writer(standin: Standin, of: Any = None, turns: int = 5, **writer: Any) -> Corrective:
    return corrective(of, turns=turns, writer={"endpoint": {"model": "m", "base_url": standin.url}, **writer})


def asked(source: Corrective, records: Sequence[Record], home: Path) -> list[tuple[Rejected, ...]]:
    """What the source offers when its endpoint has been asked."""
    return offered(source, records, {"llm": ask(home, source.parts()["llm"], records).out})


def test_a_model_writes_a_dialogue_for_each_rejected_response(standin: Standin, tmp_path: Path) -> None:
    records = [record(RED, BLUE, "Nothing at all.", name="1#0"), record(RED, BLUE, name="2#0")]
    (first, second), (third,) = asked(with_writer(standin), records, tmp_path)
    about_blue = ((f"Is it {BLUE}?", "No."), (f"Is it {RED}?", "Yes."))
    assert first.dialogue == third.dialogue == about_blue
    assert second.dialogue[0] == ("Is it Nothing at all.?", "No.")
    assert (first.text, first.source, first.grade) == (BLUE, "llm", "hard")
    assert len(standin.asked) == 2  # the third is the first


def test_the_codebook_is_in_the_prompt_unless_it_is_left_out(standin: Standin, tmp_path: Path) -> None:
    one = [record(RED, BLUE)]
    asked(with_writer(standin), one, tmp_path)
    asked(with_writer(standin, codebook=False), one, tmp_path)
    full, without = (texts_of(body)[0] for body in standin.asked)
    for kind in ("object existence", "attribute", "count", "scene context", "spatial relation"):
        assert f"({kind})" in full
        assert f"({kind})" not in without
    assert "write 5 questions" in full.lower()
    assert "Look for errors of these kinds" not in without


def test_short_answers_are_doubled_by_rule(standin: Standin, tmp_path: Path) -> None:
    short = record("Travel.", "Cookbook.", prompt="What kind of book is this? Answer with one word.")
    found = asked(with_writer(standin), [short, record(RED, BLUE, name="2#0")], tmp_path)
    assert found[0] == offered(corrective(), [short])[0]
    assert len(standin.asked) == 1


def test_the_model_is_told_the_revised_answer_where_there_is_one(standin: Standin, tmp_path: Path) -> None:
    inner = {"source": "perturb", "of": "reference", "kinds": ["colour"]}
    one = record("A round thing.", references=["A red ball near a bed."])
    (((item),),) = asked(with_writer(standin, inner), [one], tmp_path)
    assert item.dialogue[1] == ("Is it A red ball near a bed.?", "Yes.")


@pytest.mark.parametrize(
    "reply", ['{"dialogue": []}', '{"dialogue": [{"question": "Is it?", "answer": " "}]}', "Sorry."]
)
def test_without_a_usable_reply_there_is_no_dialogue(standin: Standin, tmp_path: Path, reply: str) -> None:
    standin.answer = lambda body: reply if "Nothing" in texts_of(body)[0] else dialogue(body)
    ((good, bad),) = asked(with_writer(standin), [record(RED, BLUE, "Nothing at all.")], tmp_path)
    assert good.dialogue
    assert bad.dialogue == ()
    assert bad.supplies == frozenset()


def test_a_dialogue_that_is_too_long_is_cut(standin: Standin, tmp_path: Path) -> None:
    standin.answer = lambda body: json.dumps({"dialogue": [{"question": f"{n}?", "answer": "Yes."} for n in range(9)]})
    (((item),),) = asked(with_writer(standin, turns=3), [record(RED, BLUE)], tmp_path)
    assert [question for question, _ in item.dialogue] == ["0?", "1?", "2?"]


def test_records_without_rejected_responses_keep_their_places(standin: Standin, tmp_path: Path) -> None:
    records = [record("Lorem ipsum.", name="1#0"), record(RED, name="2#0")]
    nothing, (item,) = asked(with_writer(standin, {"source": "perturb"}), records, tmp_path)
    assert nothing == ()
    assert item.dialogue


def test_only_where_answers_are_asked_for_is_identity_changed() -> None:
    rule, model = corrective(writer="rule"), with_writer(Standin(dialogue, url="http://a/v1"))
    assert rule.canonical() == corrective().canonical()
    assert rule.parts() == {}
    assert model.canonical() == with_writer(Standin(dialogue, url="http://b/v1")).canonical() != rule.canonical()
    assert Corrective.model_validate(model.model_dump(mode="json")) == model
