"""On a machine with other users: they reach no file of a search, and secrets stay in memory."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.command_process import Run, run_command
from tests.e2e.conftest import Workplace, make_workplace
from tests.e2e.second_user import SecondUser, second_user
from tests.ports import free_port
from tests.tuner.fault_injection import FaultyServer, mlflow_server
from tuner.tracking.store import open_client

pytestmark = pytest.mark.slow

SECRET = "S3CRET"  # part of every secret below
_STORE_PASSWORD = f"{SECRET}ofTheStore"
SECRETS = {
    name: f"{SECRET}{number}of{name.title().replace('_', '')}"
    for number, name in enumerate((
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN",
        "HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_USERNAME", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_KEY",
        "GITHUB_TOKEN", "RAY_AUTH_TOKEN",
    ))
} | {
    "HTTP_PROXY": f"http://me:{SECRET}ofTheProxy@127.0.0.1:9",
    "https_proxy": f"http://me:{SECRET}ofTheProxy@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "DATABASE_URL": f"postgresql://me:{SECRET}ofTheDatabase@127.0.0.1:9/other",
}  # fmt: skip
_FORMS = [
    SECRET.encode(),
    *(base64.b64encode(f"{user}:{_STORE_PASSWORD}".encode())[:-4] for user in ("admin", "me")),
]


def shows_secret(content: bytes) -> bool:
    return any(form in content for form in _FORMS)


def below(folder: Path) -> list[Path]:
    """What lies in a folder, while others delete in it."""
    return [
        Path(parent, name)
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
    ]


def files_with_secrets(folder: Path) -> list[str]:
    found = []
    for path in below(folder):
        try:
            if path.is_file() and shows_secret(path.read_bytes()):
                found.append(str(path))
        except FileNotFoundError:  # of a process that runs
            continue
    return found


def command_lines_with_secrets() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if shows_secret(content):
            found.append(content.decode(errors="replace"))
    return found


@dataclass
class Machine:
    """A folder that everybody may enter, with the work of one user.

    Attributes:
        place: texts, a space, and the home.
        root: the folder, in which are also the user's HOME and the folder for temporary files.
        server: a tracking server, which takes every password.
        other: another user.
        found: what a second user could do, or where a secret was seen, while commands ran.
        seen: path, inode and mode of what the other user has tried.
    """

    place: Workplace
    root: Path
    server: FaultyServer
    other: SecondUser
    found: list[str] = field(default_factory=list)
    seen: set[tuple[Path, int, int]] = field(default_factory=set)

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    def environment(self, *, remote: bool) -> dict[str, str]:
        folders = {"HOME": str(self.root / "user"), "TMPDIR": str(self.temporary)}
        uri = self.server.uri.replace("//", f"//admin:{_STORE_PASSWORD}@")
        store = {"MLFLOW_TRACKING_URI": uri} if remote else {}
        return {**self.place.environment, **SECRETS, **folders, **store}

    def look(self) -> None:
        """Look at the command lines of all processes, and let the other user try what is new."""
        self.found += command_lines_with_secrets()
        paths = []
        for path in (self.place.home, *below(self.place.home), *below(self.temporary)):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                version = (path, status.st_ino, status.st_mode)
                if version not in self.seen:
                    paths.append(path)
                    self.seen.add(version)
        for path, done in self.other.what_works(paths).items():
            # of a folder of ours in the folder for temporary files, everybody knows that it exists
            own = Path(path) == self.place.home or Path(path).parent == self.temporary
            if done := [name for name in done if not (own and name in _ON_THE_FOLDER_ABOVE)]:
                self.found.append(f"{' and '.join(done)} {path}")

    def run(
        self, *arguments: str, remote: bool = True, until: Callable[[], bool] | None = None
    ) -> Run:
        """Run a command with --debug and the loosest umask, and look all the time.

        Args:
            arguments: the command.
            remote: True to use the tracking server, and not the store of the home.
            until: ends a command that serves.
        """
        out, err = (tempfile.TemporaryFile() for _ in range(2))
        with out, err:
            process = subprocess.Popen(
                [sys.executable, "-m", "tuner", *arguments, "--debug"],
                cwd=self.place.folder, env=self.environment(remote=remote), umask=0,
                stdout=out, stderr=err,
            )  # fmt: skip
            begun = time.monotonic()
            try:
                while process.poll() is None:
                    self.look()
                    assert time.monotonic() - begun < 300
                    if until is not None and until():
                        self.look()
                        process.send_signal(signal.SIGTERM)
                        process.wait(60)
                    time.sleep(0.5)
            finally:
                process.kill()
            self.seen.clear()
            self.look()
            out.seek(0), err.seek(0)
            run = Run(process.returncode, out.read().decode(), err.read().decode())
        assert not shows_secret((run.out + run.err).encode()), run
        return run


# A folder for temporary files has the sticky bit, so files beside ours harm nobody.
_ON_THE_FOLDER_ABOVE = ("stat", "make a file beside")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as made:  # a short path, for sockets
        root = Path(made)
        root.chmod(0o755)
        for name, mode in (("work", 0o755), ("user", 0o755), ("server", 0o700), ("tmp", 0o1777)):
            (root / name).mkdir()
            (root / name).chmod(mode)
        store = f"sqlite:///{root}/server/mlflow.db"
        open_client(store)
        place = make_workplace(root / "work")
        with (
            second_user(root / "other") as other,
            mlflow_server(store, root / "server" / "artifacts") as server,
        ):
            yield Machine(place, root, server, other)


def check_control(machine: Machine) -> None:
    """The other user can do what is allowed: otherwise no test here could fail."""
    control = machine.root / "control"
    control.write_text("x")
    control.chmod(0o666)
    assert {"read", "write"} <= {*machine.other.what_works([control])[str(control)]}
    folder = machine.root / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "file").touch(0o600)
    works = machine.other.what_works([folder, folder / "file"])
    assert {"list", "make a file in", "make a link in"} <= {*works[str(folder)]}
    assert {"replace", "make a file beside"} <= {*works[str(folder / "file")]}


def test_others_reach_nothing_and_secrets_stay_in_memory(machine: Machine) -> None:
    """While commands run and afterwards, in files, command lines and outputs."""
    check_control(machine)
    search = machine.run("search", "--space", "small.yaml", "--workers", "1", "--trials", "3",
                         "--set", "confirm.top=0")  # fmt: skip
    assert search.status == 0, search.err
    assert list(machine.temporary.glob("tuner-*/ray/session_*/sockets/*"))  # kept by --debug
    assert machine.other.num_paths > 100
    assert machine.run("doctor").status == 0
    commands = [
        (name, True) for name in ("replay", "sync", "list", "show", "report", "export -o out", "ui")
    ]
    for command, remote in [*commands, ("sync", False), ("report", False)]:
        arguments = [*command.split(), "--debug"]
        run = run_command(arguments, machine.place.folder, machine.environment(remote=remote))
        assert run.status == 0, run.err
        assert not shows_secret((run.out + run.err).encode())
        machine.look()
    stored = [machine.place.home / "mlflow.db", *(machine.place.home / "artifacts").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in stored} == {0o600, 0o700}
    port = free_port()
    served = machine.run("ui", "--port", str(port), remote=False, until=lambda: answers(port))
    assert "MLflow is starting" in served.err
    machine.server.go_down()
    crashed = machine.run("list")
    assert "Traceback" in crashed.err
    assert "refuse" in crashed.err
    assert machine.found == []
    assert files_with_secrets(machine.root) == []


def answers(port: int) -> bool:
    """True if the server of `tuner ui` answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.suppress(OSError), contextlib.closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False
