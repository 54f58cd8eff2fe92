"""Pairs of answers by hand: verdicts by value and in both orders, tallies, bias; and a stand-in for a judge."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import pytest
from negatives.endpoints import Standin, serving

from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.base.files import write_jsonl
from cwdpo.base.runtime import Execution, Rank
from cwdpo.endpoint.settings import Endpoint
from cwdpo.evaluate.benchmarks.benchmark import QUESTIONS
from cwdpo.evaluate.benchmarks.chair import Chair
from cwdpo.evaluate.benchmarks.own import Own
from cwdpo.evaluate.benchmarks.pope import Pope
from cwdpo.evaluate.judging.pairs import PairJudge, asked_of, judge_pairs, prompt, usable
from cwdpo.evaluate.pairwise import (
    Asked,
    Pair,
    Tally,
    bias,
    by_category,
    by_value,
    difference,
    in_both_orders,
    most_different,
    row,
    tally,
)
from cwdpo.evaluate.question import Question


def pair(name="1", a=None, b=None, texts=("left", "right"), category="", seed=0):
    return Pair(name, seed, Asked("What is it?", ("x.png",), ("a boat", "a ship"), category), texts, (a, b))


# ---- verdicts


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (1.0, 0.0, "a"),
        (0.0, 1.0, "b"),
        (0.3, 0.3, "tie"),
        (0.1 + 0.2, 0.3, "tie"),  # a sum in another order
        (0.5 + 2e-9, 0.5, "a"),
        (0.5, 0.5 + 2e-9, "b"),
        (None, 1.0, None),
        (1.0, None, None),
        (None, None, None),
        (0.0, 0.0, "tie"),  # zero is a value
    ],
)
def test_the_higher_value_wins(a, b, verdict):
    assert by_value(pair(a=a, b=b)) == verdict
    assert by_value(pair(a=a, b=b), higher=False) == {"a": "b", "b": "a"}.get(verdict, verdict)


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        # what is said where A stands first, and where B does
        (("1", "2"), "a"),
        (("2", "1"), "b"),
        (("1", "1"), "tie"),  # always the first one
        (("2", "2"), "tie"),  # always the second one
        (("tie", "tie"), "tie"),
        (("1", "tie"), "tie"),
        (("tie", "1"), "tie"),
        (("2", "tie"), "tie"),
        (("tie", "2"), "tie"),
    ],
)
def test_only_both_orders_together_decide(words, verdict):
    assert in_both_orders(words) == verdict


# ---- what they come to


def test_a_tie_is_half_a_win():
    found = tally(["a", "a", None, "tie", "b", "a", None])
    assert found == Tally(wins=3, ties=1, losses=1)
    assert (found.n, found.rate.n) == (5, 5)
    assert found.rate.share == pytest.approx(0.7)
    for end in (found.rate.low, found.rate.high):  # where a share of so much would just be believed
        assert abs(0.7 - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 5), rel=1e-6)
    assert found.rate.low < 0.7 < found.rate.high
    assert found.as_json() == {"pairs": 5, "win_rate": found.rate._asdict(), "wins": 3, "ties": 1, "losses": 1}


def test_all_ties_are_a_half():
    rate = tally(["tie"] * 8).rate
    assert rate.share == 0.5
    assert rate.low + rate.high == pytest.approx(1.0)


def test_the_other_way_round_is_one_minus_the_rate():
    verdicts = ["a", "b", "tie", "a", "a"]
    swapped = [{"a": "b", "b": "a"}.get(verdict, verdict) for verdict in verdicts]
    first, second = tally(verdicts).rate, tally(swapped).rate
    assert (first.share + second.share, first.low + second.high) == (pytest.approx(1.0), pytest.approx(1.0))


def test_nothing_compared_has_no_rate():
    with pytest.raises(DataError, match="0 trials"):
        tally([None]).rate  # noqa: B018


def test_categories_are_counted_apart():
    pairs = [pair(category=name) for name in ("colour", "shape", "colour", "shape", "size")]
    found = by_category(pairs, ["a", "b", "tie", None, None])
    assert found == {"colour": Tally(1, 1, 0), "shape": Tally(0, 0, 1)}


@pytest.mark.parametrize("names", [["one"] * 3, [str(number) for number in range(13)]])
def test_one_category_and_too_many_are_not_shown(names):
    assert by_category([pair(category=name) for name in names], ["a"] * len(names)) == {}
    assert len(by_category([pair(category=str(number)) for number in range(12)], ["a"] * 12)) == 12


def test_position_bias_by_hand():
    found = bias([("1", "2"), ("1", "1"), ("2", "1"), ("tie", "1"), ("tie", "tie")])
    assert found.decided == 7  # of ten replies
    assert found.first == pytest.approx(5 / 7)
    assert found.disagree == pytest.approx(2 / 5)  # the second and the fourth pair
    assert found.pairs == 5


def test_no_bias_without_a_choice():
    assert (bias([("tie", "tie")]).first, bias([("tie", "tie")]).disagree) == (None, 0.0)
    assert (bias([]).first, bias([]).disagree) == (None, None)


def test_differences_are_over_items_each_the_mean_over_seeds():
    pairs = [
        pair("1", 1.0, 0.0, seed=0), pair("1", 0.0, 0.0, seed=1),
        pair("2", 0.25, 0.75, seed=0), pair("2", 0.25, 0.25, seed=1),
        pair("3", 0.5, None), pair("4", None, 0.5),
        pair("5", 1.0, 0.0, seed=0), pair("5", None, 0.0, seed=1),
    ]  # fmt: skip
    found = difference(pairs, scale=100.0)
    assert found is not None
    assert found.n == 3
    assert found.difference == pytest.approx(100 * (0.5 - 0.25 + 1.0) / 3)
    assert -25.0 <= found.low <= found.difference <= found.high <= 100.0
    assert difference([pair("1", 0.5, None)]) is None


def test_the_most_different_pairs_come_first_and_equal_answers_never():
    pairs = [
        pair("same", 1.0, 0.0, texts=("a  b", "a b\n")),
        pair("small", 0.5, 0.4),
        pair("none", None, 1.0),
        pair("big", 0.0, 0.9),
        pair("tied", 0.9, 0.0),
    ]
    by = ["tie", "a", None, "b", "tie"]
    assert [one.id for one, _ in most_different(pairs, by, 5, judged=False)] == ["big", "tied", "small"]
    assert [one.id for one, _ in most_different(pairs, by, 5, judged=True)] == ["big", "small", "tied"]
    assert [one.id for one, _ in most_different(pairs, by, 1, judged=True)] == ["big"]
    assert most_different(pairs, by, 0, judged=True) == []


def test_a_row_is_flat():
    assert row(pair("7", 1.0, None, category="c", seed=3), "a") == {
        "id": "7", "seed": 3, "category": "c", "answer_a": "left", "answer_b": "right", "value_a": 1.0,
        "value_b": None, "verdict": "a",
    }  # fmt: skip


# ---- what is known of an item


@pytest.mark.parametrize(
    ("benchmark", "truth", "references"),
    [
        (Own(name="own"), {"answers": ["a boat", " a boat ", "", "a ship"]}, ("a boat", "a ship")),
        (Own(name="own"), {"answers": []}, ()),
        (Pope(name="pope"), {"label": "yes"}, ("yes",)),
        (Chair(name="chair"), {"objects": ["cat", "dining table"]}, ("cat", "dining table")),
        (Chair(name="chair"), {"answer": "of another benchmark"}, ()),
    ],
)
def test_references_are_where_the_benchmark_says(tmp_path, benchmark, truth, references):
    question = Question("1", ("x.png",), {"turns": ["What is it?"], "question": "What is it?"}, truth, "c")
    write_jsonl(tmp_path / QUESTIONS, [question.row()])
    found = asked_of(benchmark, {"questions": tmp_path})["1"]
    assert (found.references, found.category, found.images) == (references, "c", ("x.png",))
    assert found.text


# ---- a judge: a stand-in, a small server of this process that answers as it is told


@pytest.fixture
def standin():
    with serving(Standin(lambda body: "tie")) as server:
        yield server


def shown(body):
    """The two answers of a request, in their order."""
    content = body["messages"][0]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    first, second = text.partition("Answer 1:\n")[2].split("\n\nReply with")[0].split("\n\nAnswer 2:\n")
    return first, second


def ask(home, standin, pairs, images=None, **settings):
    home.mkdir(exist_ok=True)
    endpoint = Endpoint.model_validate({"model": "judge-1", "base_url": standin.url, "max_tokens": 16, **settings})
    context = StageContext(
        spec=None, inputs={"images": images} if images else {}, out=home, partial=home, cache=home / "cache",
        rank=Rank(), execution=Execution(), event=lambda name, **more: None, check=lambda: None,
    )  # fmt: skip
    return judge_pairs(context, PairJudge(endpoint, images=images is not None), pairs)


def test_each_pair_is_asked_in_both_orders_as_text(standin, tmp_path):
    standin.answer = lambda body: {"left": "1", "right": "2"}[shown(body)[0]]
    found = ask(tmp_path, standin, [pair()])
    assert found.words == [("1", "2")]
    assert sorted(map(shown, standin.asked)) == [("left", "right"), ("right", "left")]
    for body in standin.asked:
        text = body["messages"][0]["content"]
        assert "Request:\nWhat is it?\n" in text
        assert "\n- a boat\n- a ship\n" in text
        assert "You cannot see the image" in text
        assert "$" not in text
    assert (found.told["asked"], found.told["cached"], found.told["tokens"]) == (2, 0, {"in": 200, "out": 20})


def test_every_place_of_the_prompt_is_filled_whatever_the_answers_hold(standin, tmp_path):
    ask(tmp_path, standin, [pair(texts=("costs $5 {x} $first", "$second"))])
    assert ("costs $5 {x} $first", "$second") in map(shown, standin.asked)
    assert {word for word in prompt().split() if word.startswith("$")} == {
        "$sight", "$question", "$references", "$first", "$second",
    }  # fmt: skip


def test_equal_answers_are_not_asked_about(standin, tmp_path):
    pairs = [pair("1", texts=("a  boat", " a boat\n")), pair("2")]
    assert ask(tmp_path, standin, pairs).words == [None, ("tie", "tie")]
    assert len(standin.asked) == 2
    assert ask(tmp_path, standin, pairs[:1]).words == [None]  # nothing to ask at all
    assert len(standin.asked) == 2


@pytest.mark.parametrize("said", ["1", " 1\n", "1.", '"1"', "**1**"])
def test_a_verdict_may_have_marks_around_it(standin, tmp_path, said):
    standin.answer = lambda body: said
    assert ask(tmp_path, standin, [pair()]).words == [("1", "1")]
    assert len(standin.asked) == 2


@pytest.mark.parametrize("said", ["Answer 1", "1 or 2", "3", "12", "", "both"])
def test_anything_else_is_asked_for_once_more_and_then_left_out(standin, tmp_path, said):
    standin.answer = lambda body: said if "odd" in shown(body) else "Tie"
    found = ask(tmp_path, standin, [pair("1"), pair("2", texts=("odd", "right"))])
    assert found.words == [("tie", "tie"), (None, None)]
    assert [usable(words) for words in found.words] == [("tie", "tie"), None]
    assert found.unusable == {"it is not 1, 2 or tie": 2}
    assert found.examples[0] == {"id": "2", "reason": "it is not 1, 2 or tie", "said": said}
    assert len(standin.asked) == 2 + 4


def test_a_second_try_counts(standin, tmp_path):
    standin.answer = lambda body: "2" if len(body["messages"]) == 3 else "The second one."
    assert ask(tmp_path, standin, [pair()]).words == [("2", "2")]
    assert "not 1, 2 or tie and nothing else" in standin.asked[-1]["messages"][2]["content"]


def test_one_order_without_a_usable_reply_leaves_the_pair_out(standin, tmp_path):
    standin.answer = lambda body: "?" if shown(body) == ("odd", "right") else "1"
    found = ask(tmp_path, standin, [pair("1"), pair("2", texts=("odd", "right"))])
    assert found.words == [("1", "1"), (None, "1")]
    assert usable(found.words[1]) is None
    assert found.unusable == {"it is not 1, 2 or tie": 1}


def test_a_judge_of_whom_nothing_can_be_used_is_an_error_and_is_asked_again(standin, tmp_path):
    standin.answer = lambda body: "I like both."
    with pytest.raises(DataError, match=r"it is not 1, 2 or tie \(2\); such as 'I like both\.'"):
        ask(tmp_path, standin, [pair()])
    standin.answer = lambda body: "1"
    assert ask(tmp_path, standin, [pair()]).words == [("1", "1")]


def test_what_was_said_is_not_asked_again(standin, tmp_path):
    pairs = [pair(str(number), texts=(f"a{number}", "b")) for number in range(4)]
    first = ask(tmp_path, standin, pairs)
    again = ask(tmp_path, standin, pairs)
    assert (len(standin.asked), again.words) == (8, first.words)
    assert (again.told["asked"], again.told["cached"]) == (0, 8)
    assert ask(tmp_path, standin, pairs, model="judge-2").told["asked"] == 8


def test_images_are_sent_where_they_are_wanted(standin, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").write_bytes(b"picture")
    ask(tmp_path, standin, [pair()], images=tmp_path / "images")
    image, text = standin.asked[0]["messages"][0]["content"]
    assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(b'picture').decode()}"
    assert "The image comes with this message." in text["text"]
    assert "cannot see" not in text["text"]


def test_an_image_that_is_gone_is_named(standin, tmp_path):
    with pytest.raises(DataError, match=r"x\.png: No such file"):
        ask(tmp_path, standin, [pair()], images=Path(tmp_path))
