"""The process around the command of an operation: how it ended is known, also without the server.

    python -m tuner.serve.operations.process FOLDER WORD …

It holds a lock while it lives, lets drivers go first, makes one file of each folder that the
command has written, and writes last how the command has ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from model.files import replacing

OUT, ERR, STATUS, LOCK, FILES = "out.txt", "err.txt", "status.json", "lock", "files"
_NICENESS = 10


def run(folder: Path, words: Sequence[str]) -> int:
    """Run a command, and write its output and its exit status to a folder."""
    os.nice(_NICENESS)
    with (
        open(folder / LOCK, "ab") as lock,  # noqa: PTH123 - as the two below
        open(folder / OUT, "wb") as out,  # noqa: PTH123
        open(folder / ERR, "wb") as err,  # noqa: PTH123
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False)
        _pack(folder / FILES)
        with replacing(folder / STATUS) as file:
            file.write(json.dumps({"status": done.returncode, "ended": time.time()}).encode())
    return done.returncode


def _pack(files: Path) -> None:
    """Make a zip file of each folder; weights do not get smaller, so nothing is compressed."""
    for folder in [path for path in files.iterdir() if path.is_dir()]:
        with zipfile.ZipFile(files / f"{folder.name}.zip", "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, Path(folder.name, path.relative_to(folder)))
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
