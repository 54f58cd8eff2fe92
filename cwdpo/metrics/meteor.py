"""METEOR 1.5 from pycocoevalcap's jar, in a process that always ends.

pycocoevalcap's own wrapper hangs for ever after any exception and never reads the program's stderr. Here a
watchdog kills the process when a reply is late, stderr goes to a file, and leaving the context kills it in any case.

A segment is one candidate with its references. Its *statistics* are 23 counts: candidate and reference length,
function words of each; then for each of the four matchers (exact, stem, synonym, paraphrase) matched content words
of candidate and reference and matched function words of each; then chunks, and matched words of candidate and
reference. They add up over segments, so a corpus can be resampled without aligning anything again (`meteor_of`).
"""

from __future__ import annotations

import atexit
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import IO

from cwdpo.base.errors import NotAvailable
from cwdpo.metrics.java import jar, java_command, java_complaint

STATISTICS = 23

HEAP_MB = 1024
"""A limit: it takes 0.6 GB in all, most of it the paraphrase table, however many and however long the captions are."""

# Parameters of the English "rank" task, those of the jar's `-l en`: Denkowski and Lavie, "Meteor Universal" (2014).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHER_WEIGHTS = (1.0, 0.6, 0.8, 0.6)


class Meteor:
    """A running METEOR; use it as `with Meteor() as meteor:`. One thread only.

    `timeout` is the longest wait for one reply, in seconds; the first includes loading the paraphrase table (about
    5 s, 0.6 GB). Everything raises `NotAvailable` when Java is missing, dies or is late.
    """

    def __init__(self, timeout: float = 300.0, heap_mb: int = HEAP_MB) -> None:
        self._timeout = timeout
        self._heap_mb = heap_mb
        self._late = False

    def __enter__(self) -> Meteor:
        command = [*java_command(self._heap_mb), "-jar", str(jar("meteor/meteor-1.5.jar"))]
        command += ["-", "-", "-stdio", "-l", "en", "-norm"]
        self._stderr: IO[bytes] = tempfile.TemporaryFile()
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._stderr)
        except OSError as error:
            self._stderr.close()
            raise NotAvailable(f"Java does not run: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the process, if it still runs, and release what it held."""
        self._process.kill()
        # Leaving the Popen closes the pipes and waits; what was never sent cannot be flushed to a dead reader.
        with suppress(OSError), self._process:
            pass
        self._stderr.close()

    def statistics(self, candidate: str, references: Sequence[str]) -> list[float]:
        """The 23 counts of one segment: tokenised `candidate` against the best matching of its `references`."""
        texts = [*references, candidate]
        reply = self._ask(" ||| ".join(["SCORE", *(_field(text) for text in texts)]), replies=1)[0]
        return _additive(self._numbers(reply))

    def score(self, statistics: Sequence[Sequence[float]]) -> tuple[float, list[float]]:
        """Corpus score and the score of every segment, all in [0, 1], from the segments' statistics."""
        rows = [" ".join(str(float(count)) for count in row) for row in statistics]
        replies = self._ask(" ||| ".join(["EVAL", *rows]), replies=len(rows) + 1)
        scores = [self._numbers(reply)[0] for reply in replies]
        return scores[-1], scores[:-1]

    def _ask(self, line: str, replies: int) -> list[str]:
        """Send one line and read `replies` lines; the watchdog's kill ends a blocked write or read."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(self._timeout, self._kill_late)
        watchdog.start()
        try:
            self._process.stdin.write(f"{line}\n".encode("utf-8", "replace"))
            self._process.stdin.flush()
            found = [self._process.stdout.readline() for _ in range(replies)]
        except OSError as error:
            raise self._failure() from error
        finally:
            watchdog.cancel()
        if not all(reply.endswith(b"\n") for reply in found):
            raise self._failure()
        return [reply.decode("utf-8", "replace").strip() for reply in found]

    def _kill_late(self) -> None:
        self._late = True
        self._process.kill()

    def _failure(self) -> NotAvailable:
        self._process.kill()
        code = self._process.wait()
        if self._late:
            return NotAvailable(f"METEOR gave no answer within {self._timeout:g} s and was stopped")
        self._stderr.seek(0)
        complaint = java_complaint(self._stderr.read().decode(errors="replace"))
        return NotAvailable(f"METEOR died (exit code {code}): {complaint}")

    @staticmethod
    def _numbers(reply: str) -> list[float]:
        try:
            return [float(number) for number in reply.split()]
        except ValueError:
            raise NotAvailable(f"METEOR answered: {reply}") from None


_kept = ExitStack()
_up: list[Meteor] = []
"""The one that runs, if any."""
_in_use = threading.RLock()
atexit.register(_kept.close)


@contextmanager
def kept_meteor() -> Iterator[Meteor]:
    """A METEOR that stays up for the next use in this process: loading takes longer than scoring 1,000 captions.

    There is never more than one: another thread waits for it. It ends with the process, and at once when something is
    raised inside.
    """
    with _in_use:
        if not _up:
            _up.append(_kept.enter_context(Meteor()))
        meteor = _up[0]
        try:
            yield meteor
        except BaseException:
            meteor.close()
            _up.clear()
            raise


def _field(text: str) -> str:
    """`text` as one field of a line of the protocol, cleaned as in pycocoevalcap/meteor/meteor.py."""
    return text.replace("|||", "").replace("\n", " ").replace("  ", " ")


def _additive(counts: list[float]) -> list[float]:
    """METEOR counts no chunk for a segment equal to its reference; with 0 here, plain sums give the corpus score."""
    perfect = counts[20] == 1 and counts[21] == counts[0] and counts[22] == counts[1]
    return [*counts[:20], 0.0 if perfect else counts[20], *counts[21:]]


def meteor_of(statistics: Sequence[float]) -> float:
    """METEOR in [0, 1] of one segment's statistics, or of a corpus' from their sums: the jar's value without the jar.

    Denkowski and Lavie (2014), section 2: `(1 - penalty) * F_mean`, with P and R weighted over matchers and by
    `delta` between content and function words, and `penalty = gamma * (chunks / matches) ** beta`.
    """
    length, reference_length, function, reference_function = statistics[:4]
    matched = _matched(statistics[4:20:4], statistics[6:20:4])
    reference_matched = _matched(statistics[5:20:4], statistics[7:20:4])
    if matched == 0 or reference_matched == 0:
        return 0.0
    precision = matched / _mix(length - function, function)
    recall = reference_matched / _mix(reference_length - reference_function, reference_function)
    f_mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
    chunks, words, reference_words = statistics[20:]
    return f_mean * (1 - _GAMMA * (2 * chunks / (words + reference_words)) ** _BETA)


def _matched(content: Sequence[float], function: Sequence[float]) -> float:
    return sum(w * _mix(c, f) for w, c, f in zip(_MATCHER_WEIGHTS, content, function, strict=True))


def _mix(content: float, function: float) -> float:
    return _DELTA * content + (1 - _DELTA) * function
