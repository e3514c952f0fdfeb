"""The wheel holds every room, and works in a folder outside of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
BUILT_WITH = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@pytest.mark.slow
def test_wheel_holds_every_room_and_space(tmp_path: Path) -> None:
    source, wheels, site = (tmp_path / name for name in ("source", "wheels", "site"))
    files = subprocess.run(
        ["git", "ls-files", "model", "tuner", "search_spaces", *BUILT_WITH],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in files:  # a build leaves files beside the sources
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source]
    subprocess.run(build, check=True)
    (wheel,) = wheels.glob("tuner-*.whl")
    packed = set(ZipFile(wheel).namelist())
    modules = {name for name in files if name.startswith(("model/", "tuner/"))}
    spaces = {f"tuner/{name}" for name in files if name.startswith("search_spaces/")}
    assert modules | spaces <= packed
    assert {name for name in packed if not name.startswith(("model/", "tuner/"))} == {
        name for name in packed if ".dist-info/" in name
    }

    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "import model, tuner, tuner.cli, sys; print(model.__file__, tuner.__file__); "
        "sys.exit(tuner.cli.main(sys.argv[1:]))"
    )

    def run(*arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{site}/model/__init__.py {site}/tuner/__init__.py")
        return [*done.stdout.splitlines()[1:], *done.stderr.splitlines()]

    object_, *messages = run("validate", "--space", "lm", "--json")
    assert object_.startswith("{")
    shipped = site / "tuner" / "search_spaces"
    assert messages[0] == f"--space lm: {shipped}/lm.yaml, which comes with tuner"
    run("init")
    text = (ROOT / "search_spaces" / "lm.yaml").read_text(encoding="utf-8")
    assert (empty / "lm.yaml").read_text(encoding="utf-8") == text.replace("search_spaces/", "")
    assert run("validate", "--space", "lm", "--json")[1] == (
        "--space lm: lm.yaml, which is in this folder"
    )
