"""Operations of a server: begun in processes of their own, found again after a start."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.files import replacing
from tuner.home.home import Home, is_locked
from tuner.serve.access import Refused
from tuner.serve.operations.process import ERR, FILES, LOCK, OUT, STATUS
from tuner.serve.operations.wishes import CheckpointWish, GenerateWish, Wish

FOLDER = "operations"
_ABOUT = "about.json"
_MOST_RUNNING = 2
_MOST_WAITING = 20  # of all users
_MOST_OF_USER = 4  # that have not ended
_MOST_KEPT = 100
_KEPT_SECONDS = 7 * 86_400.0
_LONGEST_SECONDS = 86_400.0
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Begun:
    """What is known of an operation from its beginning.

    Attributes:
        id: id of the operation; later ones are greater.
        kind: what is done.
        search: name of the search.
        others: names of further searches.
        trial: number of the trial; None for the best, or the whole search.
        user: who asked.
        asked: when, in seconds since the epoch.
        key: what it is made of; operations with an equal key give the same. Empty for none.
    """

    id: str
    kind: str
    search: str
    others: tuple[str, ...]
    trial: int | None
    user: str
    asked: float
    key: str = ""


@dataclass(frozen=True)
class Operation:
    """An operation.

    Attributes:
        begun: what is known from its beginning.
        state: `waiting`, `running`, `done`, `failed`, or `interrupted` (its process was killed).
        status: exit status of the command; None before its end.
        ended: when it ended, in seconds since the epoch.
        progress: last line that it has printed on standard error.
        result: object that the command printed; None if it prints none.
        files: names and sizes of its files.
    """

    begun: Begun
    state: str
    status: int | None = None
    ended: float | None = None
    progress: str = ""
    result: Mapping[str, Any] | None = None
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """True after its end."""
        return self.state not in ("waiting", "running")


class Operations:
    """The operations of a home.

    Args:
        home: home of the searches.
        folder: folder of the server in the home.
        program: words with which commands of tuner begin.
    """

    def __init__(
        self, home: Home, folder: Path, program: Sequence[str] = (sys.executable, "-m", "tuner")
    ) -> None:
        self._home, self._folder, self._program = home, folder / FOLDER, program
        self._slots = threading.BoundedSemaphore(_MOST_RUNNING)
        self._lock = threading.Lock()  # of the set, and of what is begun
        self._waiting: set[str] = set()

    def begin(self, search: str, wish: Wish, user: str, stamp: str) -> Operation:
        """Begin an operation, or return an equal one that gives the same.

        Args:
            search: name of the search.
            wish: what to do.
            user: who asks.
            stamp: what changes when the search does.

        Raises:
            Refused: if too many wait.
        """
        key = f"{search} {stamp} {wish.model_dump_json()}" if wish.lasts else ""
        with self._lock:
            every = list(self.all())
            for each in every:
                if key and each.begun.key == key and each.state not in ("failed", "interrupted"):
                    return each
            under_way = [each for each in every if not each.is_over]
            own = [each for each in under_way if each.begun.user == user]
            if len(under_way) >= _MOST_WAITING or len(own) >= _MOST_OF_USER:
                raise Refused(429, f"{len(own) or len(under_way)} operations are under way; wait")
            self._remove(every)
            number = f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(4)}"
            begun = Begun(
                number, wish.kind, search, tuple(wish.others()), wish.trial_number, user,
                time.time(), key,
            )  # fmt: skip
            words = self._prepared(begun, wish)
            self._waiting.add(number)
        environment = {**os.environ, "COLUMNS": str(getattr(wish, "width", 80)), "NO_COLOR": "1"}
        thread = threading.Thread(
            target=self._run, args=(begun, words, environment), name=f"operation {number}",
            daemon=True,  # its process goes on without this one
        )  # fmt: skip
        thread.start()
        return self.read(number) or Operation(begun, "waiting")

    def all(self) -> Iterator[Operation]:
        """Yield the operations, the newest first."""
        names = sorted(os.listdir(self._folder), reverse=True) if self._folder.is_dir() else []  # noqa: PTH208
        for name in names:
            if (operation := self.read(name)) is not None:
                yield operation

    def read(self, number: str) -> Operation | None:
        """Return an operation; None if there is none of this id."""
        if not (number.isascii() and number.isalnum()):
            return None
        folder = self._folder / number
        about, status = _json(folder / _ABOUT), _json(folder / STATUS)
        if about is None:
            return None
        begun = Begun(**{**about, "others": tuple(about["others"])})
        progress = _last_line(folder / ERR).replace(str(self._home.root), "…")
        if status is None:
            state = "running" if is_locked(folder / LOCK) else "interrupted"
            state = "waiting" if state != "running" and number in self._waiting else state
            return Operation(begun, state, progress=progress)
        code = int(status["status"])
        result = _object(folder / OUT) if code <= 1 else None
        is_good = code == 0 or bool(code == 1 and result and "verdict" in result)
        files = {path.name: path.stat().st_size for path in _files(folder)} if code == 0 else {}
        state = "done" if is_good else "failed"
        return Operation(begun, state, code, status["ended"], progress, result, files)

    def output(self, number: str) -> str:
        """Return what the command of an operation has printed on standard output."""
        with suppress(OSError):
            return (self._folder / number / OUT).read_text(encoding="utf-8", errors="replace")
        return ""

    def file(self, operation: Operation, name: str) -> Path | None:
        """Return the path of a file of an operation; None if it has none of this name."""
        named = {path.name: path for path in _files(self._folder / operation.begun.id)}
        return named.get(name)

    def cancel(self, operation: Operation) -> None:
        """End an operation that has not ended."""
        number = operation.begun.id
        with self._lock:
            self._waiting.discard(number)
        pid = _json(self._folder / number / "pid.json")
        if pid is not None and is_locked(self._folder / number / LOCK):
            with suppress(ProcessLookupError):
                os.killpg(int(pid["pid"]), signal.SIGTERM)

    # ---------------------------------------------------------------------------------------------

    def _prepared(self, begun: Begun, wish: Wish) -> list[str]:
        """Make the folder of an operation; return the words of its process."""
        folder = self._folder / begun.id
        (folder / FILES).mkdir(mode=0o700, parents=True)
        if isinstance(wish, GenerateWish):
            for name, text in wish.texts.items():
                (folder / name).write_text(text, encoding="utf-8")
        _write(folder / _ABOUT, asdict(begun))
        where = folder if isinstance(wish, GenerateWish) else folder / FILES
        words = wish.command(begun.search, where)
        root = str(self._home.root)
        if isinstance(wish, CheckpointWish):
            command = [sys.executable, "-m", "tuner.serve.operations.checkpoint", root, *words]
        else:
            command = [*self._program, *words, "--home", root]
        return [sys.executable, "-m", "tuner.serve.operations.process", str(folder), *command]

    def _run(self, begun: Begun, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run the process of an operation when it is its turn, and wait for its end."""
        folder = self._folder / begun.id
        with self._slots:
            if begun.id not in self._waiting:  # it was cancelled
                return
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True, env=environment,
            )  # fmt: skip
            with suppress(OSError):
                _write(folder / "pid.json", {"pid": process.pid})
            try:
                process.wait(_LONGEST_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            with self._lock:
                self._waiting.discard(begun.id)

    def _remove(self, every: Sequence[Operation]) -> None:
        """Remove old operations."""
        for place, each in enumerate(every):
            is_old = time.time() - each.begun.asked > _KEPT_SECONDS
            if each.is_over and (is_old or place >= _MOST_KEPT - 1):
                shutil.rmtree(self._folder / each.begun.id, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """Return the files that a user may have."""
    files = folder / FILES
    return sorted(p for p in files.iterdir() if p.is_file()) if files.is_dir() else []


def _write(path: Path, values: Mapping[str, Any]) -> None:
    with replacing(path, mode=0o600) as file:
        file.write(json.dumps(values).encode())


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _last_line(path: Path) -> str:
    """Return the last line of a log; of a line that was drawn over itself, the newest."""
    lines = [line.rpartition("\r")[2].strip() for line in _tail(path).split("\n")]
    return next((line for line in reversed(lines) if line), "")


def _object(path: Path) -> dict[str, Any] | None:
    """Return the object in the last line of an output; None if there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")
        value = json.loads(lines[2])
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
