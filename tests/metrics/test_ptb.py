import os
import time
from pathlib import Path

import pytest

from cwdpo.base.errors import NotAvailable
from cwdpo.metrics.java import jar
from cwdpo.metrics.ptb import tokenize

AWKWARD = [
    "A man.",
    "",
    "   ",
    "...",
    "Don't -- the dogs' (big) [red] {one} & more; it's 5:30 p.m.!?",
    "He said “hello” and ``bye'' 'quoted'",
    "U.S.",
    "The U.S.",
    "The end of this one decides the one before",
    "Assn.",
    "A 1 1/2 inch  hole, 3.5 x $4,000.00 and 50%",
    "Café naïve 日本語 🙂 façade",
    "no\xa0break\u3000wide",
    "soft\xadhyphen \ufeffbom zero\u200bwidth",
    "tab\tbetween",
    "<b>tag</b> http://example.com/a?b=c me@example.com #hash @name",
    "| ||| pipe",
    "&amp; &lt; cannot gonna e.g. i.e. etc.",
    "end-of-line hyphen-",
    "(415) 555-1234",
    ":-) <3 --- ---- .. ....",
    "",
]


@pytest.mark.skipif(not os.access(jar("tokenizer"), os.W_OK), reason="pycocoevalcap writes into its own folder")
def test_equal_to_pycocoevalcap_on_awkward_captions():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    captions = [*AWKWARD, "last one"]
    expected = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(captions)})
    assert tokenize(captions) == [text for i in range(len(captions)) for text in expected[i]]


def test_a_caption_does_not_depend_on_its_neighbours():
    together = tokenize(AWKWARD)
    assert tokenize(AWKWARD[::-1]) == together[::-1]


SEPARATORS = ["\r", "\n", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\n\n"]


def test_no_line_separator_shifts_the_captions_after_it():
    captions = [text for separator in SEPARATORS for text in (f"A red{separator}bus.{separator}", "Two dogs.")]
    assert tokenize(captions) == ["a red bus", "two dogs"] * len(SEPARATORS)


def test_half_an_emoji_is_no_error():
    assert tokenize(["a \ud83d b", "c"]) == ["a b", "c"]


def test_utf8_whatever_the_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    assert tokenize(["Café"]) == ["café"]


def test_no_captions_need_no_java(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert tokenize([]) == []


def test_a_late_tokeniser_is_stopped(fake_java):
    fake_java("exec sleep 60")
    start = time.monotonic()
    with pytest.raises(NotAvailable, match=r"more than 0\.2 s"):
        tokenize(["a"], timeout=0.2)
    assert time.monotonic() - start < 30


def test_a_failing_tokeniser_says_why(fake_java):
    fake_java("echo 'Error occurred during initialization of VM' >&2; echo 'Could not reserve heap' >&2; exit 1")
    with pytest.raises(NotAvailable, match=r"exit code 1.*initialization of VM; Could not reserve heap"):
        tokenize(["a"])


def test_nothing_is_written_beside_the_jar():
    folder = Path(jar("tokenizer"))
    before = sorted(folder.iterdir()), folder.stat().st_mtime_ns
    tokenize(["a dog"])
    assert (sorted(folder.iterdir()), folder.stat().st_mtime_ns) == before
