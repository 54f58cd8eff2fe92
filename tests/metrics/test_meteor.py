import os
import random
import signal
import time

import pytest

from cwdpo.base.errors import NotAvailable
from cwdpo.metrics.meteor import Meteor, kept_meteor, meteor_of


@pytest.fixture(scope="module")
def meteor():
    # A bare container has no locale: METEOR must read UTF-8 all the same.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")
        with Meteor() as running:
            yield running


def is_running(meteor):
    return meteor._process.poll() is None


def random_caption(generator):
    words = [
        "a",
        "the",
        "man",
        "men",
        "dog",
        "horses",
        "running",
        "run",
        "ran",
        "on",
        "in",
        "of",
        "house",
        "home",
        "big",
    ]
    return " ".join(generator.choices(words, k=generator.randint(0, 7)))


def test_scores_follow_from_statistics(meteor):
    generator = random.Random(0)
    rows = [
        meteor.statistics(random_caption(generator), [random_caption(generator) for _ in range(3)]) for _ in range(200)
    ]
    rows += [meteor.statistics("a red bus", ["a red bus"]), meteor.statistics("", ["a"]), meteor.statistics("", [""])]
    corpus, scores = meteor.score(rows)
    assert scores[-3:] == [1.0, 0.0, 0.0]
    assert [meteor_of(row) for row in rows] == pytest.approx(scores, abs=1e-12)
    assert meteor_of([sum(counts) for counts in zip(*rows, strict=True)]) == pytest.approx(corpus, abs=1e-12)


def test_score_by_hand(meteor):
    # "dog ran" of "the dog ran home": P = 1; R = (0.75 * 2) / (0.75 * 3 + 0.25 * 1) = 0.6; one chunk of two matches.
    row = meteor.statistics("dog ran", ["the dog ran home"])
    f_mean = 1.0 * 0.6 / (0.85 * 1.0 + 0.15 * 0.6)
    assert meteor_of(row) == pytest.approx(f_mean * (1 - 0.6 * (1 / 2) ** 0.2))


def test_the_best_reference_counts(meteor):
    assert meteor.statistics("a dog", ["two cats", "a dog", "a bus"]) == meteor.statistics("a dog", ["a dog"])


@pytest.mark.parametrize("odd", ["a ||| b", "a\nb", "Café 日本語 🙂", "\ud83d", "   "])
def test_odd_text_does_not_break_the_protocol(meteor, odd):
    meteor.statistics(odd, ["a b", odd])
    assert meteor.statistics("a b", ["a b"])[:2] == [2.0, 2.0]


def test_accents_are_read_as_utf8(meteor):
    assert meteor_of(meteor.statistics("café", ["café"])) == 1.0
    assert meteor_of(meteor.statistics("café", ["cafè"])) == 0.0


def test_what_meteor_refuses_is_reported(meteor):
    with pytest.raises(NotAvailable, match="METEOR answered: Error: specify hypothesis"):
        meteor.statistics("a", [])


def test_an_exception_inside_ends_the_process():
    with pytest.raises(KeyError), Meteor() as meteor:
        raise KeyError
    assert not is_running(meteor)


def test_a_killed_process_is_reported_at_once():
    start = time.monotonic()
    with Meteor() as meteor:
        os.kill(meteor._process.pid, signal.SIGKILL)
        with pytest.raises(NotAvailable, match="METEOR died"):
            meteor.statistics("a", ["b"])
    assert time.monotonic() - start < 30


def test_a_stopped_process_is_killed_when_late():
    with Meteor(timeout=0.2) as meteor:
        os.kill(meteor._process.pid, signal.SIGSTOP)
        with pytest.raises(NotAvailable, match=r"no answer within 0\.2 s"):
            meteor.statistics("a", ["b"])
    assert not is_running(meteor)


def test_a_blocked_write_ends_too(fake_java):
    fake_java("exec sleep 60")
    start = time.monotonic()
    with pytest.raises(NotAvailable, match="no answer within"), Meteor(timeout=0.2) as meteor:
        meteor.statistics("a" * 2**20, ["b"])
    assert time.monotonic() - start < 30


def test_a_flood_on_stderr_blocks_nothing(fake_java):
    fake_java("head -c 1000000 /dev/zero >&2; echo; echo 'Exception: no heap' >&2; exit 1")
    with pytest.raises(NotAvailable, match=r"METEOR died.*Exception: no heap"), Meteor(timeout=20) as meteor:
        meteor.score([[0.0] * 23])


def test_a_java_of_another_machine_is_not_available(fake_java, tmp_path):
    fake_java("")
    (tmp_path / "bin" / "java").write_bytes(b"\x7fELF of another architecture")
    with pytest.raises(NotAvailable, match="Java does not run"), Meteor():
        pass


def test_a_missing_java_is_not_available(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(NotAvailable, match="Java not found"), Meteor():
        pass


def test_a_kept_meteor_serves_again_and_a_failed_one_does_not(monkeypatch):
    monkeypatch.setattr("cwdpo.metrics.meteor._idle", [])
    with kept_meteor() as first:
        before = first.statistics("a cat sits", ["the cat sat down"])
    with kept_meteor() as second:
        assert second is first
        assert second.statistics("a cat sits", ["the cat sat down"]) == before
    with pytest.raises(KeyError), kept_meteor():
        raise KeyError
    assert first._process.poll() is not None
    with kept_meteor() as third:
        assert third is not first
