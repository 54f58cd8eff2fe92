"""Where `cwdpo track` writes to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from cwdpo.jobs.doctor.check import Finding, failure, ok, unchecked, warning

VARIABLE = "MLFLOW_TRACKING_URI"
NAME = "tracking"
SECONDS = 10.0


def check_tracking(home: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """That MLflow is there, and that what $MLFLOW_TRACKING_URI names answers."""
    if find_spec("mlflow") is None:
        yield failure(NAME, "the package mlflow is not installed here", "make setup")
        return
    uri = environ.get(VARIABLE) or f"sqlite:///{(home / 'mlflow.db').resolve()}"
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        yield _server(uri)
    elif scheme == "sqlite":
        yield _database(Path(uri.partition("sqlite:///")[2]))
    elif scheme in ("", "file"):
        found = f"{VARIABLE}={uri}: a folder; MLflow 3 refuses to write into folders"
        yield failure(NAME, found, f"unset {VARIABLE}, or sqlite:////path/mlflow.db, or the address of a server")
    else:
        yield unchecked(NAME, f"{VARIABLE} is a '{scheme}' address", "`cwdpo track` tells whether it answers")


def _server(uri: str) -> Finding:
    shown = _without_password(uri)
    remedy = f"start the server, or correct or unset {VARIABLE}; training does not need it, `cwdpo track` does"
    try:
        with urlopen(Request(f"{uri.rstrip('/')}/version"), timeout=SECONDS) as answer:
            text = answer.read(100).decode(errors="replace").strip()
    except HTTPError as error:
        if error.code in (401, 403):
            remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            return warning(NAME, f"{shown} answers, and asks who you are ({error.code})", remedy)
        return failure(NAME, f"{shown} answers with status {error.code}: no MLflow server", remedy)
    except (URLError, OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        return failure(NAME, f"{shown} does not answer: {getattr(reason, 'strerror', None) or reason}", remedy)
    if not re.fullmatch(r"\d+(\.\w+)+", text):
        return failure(NAME, f"{shown} answers, but is no MLflow server", remedy)
    return ok(NAME, f"MLflow {text} at {shown}")


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return uri.replace(f"{parts.username}:{parts.password}@", "") if parts.password else uri


def _database(path: Path) -> Finding:
    """A database that is there must be writable, one that is not needs its folder."""
    place = next(found for found in (path, *path.parents) if found.exists())
    if not os.access(place, os.W_OK):
        return failure(NAME, f"{place} cannot be written", f"chown or chmod it, or set {VARIABLE}")
    return ok(NAME, f"SQLite in {path}")
