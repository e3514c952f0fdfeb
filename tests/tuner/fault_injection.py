"""Faults of the tracking server and of the disk, for tests."""

from __future__ import annotations

import os
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing."""


class FaultyServer:
    """MLflow's own server in a thread of this process, with faults on demand.

    Attributes:
        uri: address of the server, the same after each fault.
        num_requests: number of requests so far.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._error: bytes | None = None
        self._is_awake = threading.Event()
        self._is_awake.set()
        self.num_requests = 0
        self._server: BaseWSGIServer | None = None
        self._port = 0
        self.mend()
        self.uri = f"http://127.0.0.1:{self._port}"

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.num_requests += 1
        if self._error:
            start_response("500 INTERNAL SERVER ERROR", [("Content-Type", "text/plain")])
            return [self._error]
        self._is_awake.wait(100)  # and then serve the request, though its client has given up
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer

    def go_down(self) -> None:
        """Close the port."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    def fail(self) -> None:
        """Answer 500 to everything."""
        self._error = b"out of order"

    def hang(self) -> None:
        """Accept requests without an answer; `mend` serves them."""
        self._is_awake.clear()

    def mend(self) -> None:
        """End all faults."""
        self._error = None
        self._is_awake.set()
        if self._server is None:
            server = make_server(
                "127.0.0.1", self._port, self, threaded=True, request_handler=_Silent
            )
            self._port, self._server = server.server_port, server
            threading.Thread(target=server.serve_forever, args=(0.5,), daemon=True).start()


@contextmanager
def mlflow_server(store: str, artifacts: Path) -> Iterator[FaultyServer]:
    """Run a server for a SQLite store; one at a time, as MLflow keeps its store in a global."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(artifacts))
        with warnings.catch_warnings():  # MLflow warns about Starlette
            warnings.simplefilter("ignore")
            from mlflow.server import app, fastapi_app, handlers  # noqa: F401 - otherwise a request imports it
        patch.setattr(handlers, "_tracking_store", None)
        handlers.initialize_backend_stores(store, default_artifact_root="mlflow-artifacts:/")
        server = FaultyServer(app)
        try:
            yield server
        finally:
            server.mend()
            server.go_down()
            # The server has set its store as the store of this process and its environment.
            mlflow.set_tracking_uri(None)


@contextmanager
def small_disk(folder: Path, size: int, ballast: int) -> Iterator[Callable[[], None]]:
    """Mount a disk of `size` bytes; calling the result frees `ballast` bytes of it."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        (folder / "ballast").write_bytes(bytes(ballast))
        yield (folder / "ballast").unlink
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
