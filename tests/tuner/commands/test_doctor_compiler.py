"""`tuner doctor` names the compiler of ticks, or what to install."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.device import compiler
from model.errors import CompileError
from tuner.commands.doctor import CHECKS
from tuner.home import Home


def test_doctor_names_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "check_compiler", lambda: "g++ 12.2.0")
    assert CHECKS["compiler"](Home.of(tmp_path)).startswith("g++ 12.2.0, compiles the ticks")


def test_doctor_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> str:
        raise CompileError("there is no C++ compiler (g++); install one")

    monkeypatch.setattr(compiler, "check_compiler", check)
    text = CHECKS["compiler"](Home.of(tmp_path))
    assert text == "no ticks are compiled: there is no C++ compiler (g++); install one"
