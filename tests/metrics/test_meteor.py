import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cwdpo.base.errors import NotAvailable
from cwdpo.metrics.meteor import HEAP_MB, Meteor, kept_meteor, meteor_of


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


@pytest.fixture
def none_up(monkeypatch):
    """No METEOR kept from a test before, none left to the next."""
    up = []
    monkeypatch.setattr("cwdpo.metrics.meteor._up", up)
    yield
    for running in up:
        running.close()


def test_a_kept_meteor_serves_again_and_a_failed_one_does_not(none_up, fake_java):
    fake_java('while read line; do echo "$$"; done')
    with kept_meteor() as first:
        process = first._ask("who?", replies=1)
    with kept_meteor() as second:
        assert second is first
        assert second._ask("who?", replies=1) == process
    with pytest.raises(KeyError), kept_meteor():
        raise KeyError
    assert first._process.poll() is not None
    with kept_meteor() as third:
        assert third is not first


def test_threads_share_one_meteor(none_up, fake_java):
    fake_java('while read line; do echo "$$"; done')
    using, most = [], []

    def use(_):
        with kept_meteor() as meteor:
            using.append(meteor)
            most.append(len(using))
            process = meteor._ask("who?", replies=1)
            using.remove(meteor)
        return process[0]

    with ThreadPoolExecutor(8) as pool:
        processes = list(pool.map(use, range(24)))
    assert len(set(processes)) == 1
    assert max(most) == 1


def test_what_is_used_inside_itself_is_the_same_and_fails_once(none_up, fake_java):
    fake_java("exec sleep 60")
    with kept_meteor() as outer, kept_meteor() as inner:
        assert inner is outer
    assert is_running(outer)
    with pytest.raises(KeyError), kept_meteor(), kept_meteor():
        raise KeyError
    assert not is_running(outer)


def test_long_captions_fit_into_the_memory(meteor):
    generator = random.Random(0)
    texts = [" ".join(random_caption(generator) for _ in range(60)) for _ in range(6)]
    assert HEAP_MB <= 1024
    assert meteor.statistics(texts[0], texts[1:])[0] > 150
    status = Path(f"/proc/{meteor._process.pid}/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 1_300_000  # kB: the heap's limit and what Java takes beside it
