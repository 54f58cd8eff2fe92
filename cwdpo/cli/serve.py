"""Showing a report: in the browser of this machine, or served to it over loopback."""

from __future__ import annotations

import platform
import sys
import webbrowser
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import typer

from cwdpo.base.errors import ConfigError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""Names by which a browser may call this server; any other means that a page from elsewhere leads it here."""


def open_page(address: str) -> None:
    """Show a page in the user's browser, or say where it is if there is none."""
    if not webbrowser.open(address):
        typer.echo(f"no browser could be started; open {address}", err=True)


def serve(folder: Path, port: int, opened: bool = False) -> None:
    """Serve a report until Ctrl-C.

    Args:
        port: 0 takes any free one.
        opened: whether the user's browser shows it.

    Raises:
        ConfigError: the port cannot be had.
    """
    server = open_server(folder, port)
    address = f"http://{HOST}:{server.server_port}/"
    typer.echo(f"serving {folder} at {address} until Ctrl-C")
    typer.echo(f"from another machine: ssh -L {server.server_port}:{HOST}:{server.server_port} {platform.node()}")
    try:
        if opened:
            open_page(address)
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo("stopped")
    finally:
        server.server_close()


def open_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of one folder that only this machine reaches; it answers once `serve_forever` is called.

    Raises:
        ConfigError: the port cannot be had.
    """
    try:
        return _Server((HOST, port), partial(_Handler, directory=str(folder.resolve())))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--port {port}: {reason}; name another one, or 0 for any that is free") from error


class _Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Without asking DNS who this is: that can take long where there is none."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers hang up as they like."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(SimpleHTTPRequestHandler):
    timeout = 30

    def send_head(self) -> Any:
        """A file of the folder, asked for by this machine."""
        if (self.headers.get("Host") or "").partition(":")[0] not in NAMES:
            return self.send_error(HTTPStatus.FORBIDDEN, f"ask for {' or '.join(NAMES)}")
        if not Path(self.translate_path(self.path)).resolve().is_relative_to(self.directory):
            return self.send_error(HTTPStatus.NOT_FOUND)  # a link that leads elsewhere
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """No folder is listed."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """What a page cannot say of itself."""
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""
