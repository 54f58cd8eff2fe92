"""OpenAI-compatible servers for tests: one in this process that misbehaves, and transformers' own with a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.files import read_json, read_jsonl
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.records import Record, write_records
from cwdpo.negatives.llm import stage
from cwdpo.negatives.llm.stage import LlmSpec

Answerer = Callable[[Mapping[str, Any]], str]


@dataclass
class Fault:
    """What a server does instead of answering one request.

    Attributes:
        cut: send this many bytes of the answer, then close.
        slow: seconds before it answers as it should.
    """

    status: int = 200
    body: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    slow: float = 0.0


@dataclass
class Standin:
    """A server that answers with what `answer` makes of a request, after the faults it has left.

    Attributes:
        faults: of the next requests, in order.
        always: a fault of every request for which it returns one.
        asked: bodies of all requests.
        keys: their Authorization headers.
        together: most requests under way at a time.
    """

    answer: Answerer
    faults: list[Fault] = field(default_factory=list)
    always: Callable[[Mapping[str, Any]], Fault | None] = lambda body: None
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    usage: Mapping[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 10})
    finish: str = "stop"
    together: int = 0
    url: str = ""
    _here: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def enter(self, body: Mapping[str, Any], key: str | None) -> Fault | None:
        with self._lock:
            self.asked.append(body)
            self.keys.append(key)
            self._here += 1
            self.together = max(self.together, self._here)
            fault = self.always(body)
            return fault or (self.faults.pop(0) if self.faults else None)

    def leave(self) -> None:
        with self._lock:
            self._here -= 1


class _Handler(BaseHTTPRequestHandler):
    standin: Standin
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.standin.enter(body, self.headers.get("Authorization"))
        try:
            self._answer(body, fault)
        except OSError:
            pass  # who asked has gone
        finally:
            self.standin.leave()

    def _answer(self, body: Mapping[str, Any], fault: Fault | None) -> None:
        time.sleep(fault.slow if fault else 0)
        if fault is None or fault.slow or fault.cut is not None:
            self._send(200, json.dumps(completion(self.standin, self.standin.answer(body))), {}, fault and fault.cut)
        else:
            self._send(fault.status, fault.body, fault.headers, None)

    def _send(self, status: int, text: str, headers: Mapping[str, str], cut: int | None) -> None:
        content = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:cut])
        self.close_connection = cut is not None


def completion(standin: Standin, text: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": standin.finish, "message": {"role": "assistant", "content": text}}
    usage = {"usage": dict(standin.usage)} if standin.usage else {}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], **usage}


@contextmanager
def serving(standin: Standin, port: int = 0) -> Iterator[Standin]:
    """Serve on a port of this machine, a free one unless it is given."""
    handler = type("Handler", (_Handler,), {"standin": standin})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    standin.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ---- running the stage


def record(number: int | str, chosen: str = "A red ball.", prompt: str = "Describe the image.", **more: Any) -> Record:
    settings = {"references": (chosen,), "rejected": (), "split": "train", "portion": "stage1", **more}
    return Record(f"{number}#0", str(number), f"{number}.jpg", prompt, chosen, **settings)


@dataclass
class Ran:
    """What a run of the stage left."""

    out: Path
    events: list[tuple[str, dict[str, Any]]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(read_jsonl(self.out / "replies.jsonl"))

    @property
    def summary(self) -> dict[str, Any]:
        return dict(read_json(self.out / "summary.json"))


def ask(
    home: Path,
    part: Config,
    records: Iterable[Record],
    stopping: Callable[[], bool] = lambda: False,
    inputs: Mapping[str, Path] | None = None,
) -> Ran:
    """Run the stage on records; what it keeps lies in `home/cache`, each run has a new output folder."""
    number = len(list(home.glob("out*")))
    pairs, out = home / f"pairs{number}", home / f"out{number}"
    out.mkdir(parents=True)
    write_records(pairs / "records.jsonl", records)
    ran = Ran(out, [])
    spec = LlmSpec.model_validate({"portion": "stage1", "part": part})
    stage.run(
        StageContext(
            spec=spec, inputs={"pairs": pairs, **(inputs or {})}, out=out, partial=home / "partial",
            cache=home / "cache", rank=Rank(), execution=Execution(),
            event=lambda name, **more: ran.events.append((name, more)), check=lambda: None, stopping=stopping,
        )
    )  # fmt: skip
    return ran


# ---- a real server

SERVER = """
import sys
from transformers.cli.serve import Serve
from transformers.cli.serving.model_manager import ModelManager
from cwdpo.model.processor import load_processor

# the stock loader wants torchvision for videos that nobody sends
ModelManager._load_processor = lambda self, name, gguf_file=None: load_processor(name.rsplit("@", 1)[0])
Serve(sys.argv[1], device="cpu", dtype="float32", host="127.0.0.1", port=int(sys.argv[2]))
"""


@contextmanager
def transformers_serve(model: Path, port: int, log: Path) -> Iterator[str]:
    """`transformers serve` with a model folder; yields the address when it answers."""
    with open(log, "wb") as output:
        command = [sys.executable, "-c", SERVER, str(model), str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _until_healthy(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def _until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no answer\n{log.read_text(errors='replace')}")


def texts_of(body: Mapping[str, Any]) -> Sequence[str]:
    """Texts of the messages of a request."""
    contents = [message["content"] for message in body["messages"]]
    return [text if isinstance(text, str) else text[-1]["text"] for text in contents]
