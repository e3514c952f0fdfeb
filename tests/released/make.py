"""Makes the home that a released version leaves to the tests of all later ones.

    python -m tests.released.make COMMAND

COMMAND is `tuner` of an environment in which the wheel of the release is installed. In a folder of
its own it does what users do: a search that finishes, one that is killed as it trains, a proxy, a
LoRA search over a pretrained folder, a search with sources, and one that a server ran. The folder
becomes tests/released/VERSION.tar.xz, with `expected.json`: what the killed search would have
reported if nobody had killed it, by the same release.

Made once for a release, and never again: the promise is that later versions read this file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from tests.e2e.conftest import SPACE, make_workplace
from tests.e2e.test_lora import add_pretrained
from tests.e2e.test_transfer import add_proxy
from tests.ports import free_port
from tests.released.searches import KILLED, SEARCHES, SERVED, reports_of
from tuner.journal.events import Reported
from tuner.journal.journal import read_journal

FOLDER = Path(__file__).parent
_SECONDS = 300.0  # until a server listens, or a search has a report
# what is made again when it is needed
_LEFT_OUT = ("tune", "logs", "compiled", "report.html", "__pycache__")


def main() -> None:
    """Make the folder, and pack it."""
    (command,) = sys.argv[1:]
    out = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    version = out.split()[-1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "place")
        folder.mkdir()
        place = make_workplace(folder)
        add_pretrained(place)
        add_proxy(place)
        tuner = _Tuner(command, folder)
        for name, space, options in SEARCHES:
            tuner.run("search", "--space", space, "--name", name, "--workers", "1", *options)
        _killed(tuner)
        _served(tuner)
        _pack(folder, FOLDER / f"{version}.tar.xz")


class _Tuner:
    """The released command, in the folder."""

    def __init__(self, command: str, folder: Path) -> None:
        self.command, self.folder = command, folder
        kept = (k for k in os.environ if not k.startswith(("RAY_", "MLFLOW", "TUNER", "PYTHON")))
        self.environment = {k: os.environ[k] for k in kept}

    def run(self, *arguments: str) -> None:
        sys.stdout.write(f"tuner {' '.join(arguments)}\n")
        subprocess.run(
            [self.command, *arguments], cwd=self.folder, env=self.environment, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        sys.stdout.write(f"tuner {' '.join(arguments)}\n")
        return subprocess.Popen(
            [self.command, *arguments], cwd=self.folder, env=self.environment,
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _killed(tuner: _Tuner) -> None:
    """A search that ended by SIGKILL as it trained, and what it is in a home of its own."""
    name, options = KILLED
    home, whole = tuner.folder / "runs", tuner.folder / "whole"
    command = ("search", "--space", "small.yaml", "--name", name, "--workers", "1", *options)
    tuner.run(*command, "--home", str(whole))
    (tuner.folder / "expected.json").write_text(json.dumps(reports_of(whole, name)), "utf-8")
    shutil.rmtree(whole)
    with tuner.start(*command) as process:
        until = time.monotonic() + _SECONDS
        while sum(isinstance(e, Reported) for e in _events(home / "searches" / name)) < 3:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)


def _events(folder: Path) -> list[object]:
    return list(read_journal(folder)) if folder.is_dir() else []


def _served(tuner: _Tuner) -> None:
    """A search that a server ran."""
    port = free_port()
    root = f"http://127.0.0.1:{port}"
    space = SPACE.replace("trials: 6", "trials: 2").replace("{top: 2, seeds: 2}", "off")
    space = space.replace("files: texts", f"files: {tuner.folder / 'texts'}")
    with tuner.start("serve", "--port", str(port), "--data", "texts") as server:
        until = time.monotonic() + _SECONDS
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{root}/healthz", timeout=5).close()
                break
            assert time.monotonic() < until and server.poll() is None
            time.sleep(0.1)
        searches = f"{root}/api/v1/searches"
        urllib.request.urlopen(f"{searches}?name={SERVED}", space.encode(), timeout=60).close()
        while True:
            with urllib.request.urlopen(f"{searches}/{SERVED}", timeout=60) as answer:
                if json.load(answer)["state"] == "finished":
                    break
            assert time.monotonic() < until
            time.sleep(0.5)
        server.send_signal(signal.SIGTERM)


def _pack(folder: Path, path: Path) -> None:
    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if any(part in _LEFT_OUT for part in Path(member.name).parts):
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    with tarfile.open(path, "w:xz", preset=9) as archive:
        archive.add(folder, "place", filter=kept)
    sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
