"""Publishes a finished search: registers its best model and attaches its report."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.errors import StoreError
from tuner.home.home import Home
from tuner.results.result import SearchResult
from tuner.tracking.record import Record
from tuner.tracking.store import store_errors
from tuner.tracking.tags import REPORT_FILE


def register_model(home: Home, result: SearchResult) -> str | None:
    """Register the best trial of a finished search as a model.

    Returns:
        Description of the version if it is new; else None.

    Raises:
        StoreError: if the store refuses it; `tuner sync` tries again.
    """
    from tuner.publish.registry import register

    if result.status != "finished":
        return None
    registered = register(home, result)
    return registered.description if registered is not None and registered.is_new else None


def attach_report(home: Home, result: SearchResult) -> None:
    """Attach the report of a search to its run, and replace an older report.

    Raises:
        StoreError: if the report cannot be written or the store refuses it.
    """
    from tuner.report.write import samples_of, write_report

    try:
        with TemporaryDirectory() as folder, store_errors(home.tracking_uri):
            path = Path(folder, REPORT_FILE)
            write_report(result, path, samples_of(result, home))
            Record(home.tracking_uri).client.log_artifact(result.run_id, str(path))
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(
            f"the report of {result.name} could not be written: {error}; 'tuner report --search "
            f"{result.name} --debug' shows why"
        ) from error
