"""The MLflow client, and what its errors mean: no answer now, a refusal, a damaged file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from cwdpo.base.errors import ConfigError, CwdpoError, NotAvailable, StoreError
from cwdpo.base.store import Store

VARIABLE = "MLFLOW_TRACKING_URI"

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would send usage to MLflow's makers
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # 7 are minutes of silence; what is missing is sent by the next pass
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # and so are two minutes for each try
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # one line and one more request for every run
}
"""Unless the user sets them."""

CREDENTIALS = "; who you are is told by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"

LASTING = ("out-of-date database schema", "not in a valid JSON format")
"""In messages of faults that do not pass: a database to be upgraded, and a page where the server should be."""

LONGEST = 400
"""Characters of a message of MLflow's that are shown."""


class Down(NotAvailable):
    """The server does not answer now; the same request may succeed later."""


def tracking_uri(store: Store) -> str:
    """`$MLFLOW_TRACKING_URI`, else a SQLite file in the home folder."""
    return os.environ.get(VARIABLE) or default_uri(store)


def default_uri(store: Store) -> str:
    """The SQLite file in the home folder."""
    return f"sqlite:///{(store.home / 'mlflow.db').resolve()}"


def shown_uri(store: Store) -> str:
    """The same without a password."""
    return _without_password(store, tracking_uri(store))


def _without_password(store: Store, text: str) -> str:
    parts = urlsplit(tracking_uri(store))
    return text.replace(f"{parts.username}:{parts.password}@", "") if parts.password else text


def open_client(store: Store) -> Any:
    """An MLflow client.

    Raises:
        ConfigError: `$MLFLOW_TRACKING_URI` is no address that MLflow can track to.
    """
    uri = tracking_uri(store)
    if urlsplit(uri).scheme in ("", "file"):
        raise ConfigError(
            f"{VARIABLE}={uri} is a folder, into which MLflow 3 does not write;"
            f" unset it, or name a database (sqlite:////path/mlflow.db) or a server (http://host:5000)"
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    try:
        return MlflowClient(uri)
    except UnsupportedModelRegistryStoreURIException as error:
        raise ConfigError(f"{VARIABLE}={shown_uri(store)}: {_brief(store, error)}") from error


@contextmanager
def answering(store: Store) -> Iterator[None]:
    """Turn what MLflow raises, at the first call or in the middle, into a `CwdpoError`.

    Raises:
        Down: the server, or the database, does not answer now.
        NotAvailable: it refuses.
        StoreError: the SQLite file is damaged.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        raise _explained(store, error, error.get_http_status_code()) from error
    except ConnectionError as error:
        raise _explained(store, error, 503) from error
    except SQLAlchemyError as error:
        raise StoreError(f"{shown_uri(store)} cannot be used: {_brief(store, error)}{_remedy(store)}") from error


def _remedy(store: Store) -> str:
    if tracking_uri(store) != default_uri(store):
        return ""
    return "; move the file away and run the same command again: all of it is written anew from the store"


def _explained(store: Store, error: Exception, status: int) -> CwdpoError:
    remote = urlsplit(tracking_uri(store)).scheme in ("http", "https")
    where = f"the tracking {'server' if remote else 'database'} at {shown_uri(store)}"
    lasting = any(fault in str(error) for fault in LASTING)
    if (status >= 500 or status == 429) and not lasting:
        return Down(f"{where} does not answer: {_brief(store, error)}; nothing is lost")
    return NotAvailable(f"{where} refuses: {_brief(store, error)}{CREDENTIALS if status in (401, 403) else ''}")


def _brief(store: Store, error: Exception) -> str:
    """The first line of a message, and no more of it than one reads."""
    line = _without_password(store, (str(error).strip().splitlines() or [type(error).__name__])[0])
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
