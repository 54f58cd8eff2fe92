"""What the settings of an endpoint may say, which of them are identity, and where prompts come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.data.records import Record
from cwdpo.endpoint.client import seconds_asked
from cwdpo.endpoint.exchange import Unfit, data_uri
from cwdpo.endpoint.replies import Reply, Request
from cwdpo.endpoint.settings import Endpoint
from cwdpo.endpoint.spending import Spending
from cwdpo.negatives.llm.stage import LlmSpec
from cwdpo.negatives.llm.structured import Structured, parse
from cwdpo.negatives.llm.task import Question, Task
from cwdpo.negatives.llm.vision_errors import VISION_ERRORS, described
from cwdpo.negatives.written import Written

PLACES = {
    "base_url": "http://node7:8000/v1", "key": "MY_KEY", "concurrency": 3, "timeout": 5, "patience": 9,
    "prices": {"input": 1, "output": 2}, "budget": {"cost": 3},
}  # fmt: skip


def written(**settings: Any) -> Written:
    return validate(Written, {"source": "llm", "endpoint": {"model": "m"}, **settings}, "x")


def part(**settings: Any) -> Task:
    made = written(**settings).parts()["llm"]
    assert isinstance(made, Task)
    return made


def test_where_it_lies_and_what_it_costs_is_no_identity() -> None:
    assert Endpoint(model="m").canonical() == Endpoint.model_validate({"model": "m", **PLACES}).canonical()
    for change in ({"model": "n"}, {"temperature": 1.0}, {"max_tokens": 3}, {"seed": None}, {"top_p": 0.5}):
        assert Endpoint.model_validate({"model": "m", **change}).canonical() != Endpoint(model="m").canonical()


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ({}, "endpoint.model: is required"),
        ({"model": "m", "key": "sk-4711"}, "key: expected the name of an environment variable"),
        ({"model": "m", "base_url": "node7:8000"}, "base_url: expected an address such as"),
        ({"model": "m", "base_url": "http://me:sk-4711@node7/v1"}, "base_url: an address with a password"),
        ({"model": "m", "base_url": "http://node7/v1?key=sk-4711"}, "base_url: an address with a password or a query"),
        ({"model": "m", "budget": {"cost": 3}}, "budget.cost needs prices"),
        ({"model": "m", "concurrency": 0}, "endpoint.concurrency: Input should be greater than 0"),
    ],
)
def test_wrong_endpoints_are_named_and_no_secret_is_shown(endpoint: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        written(endpoint=endpoint)
    assert message in str(raised.value)
    assert "4711" not in str(raised.value)


def test_a_prompt_of_ones_own_is_read_and_travels_as_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Spoil this for $$5: $chosen\n")
    mine = written(prompt=str(path))
    path.unlink()
    assert Written.model_validate(mine.model_dump(mode="json")) == mine  # as in a job on another machine
    assert mine.canonical() != written().canonical()
    assert _asked(part(prompt=mine.prompt)) == "Spoil this for $5: A $red {ball}.\n"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("rewrit", "unknown prompt 'rewrit'; did you mean 'rewrite'?"),
        ("/nowhere/mine.txt", "prompt /nowhere/mine.txt: cannot be read: No such file or directory"),
        ("Spoil\n$chosn\n", "prompt: unknown $'chosn'; did you mean 'chosen'?"),
        ("For 5 $\n", "x: prompt: a lone $; write $$ for a dollar"),
    ],
)
def test_wrong_prompts_are_named(prompt: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        written(prompt=prompt)
    assert message in str(raised.value)


def _asked(task: Task, **more: Any) -> Any:
    request = task.next_step(_question(task), [], Path("/nowhere"), **more)
    assert isinstance(request, Request)
    return request.messages[0]["content"]


def _question(task: Task) -> Question:
    one = Record("1#0", "1", "1.png", "What?", "A $red {ball}.", ("A",), (), "train", "stage1")
    ((question,),) = task.questions([one], {})
    assert isinstance(question, Question)
    return question


def test_only_kinds_that_are_wanted_are_described() -> None:
    text = _asked(part(kinds=["count", "scene"]))
    assert "- count (count): " in text
    assert "- scene (scene context): " in text
    assert "- object" not in text
    assert [line.split()[1] for line in described().splitlines()] == list(VISION_ERRORS)


def test_images_are_sent_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"\x89PNG")
    task = part(images=True)
    assert task.needs_images
    assert not part().needs_images
    request = task.next_step(_question(task), [], tmp_path)
    assert isinstance(request, Request)
    image, text = request.messages[0]["content"]
    assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    assert "A $red {ball}." in text["text"]
    assert data_uri(tmp_path / "1.png").startswith("data:image/png")


def test_the_spec_finds_its_task_by_tag() -> None:
    spec = LlmSpec.model_validate({"portion": "stage2", "part": part()})
    assert LlmSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_money_is_counted_by_a_million_tokens() -> None:
    endpoint = Endpoint.model_validate({"model": "m", "prices": {"input": 2, "output": 10}, "budget": {"cost": 0.003}})
    spending = Spending(endpoint)
    spending.add(Reply("", "stop", 1000, 50))
    assert spending.cost == pytest.approx(0.0025)
    assert not spending.over()
    spending.add(Reply("", "stop", 0, 50))
    assert spending.over()
    assert str(spending) == "1,000 tokens in, 100 out, cost 0.0030"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("", None)],
)
def test_what_a_server_asks_for(text: str, seconds: float | None) -> None:
    assert seconds_asked({"retry-after": text}) == seconds


# ---- JSON out of what a model wrote


class Found(Structured):
    a: int


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '```json\n{"a": 1}\n```',
        'Sure! {"a": 1} Is there more?',
        '<think>{"a": 0} or {"b": {"a": 7}}?</think>{"a": 1, "more": [{}]}',
        '{"b": 3} {"a": 1} {"b": 2}',
        '{{ "a": 1}',
    ],
)
def test_json_is_found_in_what_stands_around_it(text: str) -> None:
    assert parse(Reply(text, "stop"), Found).a == 1


@pytest.mark.parametrize(
    ("text", "finish", "reason", "problem"),
    [
        ("", "stop", "no usable JSON", "it holds no JSON object"),
        ("[1]", "stop", "no usable JSON", "it holds no JSON object"),
        ('{"a": "x"}', "stop", "no usable JSON", "a: Input should be a valid integer"),
        ('{"b": 1}', "stop", "no usable JSON", "a: Field required"),
        ('{"a": ', "length", "cut off", "it was cut off before the JSON ended"),
        ("[" * 9 + '{"a":' + "[" * 100_000, "stop", "no usable JSON", "it holds no JSON object"),
        ("I cannot", "content_filter", "declined by the model", "the model declined"),
    ],
)
def test_what_is_wrong_is_said(text: str, finish: str, reason: str, problem: str) -> None:
    with pytest.raises(Unfit) as raised:
        parse(Reply(text, finish), Found)
    assert raised.value.reason == reason
    assert problem in raised.value.problem
