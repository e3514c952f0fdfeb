"""`tuner doctor` names the compiler of ticks, or what to install, and makes no home."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from model.device import compiler
from model.errors import CompileError
from tuner.cli import main
from tuner.home.home import Home
from tuner.housekeeping import installation
from tuner.housekeeping.installation import CHECKS


def test_doctor_names_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "check_compiler", lambda: "g++ 12.2.0")
    assert CHECKS["compiler"](Home.of(tmp_path)).startswith("g++ 12.2.0, compiles the ticks")


def test_doctor_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> str:
        raise CompileError("there is no C++ compiler (g++); install one")

    monkeypatch.setattr(compiler, "check_compiler", check)
    text = CHECKS["compiler"](Home.of(tmp_path))
    assert text == "no ticks are compiled: there is no C++ compiler (g++); install one"


@pytest.mark.slow
def test_doctor_makes_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check once left `runs/` in the folder where it ran."""
    monkeypatch.setattr(installation, "CHECKS", {"disk": CHECKS["disk"], "store": CHECKS["store"]})
    home = tmp_path / "a" / "home"
    assert main(["doctor", "--home", str(home)]) == 0
    assert not home.parent.exists()
    with pytest.raises(RuntimeError, match=r"only 0\.0 GB are free"):
        monkeypatch.setattr("shutil.disk_usage", lambda folder: Namespace(free=1e6))
        CHECKS["disk"](Home.of(home))
