"""What is made of a search for others once it is over: a registered model, and its report."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.errors import StoreError
from tuner.home import Home
from tuner.results.result import SearchResult
from tuner.tracking.record import Record
from tuner.tracking.store import store_errors
from tuner.tracking.tags import REPORT_FILE


def register_model(home: Home, result: SearchResult) -> str | None:
    """Make a registered model of the best trial of a search that has finished.

    Returns:
        What it is called, if it was made just now.

    Raises:
        StoreError: if the store does not take it; `tuner sync` tries again.
    """
    from tuner.publish.registry import register

    if result.status != "finished":
        return None
    registered = register(home, result)
    return registered.words if registered is not None and registered.is_new else None


def attach_report(home: Home, result: SearchResult) -> None:
    """Attach the report of a search to its run, in the place of an older one.

    Raises:
        StoreError: if it cannot be made or the store does not take it.
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
            f"the report of {result.name} could not be made: {error}; 'tuner report --search "
            f"{result.name} --debug' shows why"
        ) from error
