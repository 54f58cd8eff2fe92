"""Asking an endpoint that misbehaves: everything is asked once, nothing is lost, no key is seen."""

from __future__ import annotations

import json
import pickle
import re
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoints import Fault, Standin, ask, record, serving, texts_of

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, DataError, Interrupted, NotAvailable
from cwdpo.endpoint.replies import Replies, Reply, Request
from cwdpo.endpoint.settings import Endpoint
from cwdpo.negatives.written import Written

KEY = "sk-this-is-secret-4711"


def rewrites(body: Mapping[str, Any]) -> str:
    """A usable reply that depends on the request alone."""
    chosen = re.search(r"true answer:\n(.*)", texts_of(body)[0])
    assert chosen
    return json.dumps({"rewrites": [{"text": chosen[1].replace("red", "blue"), "kind": "attribute"}]})


@pytest.fixture
def standin() -> Iterator[Standin]:
    with serving(Standin(rewrites)) as server:
        yield server


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CWDPO_TEST_KEY", KEY)


def written(standin: Standin, **endpoint: Any) -> Written:
    settings = {"model": "m", "base_url": standin.url, "key": "CWDPO_TEST_KEY", "patience": 20, **endpoint}
    return Written.model_validate({"source": "llm", "endpoint": settings})


def part(standin: Standin, **endpoint: Any) -> Any:
    return written(standin, **endpoint).parts()["llm"]


BALLS = [record(number, f"A red ball {number}.") for number in range(6)]


# ---- what is asked, and what comes of it


def test_each_record_is_asked_about_once(standin: Standin, tmp_path: Path) -> None:
    ran = ask(tmp_path, part(standin), BALLS)
    assert [row["id"] for row in ran.rows] == [one.id for one in BALLS]
    assert [row["replies"][0]["rewrites"][0]["text"] for row in ran.rows] == [f"A blue ball {n}." for n in range(6)]
    assert len(standin.asked) == 6
    expected = {"records": 6, "questions": 6, "made": 6, "repaired": 0, "dropped": {}, "asked": 6, "cached": 0}
    assert ran.summary.items() >= expected.items()
    assert ran.summary["tokens"] == {"in": 600, "out": 60}
    assert ran.events[-1] == ("progress", {"done": 6, "total": 6})


def test_the_request_holds_what_the_settings_say(standin: Standin, tmp_path: Path) -> None:
    ask(tmp_path, part(standin, temperature=0.5, top_p=0.9, max_tokens=77, seed=3), BALLS[:1])
    (body,) = standin.asked
    asked = {key: body[key] for key in ("model", "temperature", "top_p", "max_tokens", "seed")}
    assert asked == {"model": "m", "temperature": 0.5, "top_p": 0.9, "max_tokens": 77, "seed": 3}
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["rewrites"]
    assert schema["additionalProperties"] is False
    assert standin.keys == [f"Bearer {KEY}"]
    (text,) = texts_of(body)
    assert "A red ball 0." in text
    assert "Describe the image." in text
    assert "- attribute (attribute): " in text
    assert "$" not in text


def test_what_is_left_to_the_endpoint_is_not_sent(standin: Standin, tmp_path: Path) -> None:
    ask(tmp_path, part(standin, temperature=None, seed=None), BALLS[:1])
    assert not {"temperature", "seed", "top_p"} & set(standin.asked[0])


def test_a_second_run_asks_nothing_and_says_the_same(standin: Standin, tmp_path: Path) -> None:
    first = ask(tmp_path, part(standin), BALLS)
    second = ask(tmp_path, part(standin, concurrency=1, timeout=3), BALLS)
    assert len(standin.asked) == 6
    assert (second.out / "replies.jsonl").read_bytes() == (first.out / "replies.jsonl").read_bytes()
    assert (second.summary["asked"], second.summary["cached"]) == (0, 6)
    assert second.summary["tokens"] == first.summary["tokens"]


def test_another_model_temperature_or_prompt_is_asked_again(standin: Standin, tmp_path: Path) -> None:
    for number, change in enumerate([{}, {"model": "other"}, {"temperature": 1.0}, {"seed": 1}], 1):
        ask(tmp_path, part(standin, **change), BALLS[:1])
        assert len(standin.asked) == number


def test_equal_requests_of_two_records_are_one_call(standin: Standin, tmp_path: Path) -> None:
    standin.faults = [Fault(slow=0.3)]
    ran = ask(tmp_path, part(standin), [record(1), record(2)])
    assert len(standin.asked) == 1
    assert ran.rows[0]["replies"] == ran.rows[1]["replies"]
    assert ran.summary["tokens"] == {"in": 100, "out": 10}


def test_calls_under_way_are_limited(standin: Standin, tmp_path: Path) -> None:
    standin.faults = [Fault(slow=0.1) for _ in range(6)]
    ask(tmp_path, part(standin, concurrency=2), BALLS)
    assert standin.together == 2


def test_the_order_of_answers_does_not_matter(standin: Standin, tmp_path: Path) -> None:
    standin.always = lambda body: Fault(slow=0.4) if "ball 0" in texts_of(body)[0] else None
    ran = ask(tmp_path, part(standin), BALLS)
    assert [row["id"] for row in ran.rows] == [one.id for one in BALLS]
    assert ran.rows[0]["replies"][0]["rewrites"][0]["text"] == "A blue ball 0."


# ---- faults that pass


PASSING = {
    "429": Fault(429, '{"error": {"message": "slow down"}}', {"Retry-After": "0.05"}),
    "500": Fault(500, "oops", {"Retry-After": "0"}),
    "503": Fault(503, "", {"retry-after": "0"}),
    "408": Fault(408, "{}", {"retry-after": "0"}),
    "closed": Fault(cut=0),
    "truncated": Fault(cut=40),
    "not JSON": Fault(200, "<html>wait</html>"),
    "no choices": Fault(200, '{"error": {"message": "upstream"}}'),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_is_waited_out(standin: Standin, tmp_path: Path, name: str) -> None:
    standin.faults = [PASSING[name]]
    ran = ask(tmp_path, part(standin), BALLS[:1])
    assert ran.rows[0]["replies"][0]["rewrites"] == [{"text": "A blue ball 0.", "kind": "attribute"}]
    assert len(standin.asked) == 2
    assert ran.summary["asked"] == 1


def test_a_slow_answer_is_asked_for_again(standin: Standin, tmp_path: Path) -> None:
    standin.faults = [Fault(slow=10)]
    ran = ask(tmp_path, part(standin, timeout=2), BALLS[:1])
    assert ran.summary["made"] == 1
    assert len(standin.asked) == 2


def test_retry_after_is_heeded(standin: Standin, tmp_path: Path) -> None:
    standin.faults = [Fault(429, "{}", {"Retry-After": "3600"})]
    with pytest.raises(NotAvailable, match=r"status 429.*given up \(endpoint.patience is 20 s\)"):
        ask(tmp_path, part(standin), BALLS[:1])  # at once: patience would not last
    assert len(standin.asked) == 1


def test_an_endpoint_that_comes_back_is_waited_for(standin: Standin, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    later = Standin(rewrites)
    gone = Standin(rewrites, url=f"http://127.0.0.1:{port}/v1")
    done = threading.Event()

    def come_back() -> None:
        with serving(later, port):
            done.wait(30)

    timer = threading.Timer(1.0, come_back)
    timer.start()
    try:
        ran = ask(tmp_path, part(gone), BALLS)
    finally:
        done.set()
        timer.join()
    assert ran.summary["made"] == 6
    assert len(later.asked) == 6


# ---- faults that stay


def test_an_endpoint_that_stays_away_is_given_up(tmp_path: Path) -> None:
    gone = Standin(rewrites, url="http://127.0.0.1:9/v1")
    with pytest.raises(NotAvailable, match=r"model 'm' at http://127.0.0.1:9/v1.*cannot be reached.*given up"):
        ask(tmp_path, part(gone, patience=1), BALLS)


def test_an_address_that_is_no_endpoint_is_given_up_soon(standin: Standin, tmp_path: Path) -> None:
    standin.always = lambda body: Fault(200, "<html>Welcome</html>")
    with pytest.raises(NotAvailable, match="its answer is no chat completion: <html>Welcome</html>"):
        ask(tmp_path, part(standin, concurrency=1, patience=1000), BALLS[:1])
    assert len(standin.asked) == 3


def test_an_unknown_model_is_named_with_what_the_server_says(standin: Standin, tmp_path: Path) -> None:
    standin.always = lambda body: Fault(404, '{"error": {"message": "The model `m` does not exist"}}')
    with pytest.raises(ConfigError, match=r"model 'm' at http.*not found.*`m` does not exist"):
        ask(tmp_path, part(standin, concurrency=1), BALLS)
    assert len(standin.asked) == 1


def test_settings_that_are_always_refused_are_an_error_soon(standin: Standin, tmp_path: Path) -> None:
    standin.always = lambda body: Fault(400, '{"error": {"message": "temperature must be 1"}}')
    with pytest.raises(ConfigError, match=r"10 requests were refused and none was taken.*temperature must be 1"):
        ask(tmp_path, part(standin, concurrency=1), [record(n, f"A red ball {n}.") for n in range(40)])
    assert len(standin.asked) == 20  # each with and without a schema
    with pytest.raises(ConfigError, match=r"nothing could be used: refused by the endpoint \(6\).*temperature must be"):
        ask(tmp_path, part(standin), BALLS)


def test_one_refused_request_is_dropped_and_not_kept(standin: Standin, tmp_path: Path) -> None:
    standin.always = lambda body: Fault(400, '{"error": {"message": "too long"}}') if "ball 3" in str(body) else None
    ran = ask(tmp_path, part(standin, concurrency=1), BALLS)
    assert len(standin.asked) == 6  # the others show that it takes schemas
    assert ran.rows[3]["replies"] == [None]
    assert ran.summary["dropped"] == {"refused by the endpoint": 1}
    standin.always = lambda body: None
    assert ask(tmp_path, part(standin), BALLS).summary["made"] == 6  # a longer context may take it


def test_an_endpoint_without_schemas_is_asked_without_them(standin: Standin, tmp_path: Path) -> None:
    refusal = Fault(400, '{"error": {"message": "no schema"}}')
    standin.always = lambda body: refusal if "response_format" in body else None
    ran = ask(tmp_path, part(standin, concurrency=1), BALLS)
    assert ran.summary["made"] == 6
    assert ["response_format" in body for body in standin.asked] == [True] + [False] * 6
    standin.always = lambda body: None
    assert ask(tmp_path, part(standin), BALLS).summary["asked"] == 0


# ---- the key


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it was raised from or while handling."""
    if error is not None:
        yield error
        yield from chain_of(error.__cause__)
        yield from chain_of(error.__context__)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_never_shown(
    standin: Standin, tmp_path: Path, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    standin.always = lambda body: Fault(status, json.dumps({"error": {"message": f"Incorrect API key {KEY[:9]}"}}))
    message = rf"status {status}: the environment variable CWDPO_TEST_KEY holds a key that it refuses"
    with pytest.raises(NotAvailable, match=message) as raised:
        ask(tmp_path, part(standin), BALLS)
    seen = ["".join(traceback.format_exception(raised.value)), *capfd.readouterr(), str(pickle.dumps(raised.value))]
    behind = list(chain_of(raised.value))  # shown or not
    assert not [error for error in behind if hasattr(error, "request")]  # those of the client hold the key
    seen += [f"{error!r} {vars(error)}" for error in behind]
    seen += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in seen if KEY[:9] in text]
    assert len(standin.asked) <= 8


def test_no_file_holds_the_key(standin: Standin, tmp_path: Path) -> None:
    standin.faults = [Fault(500, KEY)]
    ran = ask(tmp_path, part(standin), BALLS)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY in path.read_text()]
    assert KEY not in str(pickle.dumps(part(standin)))
    assert "CWDPO_TEST_KEY" not in str(ran.summary)


def test_a_servers_message_that_repeats_the_key_is_cleaned(standin: Standin, tmp_path: Path) -> None:
    standin.always = lambda body: Fault(404, json.dumps({"error": {"message": f"no such thing for {KEY}"}}))
    with pytest.raises(ConfigError, match=r"no such thing for \[key\]"):
        ask(tmp_path, part(standin), BALLS)


def test_without_a_key_only_an_address_of_ones_own_is_asked(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CWDPO_TEST_KEY")
    assert ask(tmp_path, part(standin), BALLS[:1]).summary["made"] == 1
    with pytest.raises(NotAvailable, match=r"CWDPO_TEST_KEY is not set here.*variables: \[CWDPO_TEST_KEY\]"):
        ask(tmp_path, part(standin, base_url=None, model="other"), BALLS[:1])
    monkeypatch.setenv("CWDPO_TEST_KEY", "half a\nkey")
    with pytest.raises(NotAvailable, match="CWDPO_TEST_KEY holds characters that no key has"):
        ask(tmp_path, part(standin, model="other"), BALLS[:1])


def test_an_account_that_is_used_up_is_no_rate_limit(standin: Standin, tmp_path: Path) -> None:
    standin.always = lambda body: Fault(429, '{"error": {"message": "quota", "code": "insufficient_quota"}}')
    with pytest.raises(NotAvailable, match="the account behind CWDPO_TEST_KEY is used up"):
        ask(tmp_path, part(standin), BALLS)


# ---- budget, signals, kills


def test_a_budget_stops_and_a_larger_one_goes_on(standin: Standin, tmp_path: Path) -> None:
    prices = {"prices": {"input": 10, "output": 100}, "concurrency": 1}  # 0.002 a call
    for _ in range(2):  # the second time nothing more is asked
        with pytest.raises(NotAvailable, match=r"budget of model 'm' is used up \(300 tokens in, 30 out, cost 0.006"):
            ask(tmp_path, part(standin, budget={"cost": 0.005}, **prices), BALLS)
        assert len(standin.asked) == 3
    ran = ask(tmp_path, part(standin, budget={"cost": 1}, **prices), BALLS)
    assert len(standin.asked) == 6
    assert ran.summary["cost"] == pytest.approx(0.012)


def test_a_budget_of_tokens(standin: Standin, tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match=r"used up \(200 tokens in, 20 out\); 2 replies of this attempt are kept"):
        ask(tmp_path, part(standin, budget={"tokens": 220}, concurrency=1), BALLS)


def test_a_signal_stops_soon_and_keeps_what_is_there(standin: Standin, tmp_path: Path) -> None:
    standin.always = lambda body: Fault(slow=60) if "ball 3" in texts_of(body)[0] else None
    started = time.monotonic()
    with pytest.raises(Interrupted, match="stopped by a signal; 5 replies of this attempt are kept"):
        ask(tmp_path, part(standin, timeout=100), BALLS, stopping=lambda: len(standin.asked) == 6)
    assert time.monotonic() - started < 50
    counted = tmp_path / "partial" / "asked.json"
    assert files.read_json(counted) == {"replies": 5}, "a job that is taken back does get on"
    standin.always = lambda body: None
    assert ask(tmp_path, part(standin), BALLS).summary["asked"] == 1
    assert files.read_json(counted) == {"replies": 6}


def test_a_signal_ends_waiting_for_an_endpoint_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        ask(tmp_path, part(Standin(rewrites, url="http://127.0.0.1:9/v1"), patience=9999), BALLS, stopping=lambda: True)


def test_a_line_that_a_kill_cut_off_costs_one_call(standin: Standin, tmp_path: Path) -> None:
    first = ask(tmp_path, part(standin), BALLS)
    (path,) = (tmp_path / "cache" / "llm").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    second = ask(tmp_path, part(standin), BALLS)
    assert len(standin.asked) == 7
    assert second.rows == first.rows
    assert len(list((tmp_path / "cache" / "llm").iterdir())) == 2  # nobody writes to another one's file
    assert ask(tmp_path, part(standin), BALLS).summary["asked"] == 0


def test_replies_are_found_by_the_whole_request(tmp_path: Path) -> None:
    def request(text: str, **endpoint: Any) -> Request:
        one = Endpoint.model_validate({"model": "m", **endpoint})
        return Request(one, ({"role": "user", "content": text},), {"type": "object"})

    with Replies(tmp_path) as replies:
        replies.put(request("a"), Reply("ä\ud83d", "stop", 1, 2))
        replies.put(request("b"), Reply("two", "length"))
        assert replies.get(request("b")) == Reply("two", "length")
        assert replies.get(request("a")) == Reply("ä\ud83d", "stop", 1, 2)
    with Replies(tmp_path) as again:
        again.put(request("c"), Reply("three", "stop"))
        assert again.get(request("a", base_url="http://x/v1", concurrency=3)) == Reply("ä\ud83d", "stop", 1, 2)
        assert again.get(request("c")) == Reply("three", "stop")
        assert again.get(request("b")) == Reply("two", "length")
        assert again.get(request("a", max_tokens=3)) is None
        assert len(again) == 3


# ---- replies that cannot be used


def test_a_reply_is_repaired_once(standin: Standin, tmp_path: Path) -> None:
    good = rewrites
    standin.answer = lambda body: "I would say blue." if len(body["messages"]) == 1 else good(body)
    ran = ask(tmp_path, part(standin), BALLS[:1])
    assert ran.summary["repaired"] == 1
    _, reply, problem = texts_of(standin.asked[1])
    assert reply == "I would say blue."
    assert "it holds no JSON object" in problem
    assert ask(tmp_path, part(standin), BALLS[:1]).summary["cached"] == 2
    assert len(standin.asked) == 2


UNUSABLE = {
    "no usable JSON": '{"rewrites": [{"text": 3}]}',
    "no rewrite": '{"rewrites": []}',
    "same as the truth": '{"rewrites": [{"text": "a  RED ball 1", "kind": "count"}]}',
    "too long": json.dumps({"rewrites": [{"text": "A blue ball " * 833, "kind": "attribute"}]}),
    "unknown kind": '{"rewrites": [{"text": "A blue ball.", "kind": "colour"}]}',
    "empty or broken text": '{"rewrites": [{"text": " ", "kind": "count"}, {"text": "A \\ud800", "kind": "count"}]}',
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_what_stays_unusable_is_dropped_and_counted(standin: Standin, tmp_path: Path, reason: str) -> None:
    standin.answer = lambda body: UNUSABLE[reason] if "ball 1" in texts_of(body)[0] else rewrites(body)
    ran = ask(tmp_path, part(standin), BALLS[:2])
    assert ran.rows[1] == {"id": "1#0", "replies": [None]}
    assert ran.summary["dropped"] == {reason: 1}
    assert ran.summary["examples"] == [{"id": "1#0", "reason": reason, "said": UNUSABLE[reason][:200]}]
    assert len(standin.asked) == 3
    assert ask(tmp_path, part(standin), BALLS[:2]).summary["asked"] == 0


def test_a_model_that_declines_is_not_pressed(standin: Standin, tmp_path: Path) -> None:
    ask(tmp_path, part(standin), BALLS[:1])
    standin.finish = "content_filter"
    ran = ask(tmp_path, part(standin), BALLS[:2])
    assert ran.summary["dropped"] == {"declined by the model": 1}
    assert len(standin.asked) == 2


def test_where_nothing_can_be_used_the_stage_says_so(standin: Standin, tmp_path: Path) -> None:
    standin.answer, standin.finish = lambda body: '{"rewrites": [{"te', "length"
    with pytest.raises(DataError, match=r"nothing could be used of what the endpoint said: cut off \(6\); such as"):
        ask(tmp_path, part(standin), BALLS)


def test_replies_without_a_word_are_no_replies(standin: Standin, tmp_path: Path) -> None:
    standin.answer = lambda body: ""
    with pytest.raises(DataError, match=r"no usable JSON \(6\); such as ''"):
        ask(tmp_path, part(standin), BALLS)


def test_fewer_rewrites_than_asked_for_are_counted(standin: Standin, tmp_path: Path) -> None:
    more = part(standin).model_copy(update={"count": 2})
    assert ask(tmp_path, more, BALLS).summary["lacking"] == {"fewer than asked for": 6}


def test_an_endpoint_that_does_not_count_tokens(standin: Standin, tmp_path: Path) -> None:
    standin.usage = None
    summary = ask(tmp_path, part(standin, prices={"input": 1, "output": 1}), BALLS).summary
    assert (summary["replies_without_tokens"], summary["cost"]) == (6, 0)
