"""A Postgres of a test's own, and MLflow's server on it, as a team would run them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from tests.ports import free_port


def _programs() -> Path:
    """Where Postgres is installed; Debian keeps it out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        pytest.skip("no Postgres; on Debian: apt-get install postgresql")
    return (found[-1] if found else Path(str(on_path))).parent


def _owner() -> int | None:
    """Postgres refuses to run as root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    pytest.skip("Postgres does not run as root, and there is no user postgres or nobody")


@contextmanager
def postgres() -> Iterator[str]:
    """A new database server on a socket, as a URI of SQLAlchemy."""
    pytest.importorskip("psycopg2")
    programs, owner = _programs(), _owner()
    # not in pytest's folder, which other users cannot enter; and a socket's path must be short
    with tempfile.TemporaryDirectory(prefix="pg") as made:
        folder = Path(made)
        if owner is not None:
            os.chown(folder, owner, -1)
        data = str(folder / "data")
        begin = [programs / "initdb", "-D", data, "-U", "tuner", "-A", "trust", "--no-sync"]
        begun = subprocess.run(
            begin, user=owner, capture_output=True, text=True, check=False, cwd="/"
        )
        assert begun.returncode == 0, begun.stderr
        serve = [programs / "postgres", "-D", data, "-k", folder, "-h", "", "-F"]
        with Popen(serve, user=owner, stdout=DEVNULL, stderr=DEVNULL, cwd="/") as server:
            try:
                _wait_for_socket(folder / ".s.PGSQL.5432")
                yield f"postgresql+psycopg2://tuner@/postgres?host={folder}"
            finally:
                server.terminate()


def _wait_for_socket(path: Path) -> None:
    until = time.monotonic() + 60
    while True:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        assert time.monotonic() < until, "Postgres does not start"
        time.sleep(0.05)


@contextmanager
def mlflow_server(store: str, artifacts: Path) -> Iterator[str]:
    """MLflow's own server in a process of its own; where it listens."""
    port = free_port()
    root = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", store,
        "--artifacts-destination", artifacts.as_uri(),
    ]  # fmt: skip
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = artifacts.parent / "server.log"
    with (
        log.open("w") as file,
        Popen(command, env={**os.environ, **quiet}, stdout=file, stderr=file) as server,
    ):
        try:
            until = time.monotonic() + 120
            while True:
                with suppress(OSError), urllib.request.urlopen(f"{root}/health", timeout=5):
                    break
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.2)
            yield root
        finally:
            server.terminate()
