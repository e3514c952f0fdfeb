"""The MLflow store: how it is opened, and what its errors mean."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tuner.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow tries eight times: four minutes with a dead server, sixteen with one that hangs. And it
    # makes a run twice if the first answer was lost. The tracker repeats knowingly.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_SQLITE = "sqlite:///"
# What errors of a store mean: a pattern, and the words for it.
_REASONS = (
    (r"Connection refused", "it refuses connections"),
    (r"timeout exception|timed out", "it does not answer"),
    (r"Name or service not known|Failed to resolve|name resolution", "its host is not known"),
    (r"(?:error code|too many|failed with error code) (\d{3})", "it answers with error {}"),
    (r"database is locked", "the database is locked by another process"),
)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one sentence."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise StoreError(
            f"the tracking store {uri} cannot be used: {reason_of(error)}; check it with "
            "'tuner doctor'"
        ) from error


def reason_of(error: BaseException) -> str:
    """Why a store cannot be used, in a few words if the error is a usual one."""
    if isinstance(error, StoreError) and error.__cause__:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    for pattern, words in _REASONS:
        if found := re.search(pattern, text):
            return words.format(*found.groups())
    return text.splitlines()[0]


def open_client(uri: str) -> MlflowClient:
    """An MLflow client that sends no telemetry, logs nothing but errors and gives up in time.

    Raises:
        StoreError: if the store cannot be reached.
    """
    for variable, value in _SETTINGS.items():
        os.environ.setdefault(variable, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    # importing mlflow configures its loggers anew; what a database refuses we say ourselves
    for name, level in (
        ("mlflow", "ERROR"),
        ("mlflow.store.db.utils", "CRITICAL"),
        ("alembic", "ERROR"),
    ):
        logging.getLogger(name).setLevel(level)
    with store_errors(uri):
        database = Path(uri.removeprefix(_SQLITE))
        if uri.startswith(_SQLITE) and not database.exists():
            _make(database)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def _make(database: Path) -> None:
    """Make a new database whole or not at all.

    MLflow makes one in dozens of steps, and a kill between two leaves what it cannot open again.
    """
    from mlflow import MlflowClient

    database.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".new-", dir=database.parent) as folder:
        made = Path(folder, database.name)
        MlflowClient(f"{_SQLITE}{made}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(made, database)
