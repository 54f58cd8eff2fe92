"""A report is served to this machine only, from its folder only, until Ctrl-C."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import environment

from cwdpo.base.errors import ConfigError
from cwdpo.cli.serve import open_page, open_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "html"
    (made / "cases").mkdir(parents=True)
    (made / "index.html").write_text("<!DOCTYPE html>here")
    (tmp_path / "secret.txt").write_text("secret")
    (made / "link.txt").symlink_to(tmp_path / "secret.txt")
    return made


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    server = open_server(folder, 0)
    assert server.server_address[0] == "127.0.0.1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def ask(
    port: int, path: str, method: str = "GET", host: str = "localhost:1"
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    connection.request(method, path, headers={"Host": host})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


def test_pages_are_served_with_what_they_cannot_say_themselves(port: int) -> None:
    status, text, headers = ask(port, "/")
    assert (status, text) == (200, "<!DOCTYPE html>here")
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(port, "/index.html?x#y", host=f"127.0.0.1:{port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/link.txt", "/cases/", "/none"]
)
def test_nothing_else_is(port: int, path: str) -> None:
    status, text, _ = ask(port, path)
    assert status == 404
    assert "secret\n" not in text
    assert "root:" not in text


def test_only_this_machine_may_ask_and_only_to_read(port: int) -> None:
    assert ask(port, "/", host="example.org")[0] == 403
    assert ask(port, "/", method="POST")[0] == 501


def test_a_port_that_is_taken_is_said(folder: Path, port: int) -> None:
    with pytest.raises(ConfigError, match=f"--port {port}: Address already in use"):
        open_server(folder, port)
    with pytest.raises(ConfigError, match="--port 70000"):
        open_server(folder, 70000)


def test_ctrl_c_ends_it(folder: Path) -> None:
    program = f"from pathlib import Path; from cwdpo.cli.serve import serve; serve(Path({str(folder)!r}), 0)"
    line = [sys.executable, "-u", "-c", program]
    with subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])
        assert ask(port, "/")[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=900)
    assert (process.returncode, out.splitlines()[-1], err) == (0, "stopped", "")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_without_a_browser_the_address_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    open_page("file:///report/index.html")
    assert capsys.readouterr().err == "no browser could be started; open file:///report/index.html\n"
