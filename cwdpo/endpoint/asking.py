"""Asking many questions at a time: each reply is kept before it is used, and the order of replies changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, CwdpoError, DataError, Interrupted, NotAvailable
from cwdpo.endpoint.client import Client, Refused
from cwdpo.endpoint.exchange import Settled
from cwdpo.endpoint.replies import ASKED, Replies, Reply, Request
from cwdpo.endpoint.settings import Endpoint
from cwdpo.endpoint.spending import Spending

LOOK_SECONDS = 0.2
"""How often it looks whether it shall stop."""
GRACE_SECONDS = 2.0
"""How long calls under way may still take once it shall stop: they are paid for."""
REPORT_SECONDS = 2.0
"""How often progress is reported."""
REFUSALS = 10
"""Requests refused, with no other taken, after which it is not the requests that are wrong."""
TOO_MUCH = "refused by the endpoint"
FOLDER = "llm"
"""Of the cache: where replies are kept."""
UNUSABLE = 50
"""Different questions of which nothing could be used, with no other settled, after which it asks no more."""
WINDOW = 1000
"""Records that may be settled beyond the next one to hand over: all that is held of them."""

Question = TypeVar("Question")
Question_contra = TypeVar("Question_contra", contravariant=True)

Take = Callable[[int, Sequence[Settled]], None]
"""Is given the number of a record, and how its questions ended."""


class _Enough(Exception):
    """Nothing more may be asked."""


class _Fruitless(Exception):
    """Nothing can be used of what the endpoint says."""


class Asker(Protocol[Question_contra]):
    """Knows what to say to whom."""

    @property
    def endpoint(self) -> Endpoint:
        """Who is asked."""

    def next_step(self, question: Question_contra, replies: Sequence[Reply], images: Path) -> Request | Settled:
        """What comes after the replies so far; depends on nothing else.

        Args:
            images: folder of the images, read where they are sent.
        """


class Asking(Generic[Question]):
    """Settles the questions of a stage.

    Attributes:
        counts: replies asked for, found and refused; records settled.
    """

    def __init__(self, context: StageContext, asker: Asker[Question], replies: Replies) -> None:
        self._context, self._asker, self._replies = context, asker, replies
        self.spending = Spending(asker.endpoint)
        self.counts = Counter[str]()
        self._total = self._next = 0
        self._ahead: dict[int, list[Settled]] = {}
        self._fruitful = False
        self._failed: dict[str, Settled] = {}
        self._refusal = ""
        self._closing = False
        self._flying: dict[str, asyncio.Task[Reply]] = {}
        self._used: set[str] = set()
        self._client: Client | None = None
        self._reported = 0.0
        path = context.partial / ASKED
        self._asked_before = files.read_json(path)["replies"] if path.exists() else 0

    def all(self, questions: Iterable[Sequence[Question | str]], total: int, take: Take) -> None:
        """Settle every question of each record.

        Args:
            total: how many records there are.
            take: called for each record, in order.

        Raises:
            Interrupted: a signal asked to stop; replies are kept.
            NotAvailable: the budget is used up, or the endpoint cannot be used.
            ConfigError: the endpoint takes none of the requests.
            DataError: of none of the first `UNUSABLE` questions anything could be used.
        """
        self._total, self._take = total, take
        with suppress(_Fruitless):
            asyncio.run(self._all(enumerate(questions)))
            return
        reasons = Counter(one.reason for one in self._failed.values())
        raise self.nothing_usable(reasons, next(iter(self._failed.values())).said)

    def nothing_usable(self, reasons: Mapping[str, int], said: str) -> CwdpoError:
        """The error that says so; what is kept of the questions is dropped where the endpoint may be to blame.

        Args:
            reasons: how many questions ended so.
            said: the beginning of a reply.
        """
        why = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()))
        dropped = 0 if self._fruitful else self._replies.drop(self._used)
        kept = f"{self._context.cache / FOLDER} keeps none of {dropped} replies: the same command asks again"
        after = f"; {kept}" if dropped else ""
        if self._refusal:
            return ConfigError(f"nothing could be used: {why}; the last refusal: {self._refusal}{after}")
        return DataError(f"nothing could be used of what the endpoint said: {why}; such as {said!r}{after}")

    async def _all(self, questions: Iterator[tuple[int, Sequence[Question | str]]]) -> None:
        workers = [asyncio.create_task(self._work(questions)) for _ in range(self._asker.endpoint.concurrency)]
        try:
            await self._watch(workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if self._client:
                await self._client.close()
            self._save()
        if self._closing:
            raise self._stopped()
        self._report()

    async def _watch(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the workers; the first error ends all, and a signal too, after a moment."""
        pending = set(workers)
        deadline = float("inf")
        while pending and time.monotonic() < deadline:
            done, pending = await asyncio.wait(pending, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for worker in done:
                worker.result()
            if self._context.stopping() and deadline == float("inf"):
                self._closing, deadline = True, time.monotonic() + GRACE_SECONDS

    def _stopped(self) -> Exception:
        kept = f"{self.counts['asked']} replies of this attempt are kept"
        if self._context.stopping():
            return Interrupted(f"stopped by a signal; {kept}")
        return NotAvailable(
            f"the budget of model '{self._asker.endpoint.model}' is used up ({self.spending}); {kept}; "
            "the same command goes on with a larger endpoint.budget, which is no part of any identity"
        )

    async def _work(self, questions: Iterator[tuple[int, Sequence[Question | str]]]) -> None:
        """Settle the questions of one record after the other, as long as there are any for all workers."""
        for index, own in questions:
            while index >= self._next + WINDOW and not self._closing:
                await asyncio.sleep(LOOK_SECONDS)
            if self._closing:
                return
            try:
                settled = [await self._settle(question) for question in own]
            except _Enough:
                return
            self.counts["records"] += 1
            self._hand_over(index, settled)
            self._report(REPORT_SECONDS)
            await asyncio.sleep(0)  # where all is kept nothing else lets the others, and a signal, through

    def _hand_over(self, index: int, settled: list[Settled]) -> None:
        """Now if it is the next record, and those that waited for it."""
        self._ahead[index] = settled
        while self._next in self._ahead:
            self._take(self._next, self._ahead.pop(self._next))
            self._next += 1

    async def _settle(self, question: Question | str) -> Settled:
        if isinstance(question, str):
            return Settled(None, question, asked=False)
        images = self._context.inputs.get("images", self._context.out)
        replies: list[Reply] = []
        first = ""
        while isinstance(step := self._asker.next_step(question, replies, images), Request):
            first = first or step.digest
            try:
                replies.append(await self._reply(step))
            except Refused as error:
                self._count_refusal(str(error))
                step = Settled(None, TOO_MUCH, len(replies), sound=False)
                break
        self._weigh(first, step)
        return step

    def _weigh(self, request: str, settled: Settled) -> None:
        """Raise `_Fruitless` once many questions failed and none did not; `request` is the first one."""
        if not self._fruitful and len(self._failed) < UNUSABLE:
            self._fruitful = settled.sound
            self._failed = {} if settled.sound else {**self._failed, request: settled}
        if len(self._failed) >= UNUSABLE:
            raise _Fruitless  # also for those that were under way: what is dropped is settled

    async def _reply(self, request: Request) -> Reply:
        """From what is kept, from a call under way for an equal request, or from a new call."""
        name = request.digest
        reply = self._replies.get(request)
        if reply is not None or name in self._flying:
            self.counts["cached"] += 1
        if reply is not None:
            self._use(name, reply)
            return reply
        if name not in self._flying:
            self._flying[name] = asyncio.create_task(self._asked(request))
            self._flying[name].add_done_callback(lambda _: self._flying.pop(name))
        return await self._flying[name]

    def _use(self, name: str, reply: Reply) -> None:
        if name not in self._used:
            self._used.add(name)
            self.spending.add(reply)

    async def _asked(self, request: Request) -> Reply:
        if self._closing or self.spending.over():
            self._closing = True
            raise _Enough
        self._client = self._client or Client(self._asker.endpoint, self._context.event)
        reply = await self._client.ask(request)
        self._replies.put(request, reply)
        self._use(request.digest, reply)
        self.counts["asked"] += 1
        return reply

    def _count_refusal(self, why: str) -> None:
        """Raise `ConfigError` when requests are refused from the start: then it is the model or the settings."""
        self.counts["refused"] += 1
        self._refusal = why
        if self.counts["refused"] >= REFUSALS and not self.counts["asked"] + self.counts["cached"]:
            raise ConfigError(f"{REFUSALS} requests were refused and none was taken; the last one: {why}")

    def _save(self) -> None:
        """Say how many replies all attempts were given: a job that is taken back again and again does get on."""
        files.write_json(self._context.partial / ASKED, {"replies": self._asked_before + self.counts["asked"]})

    def _report(self, every: float = 0.0) -> None:
        """Report progress, unless it is less than `every` seconds since the last time."""
        now = time.monotonic()
        if now - self._reported >= every:
            self._reported = now
            self._save()
            self._context.check()
            self._context.event("progress", done=self.counts["records"], total=self._total)
