"""The stage `judge` against a stand-in for an endpoint: a small server of this process that answers as it is told."""

import json
import threading

import pytest
from negatives.endpoints import Fault, Standin, serving

from cwdpo.base.config import validate
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError, Interrupted, NotAvailable
from cwdpo.base.files import read_json, read_jsonl, write_jsonl
from cwdpo.base.runtime import Execution, Rank
from cwdpo.endpoint import client
from cwdpo.endpoint.asking import FOLDER
from cwdpo.endpoint.replies import Request
from cwdpo.endpoint.settings import Endpoint
from cwdpo.evaluate.benchmarks.mm_vet import MmVet
from cwdpo.evaluate.benchmarks.mmhal import Mmhal
from cwdpo.evaluate.benchmarks.shr import Shr
from cwdpo.evaluate.judging import stage
from cwdpo.evaluate.judging.stage import JudgeSpec
from cwdpo.evaluate.question import Answered, Question
from cwdpo.model.decoding import Decoding

MM_VET = MmVet(name="mm_vet")
OFFICIAL = "Grade it.\n$question | $truth | $answer | "


@pytest.fixture
def standin():
    with serving(Standin(lambda body: "0.5")) as server:
        yield server


def question(number):
    truth = {"answer": f"truth {number}", "capabilities": ["rec"]}
    return Question(f"v1_{number}", ("a.jpg",), {"question": f"Question {number}?"}, truth)


def judge(home, standin, benchmark=MM_VET, count=4, answers=None, stopping=lambda: False, questions=None, **settings):
    """Run the stage on invented answers; what it keeps lies in `home/cache`, each run has a new output folder."""
    number = len(list(home.glob("out*")))
    out = home / f"out{number}"
    out.mkdir(parents=True)
    questions = questions or [question(one) for one in range(count)]
    answers = answers or [f" answer {one}\n" for one in range(len(questions))]
    write_jsonl(home / "questions" / "questions.jsonl", [one.row() for one in questions])
    rows = [{"id": one.id, "text": text} for one, text in zip(questions, answers, strict=False)]
    write_jsonl(home / "generate" / "generations.jsonl", rows)
    endpoint = {"model": "judge-1", "base_url": standin.url, "max_tokens": 16, **settings}
    spec = JudgeSpec.model_validate({"benchmark": benchmark.for_judging(), "endpoint": endpoint})
    stage.run(
        StageContext(
            spec=spec, inputs={"questions": home / "questions", "generate": home / "generate"}, out=out,
            partial=home / "partial", cache=home / "cache", rank=Rank(), execution=Execution(),
            event=lambda name, **more: None, check=lambda: None, stopping=stopping,
        )
    )  # fmt: skip
    return list(read_jsonl(out / "judgements.jsonl")), read_json(out / "summary.json"), out


def number_of(body):
    """Which answer a request is about."""
    return body["messages"][0]["content"].split("answer ")[-1].split()[0]


# ---- what is asked and what is written


def test_every_answer_is_judged_once_in_free_text(standin, tmp_path):
    rows, summary, out = judge(tmp_path, standin)
    assert rows == [{"id": f"v1_{number}", "judgements": [0.5], "said": []} for number in range(4)]
    assert len(standin.asked) == 4
    for body in standin.asked:
        assert "response_format" not in body
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge-1", 16, 0.0)
        assert [message["role"] for message in body["messages"]] == ["user"]
        assert isinstance(body["messages"][0]["content"], str)  # no image
    text = standin.asked[0]["messages"][0]["content"]
    name = number_of(standin.asked[0])
    assert f"Question {name}?" in text
    assert f"truth {name}" in text
    assert f"Answer to grade: answer {name}\n" in text
    assert {key: summary[key] for key in ("answers", "judgements", "used", "repaired", "dropped", "asked")} == {
        "answers": 4, "judgements": 4, "used": 4, "repaired": 0, "dropped": {}, "asked": 4,
    }  # fmt: skip
    assert summary["tokens"] == {"in": 400, "out": 40}
    settings = read_json(out / "settings.json")
    assert (settings["judge"], settings["prompt"]) == ("judge-1", "the shipped one (rules only)")
    assert settings["endpoint"]["max_tokens"] == 16
    assert settings["endpoint"]["base_url"] == standin.url


def test_the_order_of_the_rows_is_that_of_the_answers_whatever_comes_first(standin, tmp_path):
    standin.always = lambda body: Fault(slow=0.2) if number_of(body) == "0" else None
    standin.answer = lambda body: f"0.{number_of(body)}"
    rows, _, _ = judge(tmp_path, standin, count=6)
    assert [row["judgements"] for row in rows] == [[0.0], [0.1], [0.2], [0.3], [0.4], [0.5]]


def test_all_at_a_limit_are_judged_and_no_other_question(standin, tmp_path):
    rows, summary, _ = judge(tmp_path, standin, questions=[question(one) for one in range(4)], answers=["a", "b"])
    assert [row["id"] for row in rows] == ["v1_0", "v1_1"]
    assert summary["answers"] == 2


def test_costs_are_shown(standin, tmp_path):
    _, summary, _ = judge(tmp_path, standin, prices={"input": 10.0, "output": 30.0})
    assert summary["cost"] == pytest.approx((400 * 10 + 40 * 30) / 1e6)


def test_an_answer_to_no_question_is_named(standin, tmp_path):
    judge(tmp_path, standin)
    write_jsonl(tmp_path / "generate" / "generations.jsonl", [{"id": "v1_77", "text": "x"}])
    with pytest.raises(DataError, match="an answer to 'v1_77', which is no question"):
        stage.answers_of(tmp_path / "questions", tmp_path / "generate")
    assert len(standin.asked) == 4


def test_nobody_is_asked_about_an_answer_that_there_is_not(tmp_path):
    write_jsonl(tmp_path / "questions" / "questions.jsonl", [question(0).row(), question(1).row()])
    rows = [{"id": "v1_0", "text": "", "fault": "no room"}, {"id": "v1_1", "text": ""}]
    write_jsonl(tmp_path / "generations.jsonl", rows)
    assert [found.question.id for found in stage.answers_of(tmp_path / "questions", tmp_path)] == ["v1_1"]


def test_the_raw_answer_is_judged_with_its_line_breaks(standin, tmp_path):
    write_jsonl(tmp_path / "questions" / "questions.jsonl", [question(0).row()])
    write_jsonl(tmp_path / "generations.jsonl", [{"id": "v1_0", "text": "a b", "raw": " a\n b \n"}])
    (found,) = stage.answers_of(tmp_path / "questions", tmp_path)
    assert found.text == "a\n b"


# ---- replies that cannot be used


def test_a_reply_that_cannot_be_read_is_asked_for_once_more(standin, tmp_path):
    standin.answer = lambda body: "0.75" if len(body["messages"]) == 3 else "Quite good!"
    rows, summary, _ = judge(tmp_path, standin, count=2)
    assert [row["judgements"] for row in rows] == [[0.75], [0.75]]
    assert (summary["used"], summary["repaired"], len(standin.asked)) == (2, 2, 4)
    repair = next(body for body in standin.asked if len(body["messages"]) == 3)["messages"]
    assert [message["role"] for message in repair] == ["user", "assistant", "user"]
    assert repair[1]["content"] == "Quite good!"
    assert "it is no number from 0.0 to 1.0" in repair[2]["content"]


def test_what_stays_unreadable_is_null_counted_and_shown(standin, tmp_path):
    standin.answer = lambda body: "Quite good!" + "!" * 500 if number_of(body) == "1" else "1.0"
    rows, summary, _ = judge(tmp_path, standin)
    assert [row["judgements"] for row in rows] == [[1.0], [None], [1.0], [1.0]]
    assert rows[1]["said"] == ["Quite good!" + "!" * 189]
    assert summary["dropped"] == {"it is no number from 0.0 to 1.0": 1}
    assert (summary["used"], summary["judgements"]) == (3, 4)
    assert summary["examples"][0]["id"] == "v1_1"
    scores = MM_VET.score(
        [Answered(question(0), "x", (1.0,)), Answered(question(1), "x", tuple(rows[1]["judgements"]))]
    )
    assert scores.corpus["score"] == 0.5
    assert scores.counts == {"answers without a usable rating, counted as 0": 1}


def test_a_reply_that_was_cut_off_is_used_where_its_rating_is_there(standin, tmp_path):
    standin.finish = "length"
    standin.answer = lambda body: "0.5 because it is" if number_of(body) == "0" else "I think"
    rows, summary, _ = judge(tmp_path, standin, count=2)
    assert [row["judgements"] for row in rows] == [[0.5], [None]]
    assert summary["dropped"] == {"cut off": 1}


def test_a_judge_that_declines_is_not_asked_again(standin, tmp_path):
    standin.finish = "content_filter"
    standin.answer = lambda body: "0.5"
    with pytest.raises(DataError, match=r"nothing could be used .* declined by the model \(3\)"):
        judge(tmp_path, standin, count=3)
    assert len(standin.asked) == 3


def test_a_judge_of_whom_nothing_can_be_used_leaves_no_rows(standin, tmp_path):
    standin.answer = lambda body: "No."
    with pytest.raises(DataError, match=r"no number from 0\.0 to 1\.0 \(4\); such as 'No\.'.*keeps none of 8 replies"):
        judge(tmp_path, standin)
    assert not list((tmp_path / "out0").iterdir())
    standin.answer = lambda body: "0.5"
    assert judge(tmp_path, standin)[1]["asked"] == 4  # what it said is forgotten


# ---- kept replies


def test_equal_requests_are_sent_once_whoever_asks(standin, tmp_path):
    first, _, _ = judge(tmp_path, standin)
    again, summary, _ = judge(tmp_path, standin)
    assert (again, summary["asked"], summary["cached"], len(standin.asked)) == (first, 0, 4, 4)
    assert summary["tokens"] == {"in": 400, "out": 40}
    assert list((tmp_path / "cache" / FOLDER).iterdir())
    _, summary, _ = judge(tmp_path / "other", standin, questions=[question(0)] * 2, answers=["same", "same"])
    assert (summary["asked"], summary["cached"], len(standin.asked)) == (1, 1, 5)


def test_another_prompt_or_another_judge_is_asked_anew(standin, tmp_path):
    judge(tmp_path, standin)
    _, summary, out = judge(tmp_path, standin, MmVet(name="mm_vet", judge_prompt=OFFICIAL))
    assert (summary["asked"], read_json(out / "settings.json")["prompt"]) == (4, "an own text")
    assert standin.asked[-1]["messages"][0]["content"].startswith("Grade it.\nQuestion ")
    assert judge(tmp_path, standin, model="judge-2")[1]["asked"] == 4


def test_a_signal_keeps_what_was_said_and_the_next_attempt_goes_on(standin, tmp_path):
    stop = threading.Event()

    def answer(body):
        if len(standin.asked) >= 5:
            stop.set()
        return "0.5"

    standin.answer = answer
    with pytest.raises(Interrupted, match="replies of this attempt are kept"):
        judge(tmp_path, standin, count=40, stopping=stop.is_set, concurrency=1)
    asked = len(standin.asked)
    assert 5 <= asked < 40
    assert not (tmp_path / "out0" / "judgements.jsonl").exists()
    rows, summary, _ = judge(tmp_path, standin, count=40)
    assert (len(rows), summary["asked"] + asked, len(standin.asked)) == (40, 40, 40)


def test_a_budget_ends_it_and_a_larger_one_goes_on(standin, tmp_path):
    with pytest.raises(NotAvailable, match=r"budget of model 'judge-1' is used up"):
        judge(tmp_path, standin, budget={"tokens": 220}, concurrency=1)
    assert len(standin.asked) == 2
    assert judge(tmp_path, standin)[1]["asked"] == 2


def test_an_endpoint_that_stumbles_after_it_answered_is_waited_for(standin, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.01)
    standin.faults = [Fault(slow=0.01), *[Fault(body="<html>")] * 4]
    rows, _, _ = judge(tmp_path, standin, count=2, concurrency=1)
    assert [row["judgements"] for row in rows] == [[0.5], [0.5]]  # four strange answers, of which three end a stranger


def test_an_endpoint_that_never_was_one_is_given_up(standin, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.01)
    standin.faults = [Fault(body="<html>")] * 50
    with pytest.raises(NotAvailable, match="no chat completion"):
        judge(tmp_path, standin, count=1, concurrency=1)
    assert len(standin.asked) == 3


# ---- identity


def test_requests_with_a_schema_are_found_by_what_they_were_before():
    endpoint = Endpoint(model="m")
    messages = ({"role": "user", "content": "Hello"},)
    known = "7e00f86226de8d97465a727b2bc228d53d83054bf0ce2b12139c7158b99ff250"
    assert Request(endpoint, messages, {"type": "object"}).digest == known
    assert Request(endpoint, messages, None).digest != known


def test_what_does_not_concern_the_judge_is_no_part_of_what_it_said():
    other = MmVet(name="mm_vet", limit=7, prompt="Please: {question}", decoding=Decoding(max_new_tokens=9))
    assert other.for_judging() == MM_VET.for_judging()
    assert MmVet(name="mm_vet", judge_prompt=OFFICIAL).for_judging() != MM_VET.for_judging()


def test_answers_do_not_depend_on_what_the_judge_is_told():
    asked = MmVet(name="mm_vet", judge_prompt=OFFICIAL, limit=7)
    assert asked.for_generating() == MmVet(name="mm_vet", limit=7)


def test_the_text_of_the_shipped_prompt_is_part_of_what_was_said():
    spec = JudgeSpec.model_validate({"benchmark": MM_VET.for_judging(), "endpoint": {"model": "m"}})
    assert spec.canonical()["benchmark"]["judge_prompt"] == MM_VET.shipped_text()
    assert JudgeSpec.model_validate(json.loads(spec.model_dump_json())) == spec
    assert "judge_prompt" not in MM_VET.canonical()


def test_a_prompt_file_counts_by_its_text(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(OFFICIAL + "\n")
    first, second = (MmVet(name="mm_vet", judge_prompt=str(tmp_path / name)) for name in ("a.txt", "b.txt"))
    assert first == second
    assert first.judge_prompt == OFFICIAL
    (tmp_path / "a.txt").unlink()
    assert validate(MmVet, first.model_dump(), "again") == first  # what was read is not looked up again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Grade $answers", r"unknown \$'?answers"),
        ("Grade $answer for $5", "a lone \\$"),
        ("Grade $question", r"does not say where \$answer stands"),
        ("official.txt", "judge_prompt: cannot be read: No such file"),
        ("official", r"does not say where \$answer stands"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        validate(MmVet, {"name": "mm_vet", "judge_prompt": text}, "grid.yaml")


def test_every_place_of_every_shipped_prompt_is_filled():
    for benchmark in (MM_VET, Mmhal(name="mmhal"), Shr(name="shr")):
        assert type(benchmark)(name=benchmark.name, judge_prompt=benchmark.shipped_text()).judge_prompt
        assert all(f"${place}" in benchmark.shipped_text() for place in benchmark.places)


# ---- several verdicts in one reply


def test_a_judgement_may_be_a_list(standin, tmp_path):
    questions = [Question(name, ("a.jpg",), {}, {"regions": "r\n", "facts": ""}) for name in ("1", "2", "3")]
    standin.answer = lambda body: "Judgement:\n1. correct: yes\n2. hallucination: no"
    rows, summary, _ = judge(
        tmp_path, standin, Shr(name="shr"), questions=questions, answers=["A boat. A car.", "...", "One. Two. Three."]
    )
    assert [row["judgements"] for row in rows] == [[["correct", "hallucination"]], [], [None]]
    assert summary["dropped"] == {"it has another number of verdicts than there are sentences": 1}
    assert (summary["answers"], summary["judgements"]) == (3, 2)
