"""Penn Treebank tokenisation of captions, token for token what pycocoevalcap's `PTBTokenizer` gives.

The same Java class of the same jar, but fed through stdin: `PTBTokenizer` writes its input into site-packages,
which fails in a read-only image. Its other trap is closed too: a `\\r` or any other line separator inside a caption
shifts all later captions by one line there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from cwdpo.base.errors import NotAvailable
from cwdpo.metrics.java import jar, java_command, java_complaint

TOKENIZER = "PTBTokenizer of stanford-corenlp 3.4.1, lower case, punctuation removed"

HEAP_MB = 512
"""A limit: 150,000 captions take 0.2 GB in all."""

_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
_CLASS = "edu.stanford.nlp.process.PTBTokenizer"

# pycocoevalcap/tokenizer/ptbtokenizer.py, PUNCTUATIONS.
_PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


def tokenize(captions: Sequence[str], timeout: float = 600.0) -> list[str]:
    """Tokenise captions: lower case, no punctuation, tokens joined by single spaces.

    Returns one string for each caption, in order; a caption without words gives `""`. About 20,000 captions a second
    after 0.3 s. `NotAvailable` when Java is missing, fails, or takes more than `timeout` seconds.
    """
    if not captions:
        return []
    lines = _run("".join(f"{_one_line(caption)}\n" for caption in captions), timeout).split("\n")
    assert len(lines) == len(captions) + 1, f"{len(captions)} captions gave {len(lines) - 1} tokenised lines"
    return [_without_punctuation(line) for line in lines[:-1]]


def _one_line(caption: str) -> str:
    """Collapse white space: `split` knows every character that Java takes for the end of a line."""
    return " ".join(caption.split())


def _without_punctuation(line: str) -> str:
    # Only a blank separates tokens: "1 1/2" comes back as one token with a no-break space inside.
    return " ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATION)


def _run(text: str, timeout: float) -> str:
    command = [*java_command(HEAP_MB), "-cp", str(jar(_JAR)), _CLASS, "-preserveLines", "-lowerCase"]
    # A lone surrogate (half an emoji in a JSON escape) has no UTF-8 form and becomes "?".
    content = text.encode("utf-8", "replace")
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise NotAvailable(f"the PTB tokeniser took more than {timeout:g} s and was stopped") from error
    except OSError as error:
        raise NotAvailable(f"Java does not run: {error}") from error
    if done.returncode:
        complaint = java_complaint(done.stderr.decode(errors="replace"))
        raise NotAvailable(f"the PTB tokeniser failed (exit code {done.returncode}): {complaint}")
    return done.stdout.decode("utf-8")
