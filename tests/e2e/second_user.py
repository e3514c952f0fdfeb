"""Another user of the machine, who tries to read and to change files of the first one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# What a path allows the user `nobody`; the paths come from root, who can list them.
_PROGRAM = r"""
import json, os, pathlib, secrets, socket, stat, sys

def make(folder, make_at):
    new = os.path.join(folder, secrets.token_hex(8))
    make_at(new)
    os.unlink(new)

def touch(path):
    open(path, "x").close()

def attempts(path):
    yield "stat", lambda: os.stat(path)
    yield "list", lambda: os.listdir(path)
    yield "read", lambda: open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb").read(1)
    yield "write", lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    yield "make a file in", lambda: make(path, touch)
    yield "make a link in", lambda: make(path, lambda new: os.symlink(path, new))
    yield "link", lambda: make(sys.argv[1], lambda new: os.link(path, new))
    yield "replace", lambda: os.replace(path, path + ".mine")
    yield "make a file beside", lambda: make(os.path.dirname(path), touch)
    yield "chmod", lambda: os.chmod(path, 0o777)
    yield "connect to", lambda: socket.socket(socket.AF_UNIX).connect(path)

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for line in sys.stdin:
    done = []
    for name, attempt in attempts(json.loads(line)):
        try:
            attempt()
            done.append(name)
        except OSError:
            pass
    print(json.dumps(done), flush=True)
"""


class SecondUser:
    """A process of the user `nobody`, in a folder that everybody may enter."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.num_paths = 0

    def what_works(self, paths: Iterable[Path]) -> dict[str, list[str]]:
        """Path → what the user could do with it, of the paths where something works."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        found = {}
        for path in paths:
            self._process.stdin.write(json.dumps(str(path)) + "\n")
            self._process.stdin.flush()
            self.num_paths += 1
            if done := json.loads(self._process.stdout.readline()):
                found[str(path)] = done
        return found


@contextmanager
def second_user(own: Path) -> Iterator[SecondUser]:
    """Another user, with a folder of their own; skips the test if this user may not become one."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    own.mkdir()
    os.chown(own, 65534, 65534)
    command = [sys.executable, "-c", _PROGRAM, str(own)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        yield SecondUser(process)
        process.stdin.close()
