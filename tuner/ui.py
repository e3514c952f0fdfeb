"""`tuner ui`: MLflow's server on the user's store."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import quote

from tuner.errors import RecordError, TunerError
from tuner.home import Home
from tuner.record import Record

_FIRST_PORT = 5000
_PORTS = 50

# Without these it starts 15 processes and reports its use; seen with MLflow 3.17.
_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def serve(home: Home, host: str, port: int | None, say: Callable[[str], None]) -> int:
    """Serve MLflow until it is interrupted.

    Args:
        home: whose store.
        host: address to listen on.
        port: None for the first free one from 5000.
        say: is told the address.

    Returns:
        The server's exit status; 0 after Ctrl-C.

    Raises:
        TunerError: if the port is taken or the store is a server of its own.
        StoreError: if the store cannot be used.
    """
    if home.tracking_uri.startswith("http"):
        say(f"The searches are on the tracking server {home.tracking_uri}; open it in a browser.")
        return 0
    page = newest_search_page(home)
    port = _free_port(host, port)
    say(f"MLflow is starting on http://{host}:{port} (Ctrl-C ends it). The newest search:")
    say(f"http://{host}:{port}/{page}")
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--host", host, "--port", str(port), "--workers", "1",
        "--backend-store-uri", home.tracking_uri,
        "--artifacts-destination", home.artifacts.as_uri(),
    ]  # fmt: skip
    # a session of its own: the server starts processes that must end with it
    server = subprocess.Popen(command, env={**os.environ, **_ENVIRONMENT}, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def newest_search_page(home: Home) -> str:
    """Path of the page that compares the trials of the newest search, best first."""
    try:
        search = Record(home.tracking_uri).search()
    except RecordError:
        return ""
    condition = quote(f"tags.`tuner.search` = '{search.name}' and tags.`tuner.kind` = 'trial'")
    order = quote(f"metrics.`{search.metric}`")
    return (
        f"#/experiments/{search.experiment_id}/runs?searchFilter={condition}"
        f"&orderByKey={order}&orderByAsc=true&compareRunsMode=CHART"
    )


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
