"""Standard output that is closed, full, or not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

LATIN = {"PYTHONIOENCODING": "latin-1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NO_CHANGE: Mapping[str, str] = {}
SPACE = Path(__file__).parents[2] / "search_spaces" / "lm.yaml"


def shell(command: str, environment: Mapping[str, str] = NO_CHANGE) -> tuple[int, str, str]:
    """Run a line of bash in which `tuner` is this tuner; return status, output and errors."""
    tuner = f'set -o pipefail; tuner() {{ "{sys.executable}" -m tuner "$@"; }}'
    done = subprocess.run(
        ["bash", "-c", f"{tuner}; {command}"],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.mark.slow
@pytest.mark.parametrize("environment", [LATIN, ASCII], ids=["latin-1", "ascii"])
def test_output_escapes_what_its_encoding_lacks(environment: Mapping[str, str]) -> None:
    status, out, err = shell("tuner symbols", environment)
    assert status == 0, err
    assert r"\u03b1_max" in out
    status, out, err = shell("tuner symbols --json", environment)
    assert status == 0, err
    assert json.loads(out)["max_learning_rate"]["symbol"] == "α_max"


@pytest.mark.slow
def test_options_are_utf8_whatever_the_locale() -> None:
    setting = "--set hyperparameters.α_max=0.01 --json"
    status, out, err = shell(f"tuner validate --space {SPACE} {setting}", ASCII)
    assert status == 0, err
    assert json.loads(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "problem"),
    [
        (">&-", "standard output is closed; direct it to a file or to /dev/null"),
        (">/dev/full", "cannot write to standard output: No space left on device"),
    ],
)
@pytest.mark.parametrize("option", ["", " --json"])
def test_output_that_cannot_be_written_is_one_sentence(
    redirection: str, problem: str, option: str
) -> None:
    status, _, err = shell(f"tuner symbols{option} {redirection}")
    assert status == 2
    assert err.splitlines()[-1] == f"tuner symbols: {problem}"
    assert "Traceback" not in err


@pytest.mark.slow
def test_reader_that_leaves_ends_the_command_quietly() -> None:
    for command in ("tuner symbols", "tuner symbols --json 2>/dev/null"):
        assert shell(f"{command} | true") == (141, "", "")


@pytest.mark.slow
def test_closed_standard_error_is_no_problem() -> None:
    status, _, _ = shell("tuner show '' 2>&-")
    assert status == 2
    status, out, _ = shell("tuner symbols 2>&-")
    assert status == 0
    assert "T_warmup" in out
