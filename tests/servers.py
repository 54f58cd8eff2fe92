"""Web servers in this process for tests: files with every fault a download meets, and a stand-in for the model hub."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Site:
    """What a server has and how it misbehaves; `asked` counts requests by path, `sent` bytes by path.

    Attributes:
        files: path -> bytes.
        status: path -> statuses to answer with, one a request, before behaving.
        breaks: path -> how many answers close the connection half way.
        drip: path -> seconds between two pieces.
        ranges: False for a server that ignores Range.
        headers: path -> further headers.
        errors: path -> status and headers to answer with always.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, list[int]] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    drip: dict[str, float] = field(default_factory=dict)
    ranges: bool = True
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    errors: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    url: str = ""

    @property
    def traffic(self) -> int:
        """Bytes of bodies sent so far."""
        return self.sent.total()


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site on a free port of this machine."""

    class Handler(_Handler):
        pass

    Handler.site = site
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        site, path = self.site, urlsplit(self.path).path
        site.asked[path] += 1
        if path in site.errors:
            self._plain(*site.errors[path])
        elif site.status.get(path):
            self._plain(site.status[path].pop(0))
        elif path not in site.files:
            self._plain(404)
        else:
            self._content(path, body)

    def _plain(self, status: int, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, path: str, body: bool) -> None:
        content = self.site.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked and self.site.ranges else 0
        if start and start >= len(content):
            return self._plain(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in self.site.headers.get(path, {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            self._send(path, content[start:])
        return None

    def _send(self, path: str, content: bytes) -> None:
        site = self.site
        if site.breaks.get(path):
            site.breaks[path] -= 1
            content = content[: len(content) // 2]
            self.close_connection = True
        piece = 1 << 14 if path in site.drip else 1 << 20
        try:
            for start in range(0, len(content), piece):
                self.wfile.write(content[start : start + piece])
                site.sent[path] += len(content[start : start + piece])
                time.sleep(site.drip.get(path, 0))
        except OSError:
            pass  # who asked has gone


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_name(content: bytes) -> str:
    """What git calls a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def hub_site(repo: str, folder: Path, extra: dict[str, bytes] | None = None, kind: str = "models") -> Site:
    """A stand-in for the hub with one repository at one commit, enough of its API for `huggingface_hub`.

    As on the hub, big files go by the SHA-256 of their bytes and the others by git's name for them.
    """
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    site = Site()
    tree = []
    for name, content in {**contents, **(extra or {})}.items():
        big = name.endswith((".safetensors", ".bin", ".parquet"))
        digest = hashlib.sha256(content).hexdigest()
        lfs = {"lfs": {"oid": digest, "size": len(content), "pointerSize": 130}} if big else {}
        tree.append({"type": "file", "path": name, "size": len(content), "oid": git_name(content), **lfs})
        prefix = "" if kind == "models" else f"/{kind}"
        path = f"{prefix}/{repo}/resolve/{COMMIT}/{name}"
        site.files[path] = content
        site.headers[path] = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest if big else git_name(content)}"'}
    siblings = [{"rfilename": entry["path"]} for entry in tree]
    about = json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}).encode()
    for revision in (COMMIT, "main"):
        site.files[f"/api/{kind}/{repo}/revision/{revision}"] = about
        site.files[f"/api/{kind}/{repo}/tree/{revision}"] = json.dumps(tree).encode()
    site.files[f"/api/{kind}/{repo}"] = about
    return site
