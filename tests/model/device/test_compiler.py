"""The folder of compiled code is ours alone; one process compiles, and the others wait."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.device import compiler
from model.device.compiler import cache_folder, compile_library, compiled_once
from model.errors import CompileError

SOURCE = 'extern "C" int answer() { return 42; }'


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiler.find_compiler.cache_clear()
    yield
    compiler.find_compiler.cache_clear()


def test_new_folder_is_private() -> None:
    folder = cache_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == folder


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_folder_that_others_may_change_is_refused(mode: int) -> None:
    cache_folder().chmod(mode)
    with pytest.raises(CompileError, match="may be changed by others; remove it, or make it yours"):
        cache_folder()


def test_linked_folder_is_refused(tmp_path: Path) -> None:
    folder = cache_folder()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CompileError, match="is a link"):
        cache_folder()


def test_folder_below_one_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    cache_folder()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(CompileError, match="which everybody may change"):
        cache_folder()
    (tmp_path / "cache").chmod(0o1777)  # as /tmp: only the owner of an entry replaces it
    cache_folder()


def test_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cache_folder()
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(CompileError, match="belongs to another user"):
        cache_folder()


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_code_that_others_may_change_is_not_loaded(mode: int) -> None:
    (cache_folder() / "x.so").write_bytes(b"code")
    (cache_folder() / "x.so").chmod(mode)
    with pytest.raises(CompileError, match="may be changed by others"), compiled_once("x.so"):
        pass


def test_missing_compiler_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompileError, match=r"no C\+\+ compiler \(no-such-compiler\); install one"):
        compiler.check_compiler()


def test_failing_compiler_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="the compilation failed"):
        compile_library("this is no C++")
    assert not list(cache_folder().glob("*.so"))
    assert not list(cache_folder().glob("making-*"))


def test_library_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    file = compile_library(SOURCE)
    assert ctypes.CDLL(str(file)).answer() == 42
    assert file.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(compiler, "run_compiler", None)
    assert compile_library(SOURCE) == file


def test_library_is_compiled_for_each_kind_of_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home on a network serves several: the code of one may be no code for another."""
    file = compile_library(SOURCE)
    monkeypatch.setattr(compiler, "instruction_sets", lambda: "x86_64 sse2")
    assert compile_library(SOURCE) != file


def test_others_wait_for_the_one_that_compiles() -> None:
    makers: list[int] = []
    inside = threading.Event()

    def use(number: int) -> None:
        with compiled_once("x.so") as (_, new):
            if new is not None:
                makers.append(number)
                inside.set()
                new.write_bytes(b"code")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert inside.is_set()
    assert len(makers) == 1
    assert (cache_folder() / "x.so").read_bytes() == b"code"


def test_old_code_and_remains_of_killed_processes_are_deleted() -> None:
    folder = cache_folder()
    for name, days in (("old.so", 91), ("used.so", 89), ("old.so.lock", 91)):
        (folder / name).touch()
        os.utime(folder / name, (0, time.time() - days * 86_400))
    for name, days in (("making-dead", 2), ("making-alive", 0)):
        (folder / name / "inductor").mkdir(parents=True)
        os.utime(folder / name, (0, time.time() - days * 86_400))
    compile_library(SOURCE)
    names = {entry.name for entry in folder.iterdir() if len(entry.name) < 20}
    assert names == {"used.so", "making-alive"}
