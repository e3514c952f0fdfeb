from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.release import ROOT, build, commands, pythons
from tuner.arguments.parser import parse


def test_commands_of_the_readme_are_followed() -> None:
    found = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found[:4] == [
        "tuner search --space lm", "tuner ui", "tuner replay", "tuner init notes.txt",
    ]  # fmt: skip
    for command in found:
        parse(command.split()[1:])


def test_first_python_is_this_one_and_the_next_is_newer() -> None:
    first, *newer = pythons()
    assert first == sys.executable
    for python in newer:
        code = "import sys; print(*sys.version_info[:2])"
        said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        assert tuple(map(int, said.stdout.split())) > sys.version_info[:2]


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_same_package(tmp_path: Path) -> None:
    build(tmp_path)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    spaces = {name for name in packed if name.startswith("tuner/search_spaces/")}
    assert len(spaces) > 10
    assert {name.removeprefix("tuner/") for name in spaces} <= names
    assert packed - spaces <= names
    assert {"README.md", "LICENSE", "pyproject.toml", "setup.py"} <= names
