"""Asking many questions at a time: each reply is kept before it is used, and the order of replies changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, Interrupted, NotAvailable
from cwdpo.negatives.llm.client import Client, Refused
from cwdpo.negatives.llm.replies import Replies, Reply, Request
from cwdpo.negatives.llm.spending import Spending
from cwdpo.negatives.llm.task import Question, Settled, Task

LOOK_SECONDS = 0.2
"""How often it looks whether it shall stop."""
GRACE_SECONDS = 2.0
"""How long calls under way may still take once it shall stop: they are paid for."""
REPORT_SECONDS = 2.0
"""How often progress is reported."""
REFUSALS = 10
"""Requests refused, with no other taken, after which it is not the requests that are wrong."""
TOO_MUCH = "refused by the endpoint"


class _Enough(Exception):
    """Nothing more may be asked."""


class Asking:
    """Settles the questions of a stage.

    Attributes:
        counts: replies asked for, found and refused; records settled.
        refusal: what the endpoint said when it last refused a request.
    """

    def __init__(self, context: StageContext, task: Task, replies: Replies) -> None:
        self._context, self._task, self._replies = context, task, replies
        self.spending = Spending(task.endpoint)
        self.counts = Counter[str]()
        self.refusal = ""
        self._settled: list[list[Settled]] = []
        self._closing = False
        self._flying: dict[str, asyncio.Task[Reply]] = {}
        self._used: set[str] = set()
        self._client: Client | None = None
        self._reported = 0.0

    def all(self, questions: Iterable[Sequence[Question | str]], total: int) -> list[list[Settled]]:
        """How every question of each record ended, in order.

        Args:
            total: how many records there are.

        Raises:
            Interrupted: a signal asked to stop; replies are kept.
            NotAvailable: the budget is used up, or the endpoint cannot be used.
            ConfigError: the endpoint takes none of the requests.
        """
        self._settled = [[] for _ in range(total)]
        asyncio.run(self._all(enumerate(questions)))
        return self._settled

    async def _all(self, questions: Iterator[tuple[int, Sequence[Question | str]]]) -> None:
        workers = [asyncio.create_task(self._work(questions)) for _ in range(self._task.endpoint.concurrency)]
        try:
            await self._watch(workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if self._client:
                await self._client.close()
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
            f"the budget of model '{self._task.endpoint.model}' is used up ({self.spending}); {kept}; "
            "the same command goes on with a larger endpoint.budget, which is no part of any identity"
        )

    async def _work(self, questions: Iterator[tuple[int, Sequence[Question | str]]]) -> None:
        """Settle the questions of one record after the other, as long as there are any for all workers."""
        for index, own in questions:
            try:
                self._settled[index] = [await self._settle(question) for question in own]
            except _Enough:
                return
            self.counts["records"] += 1
            self._report(REPORT_SECONDS)
            await asyncio.sleep(0)  # where all is kept nothing else lets the others, and a signal, through

    async def _settle(self, question: Question | str) -> Settled:
        if isinstance(question, str):
            return Settled(None, question, asked=False)
        images = self._context.inputs.get("images", self._context.out)
        replies: list[Reply] = []
        while isinstance(step := self._task.next_step(question, replies, images), Request):
            try:
                replies.append(await self._reply(step))
            except Refused as error:
                self._count_refusal(str(error))
                return Settled(None, TOO_MUCH, len(replies))
        return step

    async def _reply(self, request: Request) -> Reply:
        """From what is kept, from a call under way for an equal request, or from a new call."""
        name = request.digest
        reply = self._replies.get(request)
        if reply is not None or name in self._flying:
            self.counts["cached"] += 1
        if reply is None:
            if name not in self._flying:
                self._flying[name] = asyncio.create_task(self._asked(request))
                self._flying[name].add_done_callback(lambda _: self._flying.pop(name))
            reply = await self._flying[name]
        if name not in self._used:
            self._used.add(name)
            self.spending.add(reply)
        return reply

    async def _asked(self, request: Request) -> Reply:
        if self._closing or self.spending.over():
            self._closing = True
            raise _Enough
        self._client = self._client or Client(self._task.endpoint)
        reply = await self._client.ask(request)
        self._replies.put(request, reply)
        self.counts["asked"] += 1
        return reply

    def _count_refusal(self, why: str) -> None:
        """Raise `ConfigError` when requests are refused from the start: then it is the model or the settings."""
        self.counts["refused"] += 1
        self.refusal = why
        if self.counts["refused"] >= REFUSALS and not self.counts["asked"] + self.counts["cached"]:
            raise ConfigError(f"{REFUSALS} requests were refused and none was taken; the last one: {why}")

    def _report(self, every: float = 0.0) -> None:
        """Report progress, unless it is less than `every` seconds since the last time."""
        now = time.monotonic()
        if now - self._reported >= every:
            self._reported = now
            self._context.check()
            self._context.event("progress", done=self.counts["records"], total=len(self._settled))
