"""Passwords in URLs of servers appear nowhere: not on the terminal, and in no file of the home."""

from __future__ import annotations

import pytest

from tests.e2e.command_process import run_command
from tests.e2e.conftest import Workplace, make_workplace

_PASSWORD = "S3CRETpassword"
_STORE = f"http://admin:{_PASSWORD}@127.0.0.1:9/"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("secrets"), _STORE)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["list", "sync", "replay", "ui"])
def test_commands_show_no_password(place: Workplace, command: str) -> None:
    (place.home / "searches").mkdir(parents=True, exist_ok=True)
    run = run_command([command], place.folder, place.environment)
    assert _PASSWORD not in run.out + run.err
    if command != "sync":
        assert run.status == 2
        assert "http://admin:***@127.0.0.1:9/ cannot be used: it refuses connections" in run.err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["list", "search --space small.yaml"])
def test_debug_output_and_files_have_no_password(place: Workplace, command: str) -> None:
    run = place.fresh(*command.split(), "--debug")
    assert run.status != 0
    assert "http://admin:***@127.0.0.1:9/ cannot be used" in run.err
    assert _PASSWORD not in run.out + run.err
    files = [path for path in place.home.rglob("*") if path.is_file()]
    assert not [path for path in files if _PASSWORD.encode() in path.read_bytes()]
