"""When asking is given up, what is asked again then, what is held meanwhile, and secrets in places of all kinds."""

from __future__ import annotations

import json
import os
import socket
import traceback
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoints import Fault, Standin, ask, record, serving, texts_of
from test_llm_asking import BALLS, KEY, part, rewrites

from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError, NotAvailable
from cwdpo.base.files import write_jsonl
from cwdpo.base.runtime import Execution, Rank
from cwdpo.endpoint import asking, client
from cwdpo.endpoint.asking import Asking
from cwdpo.endpoint.exchange import Settled
from cwdpo.endpoint.replies import Replies, Reply, Request
from cwdpo.endpoint.settings import Endpoint
from cwdpo.model.decoding import Decoding
from cwdpo.negatives.answers import Answers, question_id
from cwdpo.negatives.llm.revise import Revise
from cwdpo.negatives.llm.rows import replies_of, row_of

NOWHERE = Standin(rewrites, url="http://127.0.0.1:9/v1")
MANY = [record(number, f"A red ball {number}.") for number in range(80)]


@pytest.fixture
def standin() -> Iterator[Standin]:
    with serving(Standin(rewrites)) as server:
        yield server


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CWDPO_TEST_KEY", KEY)


def useless(body: Mapping[str, Any]) -> str:
    return "I am a teapot."


# ---- given up, and asked again


def test_an_endpoint_that_says_nothing_usable_is_left_soon_and_asked_again(standin: Standin, tmp_path: Path) -> None:
    standin.answer = useless
    message = (
        r"what the endpoint said: no usable JSON \(50\); such as 'I am a teapot.'; .*cache/llm keeps none of 1\d\d"
    )
    with pytest.raises(DataError, match=message):
        ask(tmp_path, part(standin), MANY)
    assert 100 <= len(standin.asked) <= 116  # two for each question; eight are under way when it ends
    assert not list(tmp_path.glob("out0/*"))
    standin.answer = rewrites
    ran = ask(tmp_path, part(standin), MANY)
    assert (ran.summary["made"], ran.summary["asked"], ran.summary["cached"]) == (80, 80, 0)
    assert ask(tmp_path, part(standin), MANY).summary["asked"] == 0


def test_what_an_earlier_attempt_kept_is_asked_again_too(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "UNUSABLE", 5)
    standin.answer = useless
    with pytest.raises(NotAvailable, match="budget"):
        ask(tmp_path, part(standin, budget={"tokens": 600}, concurrency=1), BALLS)
    assert len(standin.asked) == 6
    with pytest.raises(DataError, match=r"keeps none of 10 replies: the same command asks again"):
        ask(tmp_path, part(standin, concurrency=1), BALLS)
    assert len(standin.asked) == 10
    standin.answer = rewrites
    assert ask(tmp_path, part(standin), BALLS).summary["asked"] == 6


def test_few_questions_of_which_nothing_was_usable_are_asked_again(standin: Standin, tmp_path: Path) -> None:
    standin.answer = useless
    with pytest.raises(DataError, match="keeps none of 12 replies"):
        ask(tmp_path, part(standin), BALLS)
    standin.answer = rewrites
    assert ask(tmp_path, part(standin), BALLS).summary["asked"] == 6


def test_one_usable_reply_shows_that_the_endpoint_works(standin: Standin, tmp_path: Path) -> None:
    standin.answer = lambda body: rewrites(body) if "ball 9." in texts_of(body)[0] else useless(body)
    ran = ask(tmp_path, part(standin), MANY)
    assert (ran.summary["made"], ran.summary["dropped"]) == (1, {"no usable JSON": 79})
    assert ask(tmp_path, part(standin), MANY).summary["asked"] == 0


def test_questions_that_are_equal_count_once(standin: Standin, tmp_path: Path) -> None:
    standin.answer = lambda body: rewrites(body) if "ball 1" in texts_of(body)[0] else useless(body)
    same = [record(number, "A red ball 0.") for number in range(60)]
    assert ask(tmp_path, part(standin, concurrency=1), [*same, record(60, "A red ball 1.")]).summary["made"] == 1


def test_an_answer_that_needs_no_correction_is_no_failure(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "UNUSABLE", 3)
    answers = [{"text": "Right.", "tokens": 2, "truncated": False, "mean_logp": -1.0}]
    rows = [{"id": question_id(one.image, one.prompt), "answers": answers} for one in BALLS]
    write_jsonl(tmp_path / "answers" / "answers.jsonl", rows)
    endpoint = {"model": "m", "base_url": standin.url, "key": "CWDPO_TEST_KEY"}
    task = Revise.model_validate({"endpoint": endpoint, "answers": Answers(decoding=Decoding(max_new_tokens=8))})
    standin.answer = lambda body: '{"scores": [], "revised": "Right!"}'
    for _ in range(2):
        with pytest.raises(DataError, match=r"nothing to correct \(6\); such as '.*Right!\"}'$"):
            ask(tmp_path, task, BALLS, inputs={"answers": tmp_path / "answers"})
    assert len(standin.asked) == 6


def test_dropped_replies_are_gone_from_every_file_and_later_ones_stay(tmp_path: Path) -> None:
    def request(text: str) -> Request:
        return Request(Endpoint(model="m"), ({"role": "user", "content": text},), {})

    a, b = request("a"), request("b")
    with Replies(tmp_path) as one, Replies(tmp_path) as other:  # two stages that ask the same at a time
        one.put(a, Reply("1", "stop"))
        other.put(a, Reply("2", "stop"))
        other.put(b, Reply("3", "stop"))
        assert one.drop([a.digest, b.digest]) == 1  # it has not seen the other one's
    with Replies(tmp_path) as again:
        assert again.get(a) is None
        assert again.get(b) == Reply("3", "stop")
        again.put(a, Reply("4", "stop"))
    with Replies(tmp_path) as last:
        assert last.get(a) == Reply("4", "stop")
        assert last.drop([request("c").digest]) == 0
    assert len(list(tmp_path.iterdir())) == 3  # nothing to drop makes no file


# ---- names that nobody knows, and waiting


class Names:
    """Name resolution in which `llm.test` is this machine, after `unknown` times that nobody knew it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unknown = 0
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)
        monkeypatch.setattr(client, "_pause", lambda state: 0.05)

    def __call__(self, host: str | bytes, *others: Any, **more: Any) -> Any:
        if host not in ("llm.test", b"llm.test"):
            return self._real(host, *others, **more)
        self.unknown -= 1
        if self.unknown >= 0:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._real("127.0.0.1", *others, **more)


def by_name(standin: Standin, **more: Any) -> Any:
    return part(standin, base_url=standin.url.replace("127.0.0.1", "llm.test"), concurrency=1, **more)


def test_a_host_that_nobody_knows_is_given_up_soon(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch).unknown = 10**6
    monkeypatch.setattr(client, "NAMELESS", 0.2)
    message = r"at http://llm.test:\d+/v1/?: .*Name or service not known.*is this node online\? `ask: \{partition: "
    with pytest.raises(NotAvailable, match=message):
        ask(tmp_path, by_name(standin, patience=1e6), BALLS)


def test_a_host_that_was_known_once_is_waited_for(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch)
    monkeypatch.setattr(client, "NAMELESS", 0.2)

    def then_gone(body: Mapping[str, Any]) -> Fault | None:
        if len(standin.asked) != 2:
            return None
        names.unknown = 10  # half a second
        return Fault(cut=0)

    standin.always = then_gone
    assert ask(tmp_path, by_name(standin), BALLS).summary["made"] == 6
    assert len(standin.asked) == 7
    assert names.unknown < 0


def test_waiting_is_reported_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(client, "_pause", lambda state: 0.05)
    context = context_of(tmp_path, told)
    task = part(NOWHERE, patience=0.5)
    with Replies(tmp_path / "cache") as replies, pytest.raises(NotAvailable):
        Asking(context, task, replies).all(task.questions(BALLS, {}), 6, lambda index, settled: None)
    ((name, values),) = told
    assert (name, values["model"], values["patience"]) == ("waiting", "m", 0.5)
    assert "cannot be reached" in values["why"]


def context_of(home: Path, told: list[tuple[str, dict[str, Any]]]) -> StageContext:
    return StageContext(
        spec=None, inputs={}, out=home, partial=home, cache=home, rank=Rank(), execution=Execution(),
        event=lambda name, **more: told.append((name, more)), check=lambda: None,
    )  # fmt: skip


# ---- secrets


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hunter2@127.0.0.1:9/v1",
        "http://127.0.0.1:9/v1?key=hunter2",
        "http://127.0.0.1:9/v1#hunter2",
        "http://me:hunter2@[127/v1",
        "http://127.0.0.1:hunter2/v1",
    ],
)
def test_a_secret_in_the_address_of_the_environment_is_refused_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(NotAvailable, match="the environment variable OPENAI_BASE_URL: ") as raised:
        ask(tmp_path, part(NOWHERE, base_url=None, patience=0), BALLS[:1])
    shown = "".join(traceback.format_exception(raised.value)) + "".join(capfd.readouterr())
    assert "hunter2" not in shown
    with pytest.raises(ConfigError) as refused:
        written_at(address)
    assert "hunter2" not in str(refused.value)


def written_at(address: str) -> None:
    from cwdpo.base.config import validate

    validate(Endpoint, {"model": "m", "base_url": address}, "x")


def test_an_address_of_the_environment_is_asked(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", standin.url)
    assert ask(tmp_path, part(standin, base_url=None), BALLS).summary["asked"] == 6


@pytest.mark.parametrize("key", [KEY, "sk-4711"])
@pytest.mark.parametrize("before", [0, 295])
def test_an_answer_that_repeats_the_key_is_cleaned_before_it_is_cut(
    standin: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    before: int,
    key: str,
) -> None:
    monkeypatch.setattr(client, "_pause", lambda state: 0.0)
    monkeypatch.setenv("CWDPO_TEST_KEY", key)
    standin.always = lambda body: Fault(200, f"{'x' * before} {key}")
    with pytest.raises(NotAvailable, match="its answer is no chat completion") as raised:
        ask(tmp_path, part(standin, concurrency=1), BALLS[:1])
    assert key[:3] not in str(raised.value) + "".join(capfd.readouterr())


def test_a_reply_that_repeats_the_key_is_cleaned_but_a_word_is_no_key(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"rewrites": [{"text": f"A blue ball {KEY}.", "kind": "attribute"}]}
    standin.answer = lambda body: json.dumps(said)
    ran = ask(tmp_path, part(standin), [record(0, "A red ball, and a long way to go.")])
    assert ran.rows[0]["replies"][0]["rewrites"][0]["text"] == "A blue ball [key]."
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY in path.read_text()]
    monkeypatch.setenv("CWDPO_TEST_KEY", "blue")  # what a server that wants any is given
    standin.answer = rewrites
    assert ask(tmp_path, part(standin), BALLS[:1]).rows[0]["replies"][0]["rewrites"][0]["text"] == "A blue ball 0."


# ---- what is held


def test_settled_texts_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    task = part(NOWHERE).model_copy(update={"longest": 1e9})
    text = "blue" * 12_000
    with Replies(tmp_path / "cache" / "llm") as replies:
        for (question,) in task.questions(MANY, {}):
            said = {"rewrites": [{"text": f"{question.record.id} {text}", "kind": "attribute"}]}
            replies.put(task.next_step(question, [], tmp_path), Reply(json.dumps(said), "stop"))
    ask(tmp_path, task, MANY[:2])  # what is loaded once
    tracemalloc.start()
    ran = ask(tmp_path, task, MANY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (ran.out / "replies.jsonl").stat().st_size
    assert size > 80 * len(text)
    assert peak < size / 2


def test_no_more_than_a_window_is_settled_ahead(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "WINDOW", 3)
    asked_at: list[int] = []

    def answer(body: Mapping[str, Any]) -> str:
        if "ball 0." in texts_of(body)[0]:
            asked_at.append(len(standin.asked))
        return rewrites(body)

    standin.answer = answer
    standin.always = lambda body: Fault(slow=0.5) if "ball 0." in texts_of(body)[0] else None
    ran = ask(tmp_path, part(standin, concurrency=2), BALLS)
    assert asked_at == [3]  # itself and the two behind it
    assert [row["id"] for row in ran.rows] == [one.id for one in BALLS]


def test_records_are_handed_over_in_order(tmp_path: Path) -> None:
    taken: list[int] = []
    task = part(NOWHERE)
    with Replies(tmp_path / "cache") as replies:
        one = Asking(context_of(tmp_path, []), task, replies)
        one.all([["not asked"] for _ in range(5)], 5, lambda index, settled: taken.append(index))
    assert taken == [0, 1, 2, 3, 4]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_bytes(row_of("a", [{"t": "ä"}, None]) + row_of("b", []) + row_of("c", [None]))
    assert dict(replies_of(tmp_path)) == {"a": [{"t": "ä"}, None], "c": [None]}


# ---- the same as the truth


@pytest.mark.parametrize(
    ("chosen", "text", "same"),
    [
        ("लड़का", "लड़की", False),  # a boy, a girl: they differ in the sign of a vowel
        ("It is $5.", "It is €5.", False),
        ("A red ball.", "a  RED, ball", True),
        ("Ａ red ball.", "A red ball", True),
    ],
)
def test_a_rewrite_is_compared_as_answers_are(chosen: str, text: str, same: bool) -> None:
    task = part(NOWHERE)
    ((question,),) = task.questions([record(0, chosen)], {})
    said = Reply(json.dumps({"rewrites": [{"text": text, "kind": "attribute"}]}), "stop")
    step = task.next_step(question, [said, said], Path())
    assert isinstance(step, Settled)
    assert (step.reason == "same as the truth") == same
    assert (step.made is None) == same
