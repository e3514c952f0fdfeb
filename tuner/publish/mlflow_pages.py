"""MLflow's server, opened at the trials of a search."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Callable, Sequence
from urllib.parse import quote, urlencode

from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.space.objective import sign_of
from tuner.texts.secrets import without_user_info
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, drawn
from tuner.tracking.tags import Tag

_FIRST_PORT = 5000
_PORTS = 50
_START_SECONDS = 120.0  # the longest that the server takes to start
_COMPARED = 10  # trials side by side

# Without these the server starts 15 processes and sends telemetry (seen with MLflow 3.17).
_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def serve(
    home: Home,
    host: str,
    port: int | None,
    say: Callable[[str], None],
    *,
    search: str | None = None,
    browser: bool = False,
) -> int:
    """Serve MLflow until Ctrl-C, or print where a remote tracking server shows the search.

    Args:
        home: home of the store.
        host: address to listen on.
        port: port; None for the first free port from 5000.
        say: called with each line of the message, addresses included.
        search: name of the search to open; by default the newest search.
        browser: open the page in the browser.

    Returns:
        Exit status of the server; 0 after Ctrl-C.

    Raises:
        TunerError: if the port is taken.
        RecordError: if there is no such search.
        StoreError: if the store cannot be used.
    """
    title, pages = _pages(Record(home.tracking_uri), search)
    if home.tracking_uri.startswith("http"):
        root = without_user_info(home.tracking_uri.rstrip("/"))  # the browser asks for them
        say(f"The tracking server {root} has the searches. {title}")
        _show(root, pages, say)
        if browser:
            webbrowser.open(f"{root}/{pages[0]}")
        return 0
    port = _free_port(host, port)
    root = f"http://{host}:{port}"
    if home.is_copy:
        say("The store cannot be written now: changes made on these pages are lost.")
    if not _is_loopback(host):
        say(
            f"warning: whoever reaches {root} can read, change and delete what is recorded: MLflow "
            f"has no login and no encryption here. For your own browser, leave out --host, and on "
            f"its machine run 'ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}'"
        )
    say(f"MLflow is starting on {root} (Ctrl-C ends it). {title}")
    _show(root, pages, say)
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--host", host, "--port", str(port), "--workers", "1",
        "--artifacts-destination", home.artifacts.as_uri(),
    ]  # fmt: skip
    # the URI may hold a password, and every user of the machine can read a command line
    environment = {**os.environ, **_ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": home.tracking_uri}
    # in its own session: the server starts processes, and killpg ends them together
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if browser:
        threading.Thread(target=_open, args=(root, pages[0]), daemon=True).start()
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address to listen on."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pages(record: Record, name: str | None) -> tuple[str, list[str]]:
    """Return a title and the paths of the pages to open, the trials first."""
    try:
        search = record.search(name)
    except RecordError:
        if name is not None:
            raise
        return "There is no search yet.", [""]
    title = f"The search {name}:" if name else f"The newest search, {search.name}:"
    comparison = comparison_page(record, search)
    return title, [trials_page(search), *([comparison] if comparison else [])]


def _show(root: str, pages: Sequence[str], say: Callable[[str], None]) -> None:
    for page in pages:
        say(f"{root}/{page}")


def trials_page(search: SearchRecord) -> str:
    """Return the path of the page with the curves of the trials, the best first."""
    condition = (
        f"tags.`{Tag.SEARCH}` = '{search.name}' and tags.`{Tag.KIND}` = 'trial' "
        f"and tags.`{Tag.CONFIRMS}` IS NULL"
    )
    query = {
        "searchFilter": condition,
        "orderByKey": f"metrics.`{search.metric}`",
        "orderByAsc": "false" if sign_of(search.metric) < 0 else "true",
        "compareRunsMode": "CHART",
        "workflowType": "machine_learning",  # not the pages for agents and prompts
    }
    return f"#/experiments/{search.experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def comparison_page(record: Record, search: SearchRecord) -> str | None:
    """Return the path of the page that compares the best trials; None if there are fewer than 2."""
    trials = drawn(record.trials(search))
    best = sorted(trials, key=lambda trial: trial.rank(search.metric))[:_COMPARED]
    if len(best) < 2:
        return None
    query = {
        "runs": json.dumps([trial.run_id for trial in best]),
        "experiments": json.dumps([search.experiment_id]),
        "workflowType": "machine_learning",
    }
    return f"#/compare-runs?{urlencode(query, quote_via=quote)}"


def _open(root: str, page: str) -> None:
    """Open a page as soon as the server answers."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{root}/health", timeout=5):
            webbrowser.open(f"{root}/{page}")
            return
        time.sleep(0.3)


def _free_port(host: str, port: int | None) -> int:
    for candidate in [port] if port else range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                if port:
                    raise TunerError(
                        f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
                    ) from error
                continue
            return candidate
    raise TunerError(f"no free port from {_FIRST_PORT} on; choose one with --port")
