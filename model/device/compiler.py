"""The C++ compiler of this machine, and the private folder that keeps what it compiled.

Code of the folder is executed. So the folder lies in the user's own cache and not in a home of
searches, which may come from others; and a folder that others could have written to is refused.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from model.device.processor import instruction_sets, processor_name
from model.errors import CompileError

_INSTALL = {
    "darwin": "install one with 'xcode-select --install'",
    "linux": "install one, for example with 'apt install g++' or 'dnf install gcc-c++'",
}
_OPTIONS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC")
_PROBE = """
#include <cmath>
#include <vector>
extern "C" float probe(float x) { return std::sqrt(std::vector<float>{x}.back()); }
"""
_TIMEOUT_SECONDS = 1800.0
_BEGUN_SECONDS = 86_400.0  # after which a compilation is no longer under way
_UNUSED_SECONDS = 90 * 86_400.0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        path: of the program.
        version: first line of what it says of itself.
    """

    path: str
    version: str


@cache
def find_compiler() -> Compiler:
    """Return the C++ compiler that the variable CXX names, or the usual one of the system.

    Raises:
        CompileError: if there is none; the message says how to install one.
    """
    if sys.platform not in _INSTALL:
        raise CompileError(f"ticks are not compiled on {sys.platform}")
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    path = shutil.which(name)
    if path is None:
        raise CompileError(f"there is no C++ compiler ({name}); {_INSTALL[sys.platform]}")
    try:
        text = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CompileError(f"{path} does not start: {error}") from error
    return Compiler(path, text.partition("\n")[0].strip())


def cache_folder() -> Path:
    """Return the folder of compiled code; make it if it does not exist.

    Raises:
        CompileError: if others could have written to the folder.
    """
    folder = _cache_path()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        problem = _problem_of(folder)
    except OSError as error:
        problem = f"cannot be used: {error.strerror or error}"
    if problem is not None:
        raise CompileError(f"the folder of compiled code {problem}")
    return folder


def _cache_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "tuner/compiled"


def unused_code(seconds: float) -> list[Path]:
    """Return the files of compiled code that no process of ours has loaded for some time."""
    folder, found, now = _cache_path(), [], time.time()
    with suppress(OSError):  # there is none, or another process deletes it
        for entry in sorted(folder.iterdir()):
            about = entry.lstat()
            if stat.S_ISREG(about.st_mode) and now - about.st_mtime > seconds:
                found.append(entry)
    return found


def _problem_of(folder: Path) -> str | None:
    """Return why the code of a folder must not be executed; None if it may."""
    if (reason := distrust(folder)) is not None:
        return f"{reason}; remove it, or make it yours alone with 'chmod 700'"
    for above in folder.resolve().parents:
        about = above.stat()
        is_sticky = bool(about.st_mode & stat.S_ISVTX)
        if about.st_uid not in {0, os.getuid()}:
            return f"lies in {above}, which belongs to another user; set XDG_CACHE_HOME"
        if about.st_mode & stat.S_IWOTH and not is_sticky:
            return f"lies in {above}, which everybody may change; set XDG_CACHE_HOME"
    return None


def distrust(path: Path) -> str | None:
    """Return why a file or folder may come from others; None if only its owner, we, wrote it."""
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        return f"{path} is a link"
    if about.st_uid != os.getuid():
        return f"{path} belongs to another user"
    if about.st_mode & _OTHERS_WRITE:
        return f"{path} may be changed by others"
    return None


@contextmanager
def compiled_once(name: str) -> Iterator[tuple[Path, Path | None]]:
    """Find a file of compiled code, or let one process make it while the others wait.

    Args:
        name: file name.

    Yields:
        The file; and the place where the caller must write it, or None if the file exists.

    Raises:
        CompileError: if others could have written the file, or the folder.
    """
    import fcntl

    folder = cache_folder()
    file = folder / name
    if not file.exists():
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                _tidy(folder)
                with TemporaryDirectory(dir=folder, prefix="making-") as made:
                    new = Path(made) / name
                    yield file, new
                    new.chmod(0o600)
                    new.replace(file)
                return
    if (reason := distrust(file)) is not None:
        raise CompileError(f"{reason}; remove it")
    os.utime(file)
    yield file, None


def _tidy(folder: Path) -> None:
    """Delete what was not used for a long time, and what killed processes left."""
    now = time.time()
    for entry in folder.iterdir():
        with suppress(OSError):  # another process deletes it too
            is_begun = entry.name.startswith("making-")
            if now - entry.lstat().st_mtime < (_BEGUN_SECONDS if is_begun else _UNUSED_SECONDS):
                continue
            if is_begun:
                shutil.rmtree(entry)
            else:
                entry.unlink()


def compile_library(source: str) -> Path:
    """Return a shared library of a C++ source without rounding shortcuts, compiled once.

    Raises:
        CompileError: if there is no compiler, or it fails.
    """
    compiler = find_compiler()
    text = "\0".join((source, *_OPTIONS, *machine(compiler)))
    with compiled_once(f"{sha256(text.encode()).hexdigest()[:32]}.so") as (file, new):
        if new is not None:
            cpp = new.with_suffix(".cpp")
            cpp.write_text(source, encoding="utf-8")
            run_compiler([compiler.path, *_OPTIONS, "-o", str(new), str(cpp)])
    return file


def check_compiler() -> str:
    """Check that this machine compiles and loads C++; needs no torch.

    Returns:
        Version of the compiler.

    Raises:
        CompileError: if it does not.
    """
    try:
        ctypes.CDLL(str(compile_library(_PROBE)))
    except OSError as error:
        raise CompileError(f"compiled code cannot be loaded: {error}") from error
    return find_compiler().version


def machine(compiler: Compiler) -> tuple[str, ...]:
    """Return what compiled code depends on in addition to its source."""
    return processor_name(), instruction_sets(), compiler.path, compiler.version


def run_compiler(command: list[str], variables: dict[str, str] | None = None) -> None:
    """Run a program that compiles.

    Raises:
        CompileError: if it fails, with the last line of its messages.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, env=variables
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"the compilation failed: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise CompileError(f"the compilation failed: {lines[-1].strip()[:300]}")
