"""Mutations of files, each keyed by a number, and the limits that readers of them must keep.

Mutation n of some seeds is always the same file, so that a failure names what to repeat. A test
reads its mutations within `limits`: in bounded time and memory, and without a write outside of
a folder.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# `make fuzz` sets TUNER_FUZZ and runs all mutations; the tests keep the first ones.
MUTATIONS = 2000 if "TUNER_FUZZ" in os.environ else 150
SECONDS = 20  # reading one mutation takes far less than one, on an idle machine
MEGABYTES = 200

_PIECES = (
    b"", b"\0", b"\xff", b"\xff\xff\xff\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n",
    b"\t", b" ", b'"', b"'", b"\\", b"\\ud800", b"\\u0000", b",", b":", b"{", b"}", b"[", b"]",
    b"[" * 5000, b'{"a":' * 5000, b"1e309", b"-1", b"9" * 5000, b"NaN", b"null", b"true",
    b"\xf0\x9f\x92\xa5", "\u202e".encode(), "\u2028".encode(), b"\x1b[31m", b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00", b"\x01\x00\x00\x00\x00\x00\x00\x00", b"/etc/passwd", b"../../x", b"%00",
    b" " * 70_000, b"a" * 70_000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "0", "1e9", "a", "\0", "\ud800", "\u202e", "\x1b[31m", "💥",
    "a" * 70_000, "../../x", "/etc/passwd", "file:///etc/passwd", [], [1], [[]], [None], {},
    {"a": 1}, {"": None}, [0] * 5000,
)  # fmt: skip
_KEYS = ("a", "", "type", "model", "id", "path", "\0", "\ud800", "__class__", "sha256")


def mutated_bytes(seeds: Sequence[bytes], number: int) -> bytes:
    """Return one of some files after one to four changes of its bytes."""
    rng = random.Random(f"bytes {number}")
    data = rng.choice(seeds)
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_BYTE_CHANGES)(data, rng)
    return data


def mutated_json(seeds: Sequence[Any], number: int) -> bytes:
    """Return the JSON of one of some objects after one to four changes of its structure.

    A tenth of the mutations also changes bytes. NaN and infinity are written as Python does.
    """
    rng = random.Random(f"json {number}")
    value = mutated_value(rng.choice(seeds), number)
    data = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return mutated_bytes([data], number) if rng.random() < 0.1 else data


def mutated_value(value: Any, number: int) -> Any:
    """Return nested dicts and lists after one to four changes of entries and keys."""
    rng = random.Random(f"value {number}")
    holder = {"": copy.deepcopy(value)}
    for _ in range(rng.randint(1, 4)):
        _change_entry(holder, rng)
    return holder[""]


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _splice(data: bytes, rng: random.Random) -> bytes:
    """Put a piece in place of some bytes."""
    i = _place(data, rng)
    return data[:i] + rng.choice(_PIECES) + data[i + rng.choice((0, 1, 4, 100)) :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _drop(data: bytes, rng: random.Random) -> bytes:
    i, j = sorted((_place(data, rng), _place(data, rng)))
    return data[:i] + data[j:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    i, j = sorted((_place(data, rng), _place(data, rng)))
    return data[:j] + data[i : i + 10_000] * rng.randint(1, 3) + data[j:]


def _swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def _place(data: bytes, rng: random.Random) -> int:
    """Draw a place; often near the begin or the end, where formats keep their structure."""
    near = min(64, len(data))
    return rng.choice((
        rng.randint(0, len(data)), rng.randint(0, near), len(data) - rng.randint(0, near),
    ))  # fmt: skip


_BYTE_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _splice, _splice, _cut, _drop, _repeat, _swap_lines,
)  # fmt: skip


def _change_entry(root: dict[str, Any], rng: random.Random) -> None:
    holder, key = rng.choice(list(_entries(root)))
    match rng.randrange(7):
        case 0:
            if holder is not root:
                del holder[key]
        case 1:
            holder[key] = [copy.deepcopy(holder[key]) for _ in range(rng.randint(0, 3))]
        case 2:
            holder[key] = {rng.choice(_KEYS): holder[key]}
        case 3 if isinstance(holder, dict) and holder is not root:
            holder[rng.choice(_KEYS)] = holder.pop(key)
        case 4:
            other, other_key = rng.choice(list(_entries(root)))
            holder[key] = copy.deepcopy(other[other_key])
        case _:
            holder[key] = copy.deepcopy(rng.choice(VALUES))


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in nested dicts and lists: its holder, and its key in the holder."""
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in list(keys)[:1000]:
        yield value, key
        yield from _entries(value[key])


# limits ------------------------------------------------------------------------------------------


@contextmanager
def limits(folder: Path, megabytes: int = MEGABYTES) -> Iterator[None]:
    """Check what runs within: peak memory, and that nothing outside of a folder is written.

    What shall not count for the memory, such as imports, runs before.
    """
    before = peak_megabytes()
    with writes_only(folder):
        yield
    grown = peak_megabytes() - before
    assert grown < megabytes, f"the peak of the memory grew by {grown:.0f} MB"


def peak_megabytes() -> float:
    """Return the highest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def time_limit(what: str = "reading a mutation", seconds: int = SECONDS) -> Iterator[None]:
    """Raise TimeoutError in what takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"{what} took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


_allowed: list[str] = []  # folders that may be written while `writes_only` is active
_written: list[str] = []  # writes elsewhere
_is_watching = False
# Files of epochs are opened in a folder that is open, which an audit hook is not told.
_IN_A_FOLDER = re.compile(r"[0-9]{4}")
_WRITES = {
    "os.remove": (0,), "os.rename": (0, 1), "os.mkdir": (0,), "os.rmdir": (0,), "os.link": (1,),
    "os.symlink": (1,), "os.truncate": (0,), "os.chmod": (0,),
}  # fmt: skip


@contextmanager
def writes_only(folder: Path) -> Iterator[None]:
    """Fail if Python writes, renames or deletes a file outside of a folder."""
    global _is_watching
    if not _is_watching:
        sys.addaudithook(_watch)  # stays until the process ends
        _is_watching = True
    _written.clear()
    _allowed[:] = [str(folder.resolve()), "/dev/", "/proc/"]
    try:
        yield
    finally:
        _allowed.clear()
    assert not _written, f"written outside of {folder}: {_written[:5]}"


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if not _allowed:
        return
    if event == "open":
        path, _, flags = args
        paths = [path] if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else []
    else:
        paths = [args[i] for i in _WRITES.get(event, ())]
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            if _IN_A_FOLDER.fullmatch(os.fsdecode(path)):
                continue
            name = os.path.realpath(os.fsdecode(path))
            if not name.startswith(tuple(_allowed)) and "__pycache__" not in name:
                _written.append(f"{event} {name}")


def check_reading(
    mutate: Callable[[int], bytes],
    read: Callable[[Path], object],
    folder: Path,
    name: str,
    errors: tuple[type[Exception], ...],
    numbers: range | None = None,
) -> int:
    """Read each mutation of a file; return how many were refused with one sentence.

    Args:
        mutate: returns the contents of a mutation.
        read: reads the file.
        folder: where the file is written; nothing else may be.
        name: name of the file in the folder.
        errors: errors that the reader may raise.
        numbers: numbers of the mutations; by default `MUTATIONS` of them.
    """
    refused = 0
    file = folder / name
    with limits(folder):
        for number in numbers if numbers is not None else range(MUTATIONS):
            file.write_bytes(mutate(number))
            try:
                with time_limit():
                    read(file)
            except errors as error:
                refused += 1
                assert is_sentence(str(error)), f"mutation {number}: {error!r}"
            except BaseException as error:
                kept = Path(os.environ.get("TUNER_FUZZ_KEEP", folder)) / f"{number}-{name}"
                kept.write_bytes(file.read_bytes())
                raise AssertionError(f"mutation {number} of {name}, kept as {kept}") from error
    return refused


def is_sentence(message: str) -> bool:
    """Return True if a message is one line of a bounded length that a terminal can show."""
    return 0 < len(message) < 2000 and message.isprintable()
