"""Opens the MLflow store and explains its errors."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from tuner.errors import StoreError
from tuner.texts.secrets import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient

R = TypeVar("R")

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # By default MLflow tries eight times: four minutes for a dead server, sixteen for one that
    # hangs. It also makes a run twice if the first answer is lost. So MLflow must not retry: the
    # follower retries, and the projection looks for the run first.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_SQLITE = "sqlite:///"
_TAG = "tuner.space"  # of an experiment: the space whose searches it holds
_FORBIDDEN = r"error code 403|PERMISSION_DENIED|Permission denied"
DOCTOR_HINT = "; check it with 'tuner doctor'"
# Pattern of a store's error → explanation.
_REASONS = (
    (r"Connection refused", "it refuses connections"),
    (r"timeout exception|timed out", "it does not answer"),
    (r"Name or service not known|Failed to resolve|name resolution", "its host is unknown"),
    (
        r"Hostname mismatch|doesn't match|certificate is not valid for",
        "its certificate is that of another host: use the name for which it was made",
    ),
    (
        r"certificate verify failed|CERTIFICATE_VERIFY_FAILED",
        "its certificate is not trusted: name the file of its authority in "
        "MLFLOW_TRACKING_SERVER_CERT_PATH",
    ),
    (
        r"invalid path: (\S+)|Could not find the TLS (?:certificate|key) file",
        "MLFLOW_TRACKING_SERVER_CERT_PATH names a file that is not there",
    ),
    (
        r"Invalid Host header",
        "it is not called so: add host and port of MLFLOW_TRACKING_URI to its --allowed-hosts",
    ),
    (
        r"(?:error code|too many|failed with error code) (401|403)",
        "it answers with error {}: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or "
        "MLFLOW_TRACKING_TOKEN) to a user who may write",
    ),
    (r"(?:error code|too many|failed with error code) (\d{3})", "it answers with error {}"),
    (r"database is locked", "the database is locked by another process"),
    (
        r"Can't locate revision identified by",
        "a newer MLflow made it: upgrade this one with 'pip install --upgrade mlflow'",
    ),
)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Convert errors of MLflow and its database to a StoreError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise _unusable(uri, reason_of(error)) from error


@contextmanager
def reading_errors(uri: str) -> Iterator[None]:
    """Convert all errors of a call of MLflow to a StoreError.

    MLflow trusts its database: it raises errors of any class on a URI, a driver or a row that it
    does not expect.
    """
    try:
        with store_errors(uri):
            yield
    except StoreError:
        raise
    except ModuleNotFoundError as error:
        raise _unusable(uri, f"its driver {error.name} is not installed") from error
    except Exception as error:
        reason = _common_reason(error) or f"{type(error).__name__}: {reason_of(error)}"
        raise _unusable(uri, reason) from error


def _unusable(uri: str, reason: str) -> StoreError:
    return StoreError(f"the tracking store {uri} cannot be used: {reason}{DOCTOR_HINT}")


def reason_of(error: BaseException) -> str:
    """Return why a store cannot be used, in a few words if the error is a common one.

    Secrets of URLs are masked.
    """
    if isinstance(error, StoreError) and error.__cause__:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return _common_reason(error) or masked(text.splitlines()[0])


def _common_reason(error: BaseException) -> str | None:
    """Return the explanation of a common error; None for another one."""
    for pattern, reason in _REASONS:
        if match := re.search(pattern, str(error)):
            return reason.format(*match.groups())
    return None


def if_found(uri: str, ask: Callable[[], R]) -> R | None:
    """Return the answer of a store; None if the store says that there is no such thing.

    Raises:
        StoreError: if the store cannot be used.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    with reading_errors(uri):
        try:
            return ask()
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return None


def check_write(client: MlflowClient, uri: str, experiment: str) -> None:
    """Check that the user of a server may write to an experiment, which is not made.

    A tag of the experiment, which keeps its value, needs the same permission as a run. Who lacks it
    would otherwise hear of it after Ray has started.

    Raises:
        StoreError: if the user may not write, or the store cannot be used.
    """
    from mlflow.exceptions import MlflowException

    with reading_errors(uri):
        try:
            found = client.get_experiment_by_name(experiment)
            if found is not None:
                tags = found.tags
                client.set_experiment_tag(found.experiment_id, _TAG, tags.get(_TAG, experiment))
        except MlflowException as error:
            if not re.search(_FORBIDDEN, str(error)) or "Invalid Host" in str(error):
                raise
            user = os.environ.get("MLFLOW_TRACKING_USERNAME")
            who = f"the user {user}" if user else "you"
            raise StoreError(
                f"{who} may not write to the experiment {experiment} in the tracking store {uri}: "
                f"ask its owner for the permission EDIT, or give the space another name"
            ) from error


def open_client(uri: str) -> MlflowClient:
    """Return an MLflow client that sends no telemetry, logs only errors and times out.

    Raises:
        StoreError: if the store cannot be reached.
    """
    for variable, value in _SETTINGS.items():
        os.environ.setdefault(variable, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    # importing mlflow resets its loggers; errors of the database become our own messages
    for name, level in (
        ("mlflow", "ERROR"),
        ("mlflow.store.db.utils", "CRITICAL"),
        ("alembic", "ERROR"),
    ):
        logging.getLogger(name).setLevel(level)
    with reading_errors(uri):
        database = Path(uri.removeprefix(_SQLITE))
        if uri.startswith(_SQLITE) and not database.exists():
            _create(database)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def _create(database: Path) -> None:
    """Create a new database completely or not at all.

    MLflow creates a database in dozens of steps. A kill between two of them would leave a database
    that MLflow cannot open again, so the database is created elsewhere and then linked.
    """
    from mlflow import MlflowClient

    database.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".new-", dir=database.parent) as folder:
        temporary = Path(folder, database.name)
        temporary.touch()  # with the permissions of the umask, and not those that SQLite chooses
        MlflowClient(f"{_SQLITE}{temporary}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(temporary, database)
