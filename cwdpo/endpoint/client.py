"""One call to an endpoint, made until it is answered: rate limits, faults and absences are waited out.

The errors of the `openai` client hold the request with its key; none of them leaves this file, not even as a cause.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from cwdpo.base.errors import ConfigError, CwdpoError, NotAvailable
from cwdpo.endpoint.replies import Reply, Request
from cwdpo.endpoint.settings import Endpoint, check_address

if TYPE_CHECKING:
    from openai import APIError, APIStatusError
    from tenacity import RetryCallState

LONGEST_PAUSE = 60.0
"""Seconds between two tries, where the endpoint does not ask for more."""
STRANGE = 3
"""Tries after which an endpoint that has never answered as chat completions do is given up, whatever the patience."""
NAMELESS = 60.0
"""Seconds after which a host whose name has never been known here is given up, whatever the patience."""
SAID_EVERY = 60.0
"""Seconds between two lines, and two events, that say that it does not answer."""
SHOWN = 300
"""Characters of a server's message that are shown."""
SECRET = 16
"""Length from which on a key is looked for in replies, too: a shorter one is no secret, but may be a word of them."""


class Refused(Exception):
    """The endpoint does not take this one request; the text says why."""


class _Unwell(Exception):
    """The endpoint could not answer now.

    Attributes:
        after: how many seconds it asks to be left alone.
        strange: it answered otherwise than chat completions do.
        nameless: nobody knows its host name.
    """

    def __init__(self, why: str, after: float | None = None, strange: bool = False, nameless: bool = False) -> None:
        super().__init__(why)
        self.after, self.strange, self.nameless = after, strange, nameless


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """What is read of a chat completion."""

    choices: list[_Choice]
    usage: _Usage | None = None

    def reply(self) -> Reply:
        choice, usage = self.choices[0], self.usage or _Usage()
        text = choice.message.content or choice.message.refusal or ""
        finish = "refusal" if choice.message.refusal else choice.finish_reason or "stop"
        text = text.encode("utf-8", "replace").decode()  # half a character would break every file it goes to
        return Reply(text, finish, usage.prompt_tokens, usage.completion_tokens)


def key_of(endpoint: Endpoint) -> str:
    """The key that the environment holds; empty where none is needed.

    Raises:
        NotAvailable: there is none, or one that no header can hold.
    """
    key = os.environ.get(endpoint.key, "").strip()
    if not key and endpoint.base_url is None:
        raise NotAvailable(
            f"the environment variable {endpoint.key} is not set here; it holds the key of the endpoint; jobs in a "
            f"container get it where `container: {{variables: [{endpoint.key}]}}` of the cluster profile names it "
            "(not in `environment`, whose values are written to files)"
        )
    if not (key.isascii() and key.isprintable()):
        raise NotAvailable(f"the environment variable {endpoint.key} holds characters that no key has")
    return key


def address_of(endpoint: Endpoint) -> str | None:
    """Where it lies: what is set, else what OPENAI_BASE_URL names; None is OpenAI.

    Raises:
        NotAvailable: the variable holds no address, or one with a secret in it.
    """
    address = endpoint.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None
    if address is not None:
        try:
            check_address(address, "the environment variable OPENAI_BASE_URL")
        except ValueError as error:
            raise NotAvailable(str(error)) from None
    return address


class Client:
    """Calls to one endpoint.

    Args:
        event: reports, now and then, that it does not answer; see `StageContext`.
    """

    def __init__(self, endpoint: Endpoint, event: Callable[..., None]) -> None:
        from openai import AsyncOpenAI

        logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line a call
        self.endpoint = endpoint
        self._key = key_of(endpoint)
        self._event = event
        self._openai = AsyncOpenAI(
            api_key=self._key or "none", base_url=address_of(endpoint), timeout=endpoint.timeout, max_retries=0
        )
        self._takes_schema: bool | None = None
        self._answered = False
        self._named = False
        self._said = -SAID_EVERY

    async def close(self) -> None:
        """End its connections."""
        await self._openai.close()

    @property
    def name(self) -> str:
        """For messages."""
        return f"model '{self.endpoint.model}' at {self._openai.base_url}"

    async def ask(self, request: Request) -> Reply:
        """The reply to a request, after as many tries as `patience` has room for.

        Raises:
            Refused: the endpoint does not take this request.
            ConfigError: it does not know the model.
            NotAvailable: the key, the account or the patience is not enough.
        """
        from tenacity import AsyncRetrying, retry_if_exception_type

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Unwell),
            stop=self._enough,
            wait=_pause,
            before_sleep=self._say,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._reply, request)
        except _Unwell as error:
            failed = error
        else:
            return reply
        raise NotAvailable(f"{self.name}: {failed}; given up ({self._why_given_up(failed)})")

    def _why_given_up(self, error: _Unwell) -> str:
        if error.nameless and not self._named:
            return "is this node online? `ask: {partition: ...}` of the cluster profile says where jobs that ask run"
        return f"endpoint.patience is {self.endpoint.patience:g} s"

    def _enough(self, state: RetryCallState) -> bool:
        """Whether to give up: patience would not last to the next try, or it answers otherwise than it should."""
        error = state.outcome.exception() if state.outcome else None
        strange = isinstance(error, _Unwell) and error.strange and not self._answered
        if strange and state.attempt_number >= STRANGE:
            return True
        patience = self.endpoint.patience if self._named else min(NAMELESS, self.endpoint.patience)
        return (state.seconds_since_start or 0) + state.upcoming_sleep > patience

    def _say(self, state: RetryCallState) -> None:
        """A line and an event now and then, not one for each try of each call."""
        if state.attempt_number > 1 and time.monotonic() - self._said >= SAID_EVERY:
            self._said = time.monotonic()
            why = state.outcome.exception() if state.outcome else ""
            print(f"{self.name}: {why}; trying for {self.endpoint.patience:g} s", file=sys.stderr, flush=True)
            self._event("waiting", model=self.endpoint.model, why=str(why), patience=self.endpoint.patience)

    async def _reply(self, request: Request) -> Reply:
        """One try; with the schema if there is one and the endpoint takes schemas, which shows at the first call."""
        if request.schema is None or self._takes_schema is False:
            return await self._call(request, schema=False)
        try:
            reply = await self._call(request, schema=True)
        except Refused:
            if self._takes_schema:
                raise
            reply = await self._call(request, schema=False)
            self._takes_schema = False if self._takes_schema is None else self._takes_schema
        else:
            self._takes_schema = True
        return reply

    async def _call(self, request: Request, schema: bool) -> Reply:
        from openai import APIError

        try:
            raw = await self._openai.chat.completions.with_raw_response.create(**self._arguments(request, schema))
            body = raw.http_response.content
        except APIError as error:
            failure = self._explained(error)
            self._named = self._named or not (isinstance(failure, _Unwell) and failure.nameless)
        else:
            self._named = True
            return self._read(body)
        raise failure

    def _arguments(self, request: Request, schema: bool) -> dict[str, Any]:
        one = self.endpoint
        settings = {"temperature": one.temperature, "top_p": one.top_p, "seed": one.seed}
        form = {"name": "reply", "strict": True, "schema": request.schema}
        return {
            "model": one.model,
            "messages": list(request.messages),
            "max_tokens": one.max_tokens,
            **{name: value for name, value in settings.items() if value is not None},
            **({"response_format": {"type": "json_schema", "json_schema": form}} if schema else {}),
        }

    def _explained(self, error: APIError) -> Exception:
        """What an error of the client means, without anything of the request."""
        from openai import APIStatusError, APITimeoutError

        if isinstance(error, APIStatusError):
            return self._of_status(error)
        if isinstance(error, APITimeoutError):
            return _Unwell(f"no answer within {self.endpoint.timeout:g} s")
        why = self._shown(error.__cause__ or error.message)
        return _Unwell(f"cannot be reached ({why})", nameless=_is_nameless(error))

    def _of_status(self, error: APIStatusError) -> Exception:
        status, message = error.status_code, self._shown(error.response.text or error.message)
        if status == 404:
            return ConfigError(f"{self.name}: not found: {message}")
        if status in (401, 402, 403) or error.code == "insufficient_quota":
            return self._locked(status)
        if status in (408, 409, 425, 429) or status >= 500:
            return _Unwell(f"status {status}: {message}", seconds_asked(error.response.headers))
        return Refused(f"{self.name}: status {status}: {message}")

    def _locked(self, status: int) -> CwdpoError:
        """The server's message is left out: it may show a part of the key."""
        if status in (402, 429):
            return NotAvailable(f"{self.name}: status {status}: the account behind {self.endpoint.key} is used up")
        what = "a key that it refuses" if self._key else "no key"
        return NotAvailable(f"{self.name}: status {status}: the environment variable {self.endpoint.key} holds {what}")

    def _shown(self, message: object) -> str:
        text = " ".join(str(message).split())
        return (text.replace(self._key, "[key]") if self._key else text)[:SHOWN]

    def _read(self, body: bytes) -> Reply:
        if len(self._key) >= SECRET:
            body = body.replace(self._key.encode(), b"[key]")
        try:
            reply = _Completion.model_validate_json(body).reply()
        except (ValidationError, IndexError):
            shown = self._shown(body.decode("utf-8", "replace"))
        else:
            self._answered = True
            return reply
        raise _Unwell(f"its answer is no chat completion: {shown or 'empty'}", strange=True)


def _is_nameless(error: BaseException | None) -> bool:
    """Whether an error comes of a host name that nobody knows."""
    while error is not None and not isinstance(error, socket.gaierror):
        error = error.__cause__ or error.__context__
    return error is not None


def _pause(state: RetryCallState) -> float:
    """Seconds to the next try: what the endpoint asks for, else ever more, spread so that calls do not come at once."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Unwell) and error.after is not None:
        return error.after + random.uniform(0, 0.1 * error.after)
    return min(LONGEST_PAUSE, 0.5 * 2.0 ** min(state.attempt_number, 10)) * random.uniform(0.5, 1.0)


def seconds_asked(headers: Mapping[str, str]) -> float | None:
    """What Retry-After says: seconds or a date; None where it is not there or neither."""
    from email.utils import parsedate_to_datetime

    text = headers.get("retry-after", "")
    try:
        return min(max(0.0, float(text)), 1e6)
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
